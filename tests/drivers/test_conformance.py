"""The connector passes the suite of all connectors on its second driver too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage import DatabaseSettings, Identity
from moorage.testing import ConnectorSuite
from moorage_postgres.provocations import PROVOCATIONS
from tests.fix_backend import Servers, new_database


@pytest.fixture(scope="class")
def place(servers: Servers) -> Iterator[dict[str, Any]]:
    """Return the settings of one database for all checks, each of which empties it."""
    with new_database("postgres", servers, Path()) as settings:
        yield settings


class TestPsycopgConformance(ConnectorSuite):
    """All checks of the suite."""

    provocations = PROVOCATIONS
    identity = Identity("pg_monitor", {"sub": "ada"})
    identity_query = "SELECT current_user"

    @pytest.fixture
    def settings(self, place: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        options = {"driver": "psycopg", "identity_roles": "pg_monitor"}
        return DatabaseSettings(**place, connector_options=options, _env_file=None)
