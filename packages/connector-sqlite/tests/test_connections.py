"""Connections to SQLite are set up safely, and say clearly why they cannot be had."""

import asyncio
import inspect
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from moorage import (
    Database,
    DatabaseError,
    DatabaseMissingError,
    DatabaseSettings,
    ReadOnlyError,
    SettingsError,
)
from moorage.pool import LoopPool
from moorage_sqlite import SQLiteConnector

TABLES = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (parent_id INTEGER REFERENCES parent (id))",
)
ORPHAN = text("INSERT INTO child VALUES (1)")


def settings(name: object, **values: object) -> DatabaseSettings:
    """Return settings for a database by name."""
    return DatabaseSettings(type="sqlite", name=str(name), _env_file=None, **values)


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Return an empty database in a file and one in memory."""
    name = ":memory:" if request.param == "memory" else tmp_path / "app.db"
    async with Database(settings(name)) as database:
        yield database


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Return SQLAlchemy's own engine on a file."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/plain.db")
    yield engine
    await engine.dispose()


async def pragma(engine: AsyncEngine, name: str) -> object:
    """Return the value of a pragma on some connection."""
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()


async def insert_orphan(engine: AsyncEngine) -> None:
    """Insert a row whose parent does not exist."""
    async with engine.begin() as connection:
        for table in TABLES:
            await connection.execute(text(table))
        await connection.execute(ORPHAN)


async def test_foreign_keys_are_enforced(database: Database) -> None:
    """A row that refers to nothing is refused."""
    with pytest.raises(sa_exc.IntegrityError):
        await insert_orphan(database.engine)


async def test_foreign_keys_are_not_enforced_by_the_plain_engine(plain: AsyncEngine) -> None:
    """Negative control: SQLite's own default accepts a row that refers to nothing."""
    await insert_orphan(plain)


async def test_files_use_a_write_ahead_log(tmp_path: Path, plain: AsyncEngine) -> None:
    """Readers and a writer work at once on a file; with the plain engine they do not."""
    async with Database(settings(tmp_path / "app.db")) as database:
        assert await pragma(database.engine, "journal_mode") == "wal"
        assert await pragma(database.engine, "synchronous") == 2
    assert await pragma(plain, "journal_mode") == "delete"


async def test_options_choose_journal_and_durability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journal mode and durability are options of the connector, read from the environment."""
    monkeypatch.setenv("DB_SQLITE_JOURNAL_MODE", "truncate")
    monkeypatch.setenv("DB_SQLITE_SYNCHRONOUS", "normal")
    async with Database(settings(tmp_path / "app.db")) as database:
        assert await pragma(database.engine, "journal_mode") == "truncate"
        assert await pragma(database.engine, "synchronous") == 1


class Refused:
    """A driver's connection to a file that somebody writes to, until it was refused once."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.connection = sqlite3.connect(path, timeout=60)
        self._writer = writer
        self.refusals = 0

    async def execute(self, statement: str) -> None:
        """Execute a statement as the driver does."""
        try:
            self.connection.execute(statement)
        except sqlite3.OperationalError:
            self.refusals += 1
            self._writer.commit()
            raise


async def test_a_file_that_is_new_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to switch the journal of a file that is just written; we wait."""
    path = tmp_path / "new.db"
    writer = sqlite3.connect(path)
    writer.execute("CREATE TABLE t (id INTEGER)")
    writer.commit()
    writer.execute("INSERT INTO t VALUES (1)")
    plain = sqlite3.connect(path, timeout=60)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        plain.execute("PRAGMA journal_mode=WAL")
    plain.close()
    refused = Refused(path, writer)
    await SQLiteConnector(settings(path))._set_journal_mode(refused)
    assert refused.refusals == 1
    assert refused.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    refused.connection.close()
    writer.close()


async def test_memory_is_shared_by_all_connections() -> None:
    """What one session commits in memory, another one on another connection reads."""
    async with Database(settings(":memory:")) as database:
        async with database.engine.begin() as connection:
            await connection.execute(text(TABLES[0]))
        async with database.read_session() as one, database.read_session() as two:
            for session in (one, two):
                assert (await session.execute(text("SELECT count(*) FROM parent"))).scalar() == 0
            assert database.pool_statistics().in_use == 2


async def test_memory_outlives_its_connections_and_ends_with_its_database() -> None:
    """Memory keeps its rows while no connection is open, and each database has its own."""
    database = Database(settings(":memory:"))
    other = Database(settings(":memory:"))
    async with database, other:
        async with database.engine.begin() as connection:
            await connection.execute(text(TABLES[0]))
            await connection.commit()
            await connection.invalidate()
        async with database.session() as session:
            await session.execute(text("SELECT * FROM parent"))
        with pytest.raises(sa_exc.OperationalError, match="no such table"):
            async with other.session() as session:
                await session.execute(text("SELECT * FROM parent"))


async def test_memory_of_the_plain_engine_loses_committed_rows() -> None:
    """Negative control: the plain engine's one connection undoes what another task committed."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.execute(text(TABLES[0]))
    written, rolled_back = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO parent VALUES (1)"))
            written.set()
            await rolled_back.wait()
            await connection.commit()

    async def second() -> None:
        await written.wait()
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.rollback()
        rolled_back.set()

    await asyncio.gather(first(), second())
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM parent"))).scalar() == 0
    await engine.dispose()


