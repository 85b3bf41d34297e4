"""The connector passes the suite of all connectors on its second driver too."""

from typing import Any

import pytest

from moorage import DatabaseSettings, Identity
from moorage.testing import ConnectorSuite
from moorage_postgres.provocations import PROVOCATIONS


class TestPsycopgConformance(ConnectorSuite):
    """All checks of the suite."""

    provocations = PROVOCATIONS
    identity = Identity("pg_monitor", {"sub": "ada"})
    identity_query = "SELECT current_user"

    @pytest.fixture
    def settings(self, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        options = {**fresh_database["connector_options"], "identity_roles": "pg_monitor"}
        return DatabaseSettings(**{**fresh_database, "connector_options": options}, _env_file=None)
