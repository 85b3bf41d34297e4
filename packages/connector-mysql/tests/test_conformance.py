"""The connector passes the suite that every connector has to pass."""

from typing import Any

import pytest

from moorage import DatabaseSettings
from moorage.testing import ConnectorSuite
from moorage_mysql.provocations import PROVOCATIONS
from tests.fix_backend import Servers

pytestmark = pytest.mark.parametrize("backend", ["mysql"])


@pytest.fixture(scope="module")
def is_mariadb(servers: Servers) -> bool:
    """Return whether the server is MariaDB, and not MySQL."""
    return servers.get("mysql").version().startswith("MariaDB")


class TestConformance(ConnectorSuite):
    """All checks of the suite."""

    provocations = PROVOCATIONS

    @pytest.fixture
    def settings(
        self, fresh_database: dict[str, Any], is_mariadb: bool, request: pytest.FixtureRequest
    ) -> DatabaseSettings:
        """Return the settings of an empty database."""
        if request.node.originalname == "test_an_idle_transaction_is_ended" and not is_mariadb:
            pytest.skip("MySQL has no limit for transactions that sit idle")
        return DatabaseSettings(**fresh_database, _env_file=None)
