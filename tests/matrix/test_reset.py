"""A transaction that somebody left open never reaches the next user of its connection."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import select, text, util
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from moorage import Database
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables

INSERT = "INSERT INTO account (owner, balance) VALUES ('mallory', 0)"


async def run_raw(engine: AsyncEngine, *statements: str) -> None:
    """Run statements on a raw connection of the pool, and give it back without an end."""
    raw = await engine.raw_connection()

    def run() -> None:
        for statement in statements:
            cursor = raw.cursor()
            cursor.execute(statement)
            cursor.close()
        raw.close()

    await util.greenlet_spawn(run)


async def commit_something_else(engine: AsyncEngine) -> None:
    """Let the next user of the pool's only connection commit a transaction of its own."""
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE account SET balance = 1 WHERE owner = 'nobody'"))


async def test_an_open_write_is_rolled_back_on_return(make_database: DatabaseFactory) -> None:
    """What a raw connection has written and not committed is gone when it is given back."""
    database = make_database(pool_size=1, max_overflow=0)
    await create_tables(database)
    # With us the driver of an embedded database opens no transaction by itself.
    begin = () if networked(database) else ("BEGIN",)
    await run_raw(database.engine, *begin, INSERT)
    await commit_something_else(database.engine)
    assert await count_accounts(database) == 0


async def test_without_the_reset_a_stranger_commits_it(database: Database) -> None:
    """Negative control: a pool whose reset is off lets the next user commit a stranger's row."""
    await create_tables(database)
    url = database.engine.url
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_reset_on_return=None)
    await run_raw(engine, INSERT)
    await commit_something_else(engine)
    await engine.dispose()
    assert await count_accounts(database) == 1


async def test_a_transaction_of_the_driver_alone_is_ended(
    make_database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction that SQLAlchemy knows nothing of does not outlive the return either."""
    database = make_database(pool_size=1, max_overflow=0)
    await create_tables(database)
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for statement in ("BEGIN", INSERT):
            if hasattr(driver, "execute"):
                await driver.execute(statement)
            else:
                async with driver.cursor() as cursor:
                    await cursor.execute(statement)
    await commit_something_else(database.engine)
    assert await count_accounts(database) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "moorage.pool"]
    assert all("behind SQLAlchemy's back" in message for message in said)


async def test_a_locking_read_is_ended_on_return(make_database: DatabaseFactory) -> None:
    """A transaction that has only read, and holds locks, is ended as well."""
    database = make_database(pool_size=1, max_overflow=0)
    watcher = make_database(pool_size=1, max_overflow=0, lock_timeout_seconds=5)
    await create_tables(database, "ada")
    async with database.unit_of_work() as session:  # the last answer without rows is a COMMIT's
        await session.scalars(select(Account))
    locking = "" if watcher.connector.capabilities.single_writer else " FOR UPDATE"
    await run_raw(database.engine, f"SELECT id FROM account{locking}")
    async with watcher.unit_of_work() as session:
        await session.execute(text("UPDATE account SET balance = 2"))


async def test_a_unit_after_a_unit_sends_no_needless_rollback(
    make_database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Ends of transactions go to the server once, and a pool that is used says nothing."""
    database = make_database(pool_size=1, max_overflow=0)
    await create_tables(database, "ada")
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        async with database.unit_of_work() as session:
            await session.execute(select(Account))
            await session.execute(text("UPDATE account SET balance = balance + 1"))
        await asyncio.gather(*(database.ping() for _ in range(3)))
    assert caplog.records == []


async def test_a_commit_by_sql_leaves_nothing_behind(make_database: DatabaseFactory) -> None:
    """After a raw connection has ended its transaction by SQL, the next session has one again."""
    database = make_database(pool_size=1, max_overflow=0)
    await create_tables(database)
    await run_raw(database.engine, "SELECT 1", "COMMIT" if networked(database) else "SELECT 2")
    async with database.session() as session:
        session.add(Account(owner="ada"))
        await session.flush()
        await session.rollback()
    assert await count_accounts(database) == 0


def networked(database: Database) -> bool:
    """Return whether the driver opens transactions by itself, as that of a server does."""
    return database.connector.capabilities.networked
