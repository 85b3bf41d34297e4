"""Each connector of ours passes the suite under each of its names, as a stranger's would."""

from typing import Any

import pytest

from moorage import DatabaseSettings, Identity, installed_connectors
from moorage.testing import ConnectorSuite
from moorage_mysql.provocations import PROVOCATIONS as ON_MYSQL
from moorage_postgres.provocations import PROVOCATIONS as ON_POSTGRES

# The name after which a backend is called here is tested beside its connector, in every cell.
FIRST_NAMES = {"moorage-postgres": "postgres", "moorage-mysql": "mysql", "moorage-sqlite": "sqlite"}
OTHER_NAMES = {"postgres": ["postgresql", "supabase"], "mysql": ["mariadb"]}


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
class TestPostgresUnderOtherNames(ConnectorSuite):
    """All checks of the suite, for each name that is not the first one."""

    provocations = ON_POSTGRES
    identity = Identity("pg_monitor", {"sub": "ada"})
    identity_query = "SELECT current_user"

    @pytest.fixture(params=OTHER_NAMES["postgres"])
    def settings(
        self, request: pytest.FixtureRequest, fresh_database: dict[str, Any]
    ) -> DatabaseSettings:
        """Return the settings of an empty database."""
        options = {"identity_roles": "pg_monitor"}
        values = {**fresh_database, "type": request.param, "connector_options": options}
        return DatabaseSettings(**values, _env_file=None)


@pytest.mark.parametrize("backend", ["mysql"], indirect=True)
class TestMySQLUnderOtherNames(ConnectorSuite):
    """The same for the other server."""

    provocations = ON_MYSQL

    @pytest.fixture(params=OTHER_NAMES["mysql"])
    def settings(
        self, request: pytest.FixtureRequest, fresh_database: dict[str, Any]
    ) -> DatabaseSettings:
        """Return the settings of an empty database."""
        values = {**fresh_database, "type": request.param}
        return DatabaseSettings(**values, _env_file=None)


def test_the_names_are_known() -> None:
    """Our connectors are installed under these names, and each of them is tested."""
    others = {name: [] for name in FIRST_NAMES.values()} | OTHER_NAMES
    ours = [item for item in installed_connectors() if item.distribution in FIRST_NAMES]
    for distribution, first in FIRST_NAMES.items():
        names = sorted(item.name for item in ours if item.distribution == distribution)
        assert names == sorted([first, *others[first]])
