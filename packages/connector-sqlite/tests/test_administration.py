"""Files of databases that come and go, and the lock of who migrates."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from moorage import Database, DatabaseError, DatabaseSettings
from moorage_sqlite import SQLiteConnector

HOLD = """
import asyncio, sys
from moorage import Database, DatabaseSettings

async def main(path):
    async with Database(DatabaseSettings(type="sqlite", name=path, _env_file=None)) as database:
        async with database.engine.connect() as connection:
            assert await database.connector.try_lock_migrations(connection)
            print("locked", flush=True)
            await asyncio.to_thread(sys.stdin.read)  # until it is killed

asyncio.run(main(sys.argv[1]))
"""


def make(name: str | Path) -> SQLiteConnector:
    """Return a connector for a file or for memory."""
    return SQLiteConnector(DatabaseSettings(type="sqlite", name=str(name), _env_file=None))


async def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """Another process's lock for migrations is respected, and gone when that process is killed."""
    path = tmp_path / "app.db"
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            connector = make(path)
            async with (
                Database(connector=connector) as database,
                database.engine.connect() as connection,
            ):
                assert not await connector.try_lock_migrations(connection)
                other.kill()
                other.wait()
                assert await connector.try_lock_migrations(connection)
        finally:
            other.kill()


async def test_a_database_in_memory_is_locked_too() -> None:
    """In memory the lock for migrations is among the connections of the one `Database`."""
    connector = make(":memory:")
    async with (
        Database(connector=connector) as database,
        database.engine.connect() as first,
        database.engine.connect() as second,
    ):
        assert await connector.try_lock_migrations(first)
        assert not await connector.try_lock_migrations(second)
        await first.invalidate()
        assert await connector.try_lock_migrations(second)


async def test_a_database_in_memory_is_a_copy(tmp_path: Path) -> None:
    """A file, what its write-ahead log holds included, is copied into memory."""
    async with Database(connector=make(tmp_path / "app.db")) as original:
        async with original.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE boats (name TEXT)"))
            await connection.execute(text("INSERT INTO boats VALUES ('Fram')"))
        connector = make(":memory:")
        assert not await connector.database_exists()
        await connector.create_database(template=str(tmp_path / "app.db"))
        assert await connector.database_exists()
        async with Database(connector=connector) as copy, copy.read_session() as session:
            assert await session.scalar(text("SELECT name FROM boats")) == "Fram"
    assert not await connector.database_exists()


async def test_what_cannot_be_created_leaves_nothing(tmp_path: Path) -> None:
    """A template that is absent or no database is an error, and leaves no file behind."""
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at\n" * 90)
    for name in (tmp_path / "new.db", ":memory:"):
        connector = make(name)
        for template in ("absent", "text"):
            with pytest.raises(DatabaseError, match="cannot be created"):
                await connector.create_database(template=str(tmp_path / template))
            assert not await connector.database_exists()
    with pytest.raises(DatabaseError, match="DB_NAME") as caught:
        await make(tmp_path / "nowhere" / "new.db").create_database()
    assert "nowhere" in caught.value.hint


async def test_dropping_removes_all_files(tmp_path: Path) -> None:
    """Nothing is left beside a database that was dropped, whatever SQLite had put there."""
    connector = make(tmp_path / "app.db")
    async with Database(connector=connector) as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE boats (name TEXT)"))
            assert await connector.try_lock_migrations(connection)
        assert len(list(tmp_path.iterdir())) > 1
        await connector.drop_database()
        assert list(tmp_path.iterdir()) == []


def test_the_naive_lock_ends_with_the_transaction(tmp_path: Path) -> None:
    """SQLite's own lock is gone after a COMMIT, so that it cannot guard a migration of several."""
    first = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    second = sqlite3.connect(tmp_path / "app.db", isolation_level=None, timeout=0)
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        second.execute("BEGIN EXCLUSIVE")
    first.execute("COMMIT")
    second.execute("BEGIN EXCLUSIVE")
    first.close()
    second.close()
