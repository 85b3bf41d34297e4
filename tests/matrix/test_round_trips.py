"""
How often a session waits for the server, exactly.

A proxy counts; what is counted does not depend on the speed of anything. Statements are prepared
and the connection is open before counting begins.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from moorage import Database
from tests.counting_proxy import CountingProxy
from tests.fix_backend import DRIVER_SETTING
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, create_tables

Work = Callable[[AsyncSession], Awaitable[object]]

# A real transaction each. PostgreSQL has to be told BEGIN; MariaDB begins with the first statement.
UNITS = {
    "postgres": {"read": 3, "write": 3, "change": 4},
    "mysql": {"read": 2, "write": 2, "change": 3},
}
# What everybody writes: a session of a plain engine, whose pool pings before each use.
EVERYBODYS = {
    "postgres": {"read": 6, "write": 6, "change": 7},
    "psycopg": {"read": 4, "write": 4, "change": 5},  # a ping is one, and statements are prepared
    "mysql": {"read": 4, "write": 4, "change": 5},
}
# So often psycopg runs a statement before it is prepared, which is a round trip, once.
UNPREPARED = 5


_numbers = itertools.count()


async def read(session: AsyncSession) -> None:
    """Read one row by its key."""
    assert await session.scalar(select(Account.owner).where(Account.id == 1)) == "ada"


async def write(session: AsyncSession) -> None:
    """Add one row."""
    session.add(Account(owner=f"owner {next(_numbers)}", balance=0))
    await session.flush()


async def change(session: AsyncSession) -> None:
    """Read one row, and write what was read plus one."""
    account = await session.get_one(Account, 1)
    account.balance += 1
    await session.flush()


WORK: dict[str, Work] = {"read": read, "write": write, "change": change}


@pytest.fixture
async def proxy(backend: str, fresh_database: dict[str, Any]) -> AsyncIterator[CountingProxy]:
    """Return a proxy in front of the server; a file has none to count at."""
    if backend == "sqlite":
        pytest.skip("there is no server")
    async with CountingProxy(str(fresh_database["host"]), int(fresh_database["port"])) as proxy:
        yield proxy


@pytest.fixture
async def counted(proxy: CountingProxy, make_database: DatabaseFactory) -> Database:
    """Return a database behind the proxy, with one connection and the tables."""
    database = make_database(
        host="127.0.0.1", port=proxy.port, ssl_mode="disable", pool_size=1, max_overflow=0
    )
    await create_tables(database, "ada")
    return database


async def trips(proxy: CountingProxy, unit: Callable[[], Awaitable[None]]) -> int:
    """Return the round trips of a unit whose statements the connection knows."""
    for _ in range(UNPREPARED + 1 if DRIVER_SETTING in os.environ else 2):
        await unit()
    proxy.reset()
    await unit()
    return proxy.round_trips


@pytest.mark.parametrize("kind", WORK)
async def test_a_unit_of_work(
    backend: str, counted: Database, proxy: CountingProxy, kind: str
) -> None:
    """A unit costs its statements, the beginning and the end of its transaction, nothing else."""

    async def unit() -> None:
        async with counted.unit_of_work() as session:
            await WORK[kind](session)

    assert await trips(proxy, unit) == UNITS[backend][kind], proxy.sent


@pytest.mark.parametrize("kind", WORK)
async def test_everybodys_session(
    backend: str, counted: Database, proxy: CountingProxy, kind: str
) -> None:
    """The session that everybody writes waits about twice as often for the same work."""
    engine = create_async_engine(counted.engine.url, pool_pre_ping=True, pool_recycle=1800)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def unit() -> None:
        async with sessions() as session:
            await WORK[kind](session)
            if kind != "read":
                await session.commit()

    try:
        expected = EVERYBODYS.get(engine.dialect.driver, EVERYBODYS[backend])
        assert await trips(proxy, unit) == expected[kind], proxy.sent
    finally:
        await engine.dispose()


async def test_a_read_session(counted: Database, proxy: CountingProxy) -> None:
    """A read session costs its statement, whether it is closed, rolled back or fails."""

    async def session() -> None:
        async with counted.read_session() as session:
            await read(session)

    async def rolled_back() -> None:
        async with counted.read_session() as session:
            await read(session)
            await session.rollback()

    async def failed() -> None:
        with pytest.raises(LookupError):
            async with counted.read_session() as session:
                await read(session)
                raise LookupError

    for way in (session, rolled_back, failed):
        assert await trips(proxy, way) == 1, proxy.sent


async def test_a_failed_unit(backend: str, counted: Database, proxy: CountingProxy) -> None:
    """A unit that raises is rolled back in one round trip."""

    async def unit() -> None:
        with pytest.raises(LookupError):
            async with counted.unit_of_work() as session:
                await read(session)
                raise LookupError

    assert await trips(proxy, unit) == UNITS[backend]["read"], proxy.sent


async def test_nothing_said_nothing_sent(counted: Database, proxy: CountingProxy) -> None:
    """A unit without a statement does not speak to the server."""

    async def unit() -> None:
        async with counted.unit_of_work():
            await asyncio.sleep(0)

    assert await trips(proxy, unit) == 0, proxy.sent


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"])
async def test_a_transaction_that_sql_began_is_rolled_back(
    counted: Database, level: str | None
) -> None:
    """Nobody gets a connection with the transaction that somebody else began by SQL."""
    options: dict[str, Any] = {} if level is None else {"isolation_level": level}
    async with counted.engine.connect() as connection:
        await connection.execution_options(**options)
        await connection.execute(text("BEGIN"))
        await connection.execute(text("UPDATE account SET balance = 7"))
    async with counted.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert not counted.connector.in_transaction(driver)
        assert (await connection.execute(select(Account.balance))).scalar_one() == 0