async def test_missing_folder(tmp_path: Path) -> None:
    """A file in a folder that does not exist is an error with the command that makes the folder."""
    async with Database(settings(tmp_path / "no" / "app.db")) as database:
        with pytest.raises(DatabaseMissingError, match="does not exist") as caught:
            await database.ping()
    assert caught.value.hint == f"create it: mkdir -p {tmp_path / 'no'}"
    assert isinstance(caught.value, sa_exc.OperationalError)


async def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """A folder in the place of the file is an error that says to look there."""
    async with Database(settings(tmp_path)) as database:
        with pytest.raises(DatabaseMissingError, match="cannot be opened"):
            await database.ping()


async def test_file_that_is_no_database(tmp_path: Path) -> None:
    """A file that is something else is left as it is, and the error says so."""
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one" * 50)
    async with Database(settings(tmp_path / "notes.txt")) as database:
        with pytest.raises(DatabaseMissingError, match="is not a SQLite database"):
            await database.ping()


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Run a block without the rights of root, which may write read-only files."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_read_only_file() -> None:
    """A file that may not be written is refused at the first connection, not at the first write."""
    # Not tmp_path: pytest's folders are closed to the user that this test becomes.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "app.db")
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE t (id INTEGER)")
        connection.close()
        file.chmod(0o444)
        Path(folder).chmod(0o755)
        with as_ordinary_user():
            async with Database(settings(file)) as database:
                with pytest.raises(ReadOnlyError, match="cannot be written") as caught:
                    await database.ping()
    assert "writable" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "file:app.db?mode=ro"}, "is a SQLite URI"),
        ({"url": "sqlite:///app.db?mode=ro"}, "parameter 'mode', which connector 'sqlite' does"),
        ({"url": "sqlite://app.db"}, "names a host, which SQLite does not have"),
        ({"name": "a.db", "host": "a,b", "read_host": "c"}, "does not use read hosts"),
    ],
)
def test_unusable_settings(values: dict[str, str], message: str) -> None:
    """What SQLite has no meaning for is refused before any connection."""
    with pytest.raises(SettingsError, match=message):
        SQLiteConnector(DatabaseSettings(**values, _env_file=None))


def test_old_sqlite_has_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, a SQLite before 3.36 is refused with the way out."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 35, 5))
    with pytest.raises(SettingsError, match=r"needs SQLite 3\.36") as caught:
        SQLiteConnector(settings(":memory:"))
    assert "name a file" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({}, "app.db"),
        ({"name": "x.db"}, "x.db"),
        ({"url": "sqlite://"}, ":memory:"),
        ({"url": "sqlite:///x/y.db"}, "x/y.db"),
        ({"url": "sqlite:////var/x.db"}, "/var/x.db"),
        ({"url": "sqlite+aiosqlite:///:memory:"}, ":memory:"),
    ],
)
def test_where_the_file_is(values: dict[str, str], path: str) -> None:
    """Name and URL lead to the same file as elsewhere in the world of SQLAlchemy."""
    connector = SQLiteConnector(DatabaseSettings(**values, _env_file=None))
    assert connector.path == path
    assert connector.get_url().get_dialect().name == "sqlite"


class WithAnotherPool(SQLiteConnector):
    """The connector with SQLAlchemy's own pool."""

    def get_engine_args(self) -> dict[str, Any]:
        """Return the arguments without those of our pool."""
        ours = {*inspect.signature(LoopPool).parameters, "pool_timeout"}
        arguments = {k: v for k, v in super().get_engine_args().items() if k not in ours}
        return {**arguments, "poolclass": AsyncAdaptedQueuePool}


@pytest.mark.parametrize(("pre_ping", "survives"), [("idle", True), ("never", False)])
async def test_connections_of_another_pool_are_checked(
    tmp_path: Path, pre_ping: str, survives: bool
) -> None:
    """In a pool that is not ours, too, a connection that the driver has closed is replaced."""
    connector = WithAnotherPool(settings(tmp_path / "app.db", pool_pre_ping=pre_ping))
    async with Database(connector=connector) as database:
        async with database.engine.connect() as connection:
            raw: Any = await connection.get_raw_connection()
            driver_connection = raw.driver_connection
        await driver_connection.close()
        if survives:
            await database.ping()
        else:
            with pytest.raises(DatabaseError):
                await database.ping()
