"""A statement whose task was cancelled does not go on on the server, and no other one is ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from moorage import Database, DatabaseError
from moorage_mysql.left_behind import end_statement
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import create_tables

# Works for hours, looks at no socket meanwhile, and ends at once when it is told to.
_LONG = "BENCHMARK(1000000000000, SHA2('moorage', 512))"
_WORK = {
    "write": f"UPDATE account SET balance = {_LONG}",
    "read": f"SELECT {_LONG}",
}


@pytest.fixture
async def patient(make_database: DatabaseFactory) -> Database:
    """Return a database that limits no statement, on either side."""
    database = make_database(statement_timeout_seconds=0)
    await create_tables(database, "ada")
    return database


@pytest.fixture
async def watcher(make_database: DatabaseFactory) -> AsyncIterator[Database]:
    """Return a database for looking, which ends what a test has left running."""
    watcher = make_database()
    yield watcher
    for number in await running(watcher):
        await kill(watcher, number)
    await until(watcher, ends=True)


async def running(watcher: Database) -> list[int]:
    """Return the connections that are at the long work, in this database."""
    async with watcher.engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE()"
                " AND id <> CONNECTION_ID() AND command = 'Query' AND info LIKE '%BENCHMARK%'"
            )
        )
        return list(found.scalars())


async def kill(watcher: Database, number: int) -> None:
    """End what a connection runs, unless it has ended by itself."""
    with contextlib.suppress(DatabaseError):
        async with watcher.engine.connect() as connection:
            await connection.exec_driver_sql(f"KILL QUERY {number:d}")


async def until(watcher: Database, *, ends: bool) -> None:
    """Return when the long work is there, or gone."""
    async with asyncio.timeout(60):
        while bool(await running(watcher)) is ends:
            await asyncio.sleep(0.01)


async def cancel_in(engine: AsyncEngine, watcher: Database, statement: str) -> None:
    """Run a statement, and cancel its task when the server is at it."""

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(text(statement))

    task = asyncio.create_task(work())
    await until(watcher, ends=False)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("kind", _WORK)
async def test_a_cancelled_statement_is_ended(
    patient: Database, watcher: Database, kind: str
) -> None:
    """When its task is cancelled, a statement ends on the server, and so does its transaction."""
    await cancel_in(patient.engine, watcher, _WORK[kind])
    await until(watcher, ends=True)
    async with watcher.unit_of_work(lock_timeout_seconds=60) as session:
        await session.execute(text("UPDATE account SET balance = 1"))


async def test_the_plain_engine_leaves_it_behind(patient: Database, watcher: Database) -> None:
    """Negative control: with SQLAlchemy's own engine, the server goes on with an UPDATE."""
    plain = create_async_engine(patient.engine.url)
    await cancel_in(plain, watcher, _WORK["write"])
    await plain.dispose()
    assert await running(watcher)


async def test_a_strangers_statement_goes_on(patient: Database, watcher: Database) -> None:
    """A connection that has the number, and runs something else, is left alone."""

    async def work() -> None:
        async with patient.engine.connect() as connection:
            await connection.execute(text(_WORK["read"]))

    task = asyncio.create_task(work())
    await until(watcher, ends=False)
    (number,) = await running(watcher)
    async with watcher.engine.connect() as connection:
        raw: Any = await connection.get_raw_connection()
        another = raw.driver_connection.open_another
    assert not await end_statement(another, number, "UPDATE account SET balance = 1")
    assert not await end_statement(another, 2**32 - 1, _WORK["read"])
    assert await running(watcher) == [number]
    assert await end_statement(another, number, _WORK["read"])
    await asyncio.gather(task, return_exceptions=True)
