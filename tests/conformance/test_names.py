"""Each connector of ours passes the suite under each of its names, as a stranger's would."""

from typing import Any

import pytest

from moorage import DatabaseSettings, installed_connectors
from moorage.testing import ConnectorSuite

# The name after which a backend is called here is tested beside its connector, in every cell.
BACKENDS = {
    "moorage-postgres": "postgres",
    "moorage-mysql": "mysql",
    "moorage-sqlite": "sqlite",
}
OURS = [item for item in installed_connectors() if item.distribution in BACKENDS]
OTHER_NAMES = [item for item in OURS if item.name != BACKENDS[item.distribution]]


class TestUnderOtherNames(ConnectorSuite):
    """All checks of the suite, for each name that is not the first one."""

    @pytest.fixture(params=OTHER_NAMES, ids=lambda item: item.name)
    def name(self, request: pytest.FixtureRequest) -> str:
        """Return one of the names."""
        found: str = request.param.name
        return found

    @pytest.fixture
    def backend(self, name: str) -> str:
        """Return the backend behind it."""
        return next(BACKENDS[item.distribution] for item in OURS if item.name == name)

    @pytest.fixture
    def settings(self, name: str, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**{**fresh_database, "type": name}, _env_file=None)


def test_the_names_are_known() -> None:
    """Our connectors are installed under these names, and each of them is tested."""
    assert {item.name for item in OURS} == {
        "postgres",
        "postgresql",
        "supabase",
        "mysql",
        "mariadb",
        "sqlite",
    }
    assert {item.name for item in OTHER_NAMES} == {"postgresql", "supabase", "mariadb"}
