"""A statement ends when its time is over or its task is cancelled, and frees the connection."""

import asyncio
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import text

from moorage import Database, DatabaseSettings, StatementTimeoutError

# Counts for hours: SQLite does not know how to shorten it.
ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
)


def settings(path: Path, **values: object) -> DatabaseSettings:
    """Return settings for a database in a file."""
    return DatabaseSettings(type="sqlite", name=str(path), _env_file=None, **values)


async def test_statement_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """A statement over its limit ends with our error, and the connection works on."""
    limit = settings(tmp_path / "app.db", statement_timeout_seconds=0.05)
    async with Database(limit) as database, database.session() as session:
        with pytest.raises(StatementTimeoutError, match="DB_STATEMENT_TIMEOUT_SECONDS") as caught:
            await session.execute(ENDLESS)
        assert isinstance(caught.value, sa_exc.OperationalError)
        await session.rollback()
        assert await session.scalar(text("SELECT 1")) == 1


async def test_cancelled_statement_ends(tmp_path: Path) -> None:
    """A cancelled statement ends at once, so that the rollback behind it does not wait."""
    async with Database(settings(tmp_path / "app.db", pool_size=1, max_overflow=0)) as database:
        for _ in range(10):  # early and late: before the statement began, and while it runs
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), database.session() as session:
                    await session.execute(ENDLESS)
        async with asyncio.timeout(10), database.session() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_cancelled_statement_of_the_driver_runs_on(tmp_path: Path) -> None:
    """Without the limit a cancelled statement keeps its connection busy (the negative control)."""
    async with aiosqlite.connect(tmp_path / "plain.db") as connection:
        running = asyncio.create_task(connection.execute(str(ENDLESS)))
        await asyncio.sleep(0)  # the statement is handed to the driver's thread
        running.cancel()
        following = asyncio.create_task(connection.execute("SELECT 1"))
        done, _ = await asyncio.wait({following}, timeout=0.3)
        assert not done
        while not following.done():
            await connection.interrupt()
            await asyncio.wait({following}, timeout=0.05)


async def test_limit_does_not_end_what_follows(tmp_path: Path) -> None:
    """The limit of one statement is gone before the next one begins."""
    limit = settings(tmp_path / "app.db", statement_timeout_seconds=5)
    numbers = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
        " SELECT count(*) FROM n"
    )
    async with Database(limit) as database, database.session() as session:
        for _ in range(3):
            assert await session.scalar(numbers) == 300000
