"""The connector passes the suite of all connectors through a pooler in transaction mode too."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from moorage import (
    Database,
    DatabaseError,
    DatabaseSettings,
    Identity,
    StalePlanError,
    TooManyConnectionsError,
)
from moorage.testing import ConnectorSuite
from moorage_postgres.provocations import PROVOCATIONS
from tests.fix_backend import Servers, new_database


@pytest.fixture(scope="class")
def place(servers: Servers) -> Iterator[dict[str, Any]]:
    """Return the settings of one database for all checks, each of which empties it."""
    with new_database("postgres", servers, Path()) as settings:
        yield settings


@pytest.fixture
def fresh_database(place: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the database to which the pooler leads."""
    return place


def past_the_pooler(
    provoke: Callable[[Database], Awaitable[object]],
) -> Callable[[Database], Awaitable[object]]:
    """Return what brings about on the server itself what a pooler would keep from happening."""

    async def provoke_directly(database: Database) -> None:
        async with Database(database.settings.direct()) as direct:
            await provoke(direct)

    return provoke_directly


class PooledSuite(ConnectorSuite):
    """What holds for each driver."""

    __test__ = False

    expected_failures: ClassVar[Mapping[str, str]] = {
        "test_one_at_a_time_migrates": "the lock needs a session of the server, and is refused",
    }
    # The pooler knows no new users, and what is prepared belongs to a session.
    provocations: ClassVar[
        Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]
    ] = {
        **PROVOCATIONS,
        **{
            kind: past_the_pooler(PROVOCATIONS[kind])
            for kind in (StalePlanError, TooManyConnectionsError)
        },
    }
    identity = Identity("pg_monitor", {"sub": "ada"})
    identity_query = "SELECT current_user"
    driver: ClassVar[str]

    @pytest.fixture
    def settings(self, pooled: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database, behind the pooler."""
        options = {
            **pooled["connector_options"],
            "driver": self.driver,
            "identity_roles": "pg_monitor",
        }
        return DatabaseSettings(**{**pooled, "connector_options": options}, _env_file=None)


class TestPooledConformance(PooledSuite):
    """All checks of the suite, on connections that are ours for a transaction only."""

    __test__ = True
    driver = "asyncpg"


@pytest.mark.scaled(small=[])
class TestPooledPsycopgConformance(PooledSuite):
    """The same, on the second driver."""

    __test__ = True
    driver = "psycopg"
