"""Databases for tests, disposed afterwards, with proof that nothing was left checked out."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from moorage import Database, DatabaseSettings

DatabaseFactory = Callable[..., Database]


@pytest.fixture
async def make_database(
    fresh_database: dict[str, Any],
) -> AsyncIterator[DatabaseFactory]:
    """
    Return a function that makes a ``Database`` on the test's empty database.

    Keyword arguments are settings in place of the usual ones. After the test no connection may
    be checked out of any of them.
    """
    made: list[Database] = []

    def make(**overrides: Any) -> Database:
        values = {**fresh_database, **overrides}
        made.append(Database(DatabaseSettings(**values, _env_file=None)))
        return made[-1]

    yield make
    left = [
        0 if database.state == "disposed" else database.pool_statistics().in_use
        for database in made
    ]
    for database in made:
        await database.dispose(drain_seconds=0)
    assert left == [0] * len(made), "a connection is still checked out"


@pytest.fixture
async def database(make_database: DatabaseFactory) -> Database:
    """Return a ``Database`` on an empty database of the chosen backend."""
    return make_database()
