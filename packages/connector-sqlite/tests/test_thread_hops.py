"""How often a session waits for the driver's thread, exactly."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from moorage import ConnectionLostError, Database, DatabaseSettings

READ = text("SELECT 1")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Return a database whose one connection is open."""
    name = str(tmp_path / "app.db")
    settings = DatabaseSettings(type="sqlite", name=name, pool_size=1, _env_file=None)
    async with Database(settings) as database:
        await database.ping()
        yield database


@pytest.fixture
def hops(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each hop adds what is done in the thread."""
    seen: list[str] = []
    execute = aiosqlite.Connection._execute

    async def counted(self: aiosqlite.Connection, function: Any, *args: Any, **kw: Any) -> Any:
        seen.append(getattr(function, "__name__", repr(function)))
        return await execute(self, function, *args, **kw)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    return seen


async def test_ending_nothing_costs_nothing(database: Database, hops: list[str]) -> None:
    """Where no transaction is open, neither commit nor rollback nor the pool's reset hops."""
    for ending in ("commit", "rollback", "close"):
        async with database.engine.connect() as connection:
            await connection.begin()
            await getattr(connection, ending)()
        async with database.session() as session:
            await session.connection()
            await getattr(session, ending)()
    assert hops == []


async def test_a_plain_connection_hops(database: Database, hops: list[str]) -> None:
    """The driver's own commit hops into its thread, whether or not anything is open."""
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.commit()
    assert hops == ["commit"]


async def test_a_statement_is_one_hop(database: Database, hops: list[str]) -> None:
    """A read session costs a hop per statement, a unit of work BEGIN and COMMIT besides."""
    async with database.read_session() as session:
        assert await session.scalar(READ) == 1
    hops.clear()
    async with database.read_session() as session:
        assert await session.scalar(READ) == 1
    assert len(hops) == 1
    hops.clear()
    async with database.unit_of_work() as session:
        assert await session.scalar(READ) == 1
        await session.execute(text("CREATE TABLE t (id INTEGER)"))
    assert len(hops) == 4


async def test_a_closed_connection_is_one_that_was_lost(database: Database) -> None:
    """A connection that was closed under a session is lost, and the next one gets another."""
    with pytest.raises(ConnectionLostError):
        async with database.read_session() as session:
            connection = await (await session.connection()).get_raw_connection()
            driver: Any = connection.driver_connection
            await driver.close()
            await session.scalar(READ)
    async with database.read_session() as session:
        assert await session.scalar(READ) == 1


async def test_everybodys_session_hops(database: Database, hops: list[str]) -> None:
    """The plain dialect hops several times for one statement, and for a rollback of nothing."""
    url = database.engine.url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(url)
    for _ in range(2):
        hops.clear()
        async with AsyncSession(engine) as session:
            assert await session.scalar(READ) == 1
    assert len(hops) > 3
    await engine.dispose()
