"""The connector passes the suite of all connectors on its second driver too."""

from typing import Any

import pytest

from moorage import DatabaseSettings
from moorage.testing import ConnectorSuite


class TestPsycopgConformance(ConnectorSuite):
    """All checks of the suite."""

    @pytest.fixture
    def settings(self, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**fresh_database, _env_file=None)
