"""The connector passes the suite that every connector has to pass."""

from typing import Any

import pytest

from moorage import DatabaseSettings
from moorage.testing import ConnectorSuite
from moorage_mysql.provocations import PROVOCATIONS

pytestmark = pytest.mark.parametrize("backend", ["mysql"])


class TestConformance(ConnectorSuite):
    """All checks of the suite."""

    provocations = PROVOCATIONS

    @pytest.fixture
    def settings(self, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**fresh_database, _env_file=None)
