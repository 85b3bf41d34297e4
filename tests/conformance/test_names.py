"""Each connector of ours passes the suite under each of its names, as a stranger's would."""

from typing import Any

import pytest

from moorage import DatabaseSettings, Identity, get_connector, installed_connectors
from moorage.testing import ConnectorSuite
from moorage_mysql.provocations import PROVOCATIONS as ON_MYSQL
from moorage_postgres.provocations import PROVOCATIONS as ON_POSTGRES

# The name after which a backend is called here is tested beside its connector, in every cell.
FIRST_NAMES = {"moorage-postgres": "postgres", "moorage-mysql": "mysql", "moorage-sqlite": "sqlite"}
OTHER_NAMES = {"postgres": ["postgresql", "supabase"], "mysql": ["mariadb"]}
# Behind these two is the class that is tested under the first name; behind "supabase" another one.
ALIASES = {"postgresql", "mariadb"}


def names_of(backend: str) -> list[Any]:
    """Return the further names of a backend, of which aliases wait for the full counts."""
    full = [pytest.mark.scaled(small=[])]
    return [pytest.param(n, marks=full if n in ALIASES else []) for n in OTHER_NAMES[backend]]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
class TestPostgresUnderOtherNames(ConnectorSuite):
    """All checks of the suite, for each name that is not the first one."""

    provocations = ON_POSTGRES
    identity = Identity("pg_monitor", {"sub": "ada"})
    identity_query = "SELECT current_user"

    @pytest.fixture(params=names_of("postgres"))
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

    @pytest.fixture(params=names_of("mysql"))
    def settings(
        self, request: pytest.FixtureRequest, fresh_database: dict[str, Any]
    ) -> DatabaseSettings:
        """Return the settings of an empty database."""
        values = {**fresh_database, "type": request.param}
        return DatabaseSettings(**values, _env_file=None)


def settings_of(name: str) -> DatabaseSettings:
    """Return settings that choose a connector by name."""
    return DatabaseSettings(type=name, user="postgres", _env_file=None)


def test_aliases_are_the_same_class() -> None:
    """An alias leads to the very class that its backend's first name leads to."""
    for first, names in OTHER_NAMES.items():
        for name in names:
            classes = {type(get_connector(settings_of(n))) for n in (first, name)}
            assert (len(classes) == 1) == (name in ALIASES)


def test_the_names_are_known() -> None:
    """Our connectors are installed under these names, and each of them is tested."""
    others = {name: [] for name in FIRST_NAMES.values()} | OTHER_NAMES
    ours = [item for item in installed_connectors() if item.distribution in FIRST_NAMES]
    for distribution, first in FIRST_NAMES.items():
        names = sorted(item.name for item in ours if item.distribution == distribution)
        assert names == sorted([first, *others[first]])
