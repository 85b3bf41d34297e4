"""The connector passes the suite of all connectors through a pooler in transaction mode too."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from moorage import DatabaseSettings
from moorage.testing import ConnectorSuite


class TestPooledConformance(ConnectorSuite):
    """All checks of the suite, on connections that are ours for a transaction only."""

    expected_failures: ClassVar[Mapping[str, str]] = {
        "test_one_at_a_time_migrates": "the lock needs a session of the server, and is refused",
    }

    @pytest.fixture
    def settings(self, pooled: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database, behind the pooler."""
        return DatabaseSettings(**pooled, _env_file=None)


class TestPooledPsycopgConformance(ConnectorSuite):
    """The same, on the second driver."""

    expected_failures: ClassVar[Mapping[str, str]] = TestPooledConformance.expected_failures

    @pytest.fixture
    def settings(self, pooled: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database, behind the pooler, on psycopg."""
        options = {**pooled["connector_options"], "driver": "psycopg"}
        return DatabaseSettings(**{**pooled, "connector_options": options}, _env_file=None)
