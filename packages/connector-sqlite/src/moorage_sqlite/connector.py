"""SQLite for moorage: where its file is, how its connections are set up, what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Column, Connection, Insert, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolResetState

from moorage import (
    AccessMode,
    BulkLoad,
    Capabilities,
    ConnectorOptions,
    DatabaseError,
    DatabaseMissingError,
    DatabaseSettings,
    DBConnector,
    Diagnosis,
    LockTimeoutError,
    OnConflict,
    ReadOnlyError,
    SerializationError,
    ServerFacts,
    SettingsError,
    TransactionLimits,
    blend,
)
from moorage_sqlite import examination
from moorage_sqlite.dialect import DRIVER_NAME, READ_ONLY, READ_STATEMENTS, WRITE_REFUSED
from moorage_sqlite.limits import Limits
from moorage_sqlite.migration_lock import MigrationLock
from moorage_sqlite.options import SQLiteOptions
from moorage_sqlite.result_codes import ERRORS, diagnose
from moorage_sqlite.statements import first_word
from moorage_sqlite.storage import MIGRATION_LOCK_SUFFIX, copy_database, create_file, remove_files
from moorage_sqlite.transactions import READ_WRITE, TAKE_READ_LOCK, manage_transactions
from moorage_sqlite.write_queue import WriteQueue

__all__ = ["SQLiteConnector"]

_MEMORY = ":memory:"
# The in-memory file system whose databases several connections of a process can share.
_MEMDB_SINCE = (3, 36, 0)
_NO_LIMIT_SECONDS = 86400.0
# Key in `Connection.info`.
_BUSY_TIMEOUT_CHANGED = "moorage_sqlite_busy_timeout_changed"


def _busy_timeout(lock_seconds: float) -> str:
    return f"PRAGMA busy_timeout={round((lock_seconds or _NO_LIMIT_SECONDS) * 1000)}"


class SQLiteConnector(DBConnector):
    """
    SQLite in a file or in memory.

    ``DB_NAME`` is the path of the file (``app.db`` if unset) or ``:memory:``. A database in
    memory belongs to one ``Database``, is shared by all of its connections, and is gone when it
    is disposed.
    """

    name = "sqlite"
    contract = 1
    options_model: ClassVar[type[ConnectorOptions]] = SQLiteOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        networked=False,
        isolation_levels=frozenset({"SERIALIZABLE"}),
        read_only_transactions=True,
        read_only_connections=True,
        transactional_ddl=True,
        single_writer=True,
        transaction_limits=True,
        template_databases=True,
        errors=ERRORS,
    )
    options: SQLiteOptions

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(settings)
        self._write_queue = WriteQueue()
        self._limits = Limits(
            self.settings.statement_timeout_seconds, self.settings.lock_timeout_seconds
        )
        self._memory_name = f"moorage-{uuid.uuid4().hex}"
        self._keeper: sqlite3.Connection | None = None
        self._refuse_unusable_name()
        self._migration_lock = MigrationLock(
            None if self.in_memory else Path(f"{self.path}{MIGRATION_LOCK_SUFFIX}")
        )

    @property
    def path(self) -> str:
        """Return the path of the file as the settings give it, or ``:memory:``."""
        if "name" in self.settings.model_fields_set:
            return self.settings.name
        return _MEMORY if self.settings.url_scheme else "app.db"

    @property
    def in_memory(self) -> bool:
        """Whether the database lives in memory only."""
        return self.path == _MEMORY

    @property
    def lock_wait_seconds(self) -> float:
        """Return how long SQLite itself waits for a lock."""
        if self.in_memory:
            return 0.0  # only this process competes, so that nothing need wait inside SQLite
        return self.settings.lock_timeout_seconds or _NO_LIMIT_SECONDS

    def get_url(self) -> URL:
        """Return the URL of the file, or of this connector's own database in memory."""
        if self.in_memory:
            return self.build_url(
                DRIVER_NAME,
                database=f"file:/{self._memory_name}",
                query={"vfs": "memdb", "uri": "true"},
            )
        return self.build_url(DRIVER_NAME, database=self.path)

    def get_engine_args(self) -> dict[str, Any]:
        """Return the pool of the base, and who waits for locks where and how long."""
        arguments = super().get_engine_args()
        arguments["limits"] = self._limits
        arguments["write_queue"] = self._write_queue
        arguments["connect_args"] = {
            "timeout": self.lock_wait_seconds,
            "isolation_level": None,
        }
        if self.in_memory:
            arguments["execution_options"] = {TAKE_READ_LOCK: True}
        return arguments

    def create_engine(self) -> AsyncEngine:
        """Create the engine and take over the beginning of its transactions."""
        engine = super().create_engine()
        manage_transactions(engine.sync_engine)
        self._migration_lock.attach(engine.sync_engine)
        event.listen(engine.sync_engine, "reset", self._restore_limits)
        if self.in_memory:
            # A listener of this kind is paid for by every session, which a file need not do.
            event.listen(engine.sync_engine, "engine_disposed", self._let_memory_go)
        return engine

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """Return what makes units take the write lock at once and read sessions only read."""
        match access:
            case "read write":
                return {READ_WRITE: True}
            case "read statements":
                return {READ_ONLY: True, READ_STATEMENTS: True}
        return {READ_ONLY: True}

    async def make_read_only(self, driver_connection: Any) -> None:
        """Let SQLite itself refuse whatever writes."""
        await driver_connection.execute("PRAGMA query_only=ON")

    async def can_load(self, connection: AsyncConnection, load: BulkLoad) -> bool:
        """Take rows for any columns."""
        return True

    async def load_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Hand the rows to the driver as they are, in one hop."""
        statement = load.as_insert(connection.dialect, "?")
        await connection.exec_driver_sql(statement, list(map(tuple, rows)))

    def insert_on_conflict(
        self, load: BulkLoad, key: Sequence[Column[Any]], on_conflict: OnConflict
    ) -> Insert | None:
        """Return INSERT … ON CONFLICT, by the key alone: other errors stay errors."""
        statement = sqlite.insert(load.table)
        changed = {
            column.name: statement.excluded[column.name]
            for column in load.columns
            if column not in key
        }
        if on_conflict == "skip" or not changed:
            return statement.on_conflict_do_nothing(index_elements=key)
        return statement.on_conflict_do_update(index_elements=key, set_=changed)

    def limit_transaction(self, connection: Connection, limits: TransactionLimits) -> None:
        """Give the connection other limits until it is back in the pool."""
        driver_connection = connection.connection.driver_connection
        lock = limits.lock_timeout_seconds
        self._limits.change(driver_connection, limits.statement_timeout_seconds, lock)
        if lock is not None and not self.in_memory:
            connection.info[_BUSY_TIMEOUT_CHANGED] = True
            connection.exec_driver_sql(_busy_timeout(lock))

    def _restore_limits(self, connection: Any, record: Any, state: PoolResetState) -> None:
        if state.terminate_only:
            return
        self._limits.restore(record.driver_connection)
        if record.info.pop(_BUSY_TIMEOUT_CHANGED, False):
            cursor = connection.cursor()
            try:
                cursor.execute(_busy_timeout(self.settings.lock_timeout_seconds))
            finally:
                cursor.close()

    async def prepare_connection(self, driver_connection: Any) -> None:
        """Switch foreign keys on, limit statements, and set the journal to the chosen mode."""
        await self._limits.watch(driver_connection)
        if self.in_memory:
            self._keep_memory()
            # Writing a full cache out early would need all readers gone in mid-transaction. Other
            # settings read the schema, which needs a lock that somebody may hold.
            await driver_connection.executescript("PRAGMA foreign_keys=ON; PRAGMA cache_spill=OFF")
            return
        await self._set_journal_mode(driver_connection)
        await driver_connection.executescript(
            f"PRAGMA foreign_keys=ON; PRAGMA synchronous={self.options.synchronous.upper()}"
        )

    async def database_exists(self) -> bool:
        """Return whether the file is there, or whether anybody has opened the one in memory."""
        return self._keeper is not None if self.in_memory else Path(self.path).exists()

    async def create_database(self, *, template: str | None = None) -> None:
        """Create the file, or the database in memory, as a copy of the file ``template``."""
        source = None if template is None else Path(template)
        try:
            if not self.in_memory:
                await asyncio.to_thread(create_file, Path(self.path), source)
            elif self._keeper is not None:
                raise FileExistsError(f"the database {_MEMORY} is there already")
            else:
                await self._create_memory(source)
        except (OSError, sqlite3.Error) as error:
            raise self._storage_error("created", error) from error

    async def drop_database(self) -> None:
        """Remove the file; whoever has it open goes on with what nobody else can find."""
        if self.in_memory:
            self._let_memory_go()
            return
        try:
            await asyncio.to_thread(remove_files, Path(self.path))
        except OSError as error:
            raise self._storage_error("removed", error) from error

    async def examine_server(self, engine: AsyncEngine) -> ServerFacts:
        """Look at a connection, and where the file is."""
        return await examination.examine_server(self, engine)

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        """Lock a file beside the database's, or, in memory, among this process alone."""
        holder = (await connection.get_raw_connection()).driver_connection
        try:
            return self._migration_lock.try_acquire(holder)
        except OSError as error:
            raise self._storage_error("locked", error) from error

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        """Let the lock go."""
        self._migration_lock.release((await connection.get_raw_connection()).driver_connection)

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """Return what SQLite says, which knows of every way to open or end one."""
        try:
            return bool(driver_connection.in_transaction)
        except ValueError:
            return None  # somebody closed the connection

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether the driver's connection was closed."""
        return driver_connection._connection is None

    def abandon(self, driver_connection: Any) -> None:
        """
        Let the driver's thread close the file, where there is one.

        A forked child has no such thread and must not close the file: SQLite would release the
        parent's locks.
        """
        if driver_connection._thread.is_alive():
            # The driver answers to the event loop that runs where it is told to stop, and that
            # one may be gone when the answer comes. In a thread of its own there is none.
            stopping = threading.Thread(target=driver_connection.stop)
            stopping.start()
            stopping.join()

    async def suspend_foreign_keys(self, connection: AsyncConnection) -> None:
        """Let tables be made anew: dropping the old one would delete what refers to it."""
        await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        await connection.rollback()

    async def restore_foreign_keys(self, connection: AsyncConnection) -> None:
        """Enforce foreign keys again."""
        await connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        await connection.rollback()

    def find_orphans(self, connection: Connection) -> Sequence[str]:
        """Ask SQLite which rows refer to nothing."""
        found = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [f"row {row} of {table} refers to {parent}" for table, row, parent, _ in found]

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means by SQLite's extended result code."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return diagnose(self, error)
        name = str(getattr(error, "sqlite_errorname", code))
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._diagnose_lock(name, statement)
            case sqlite3.SQLITE_READONLY if name == WRITE_REFUSED:
                return Diagnosis(
                    ReadOnlyError,
                    "a write reached a session that only reads",
                    "use database.session() or a unit of work for writing",
                    name,
                )
            case sqlite3.SQLITE_READONLY:
                return Diagnosis(
                    ReadOnlyError,
                    f"the SQLite file {self.path} ({self.settings.origin('name')}) cannot be"
                    " written",
                    "make the file and its folder writable for the user of this process",
                    name,
                )
            case sqlite3.SQLITE_CANTOPEN:
                return self._diagnose_path(name)
            case sqlite3.SQLITE_NOTADB:
                return Diagnosis(
                    DatabaseMissingError,
                    f"{self.path} ({self.settings.origin('name')}) is not a SQLite database",
                    f"name the right file in {self.settings.variable('name')}",
                    name,
                )
        return diagnose(self, error)

    def _diagnose_lock(self, code: str, statement: str | None) -> Diagnosis:
        if statement and first_word(statement) not in {"begin", "commit"}:
            return Diagnosis(
                SerializationError,
                "another transaction wrote after this one had read, so that this one cannot"
                " write any more",
                "do reading and writing in a unit of work: it takes the write lock at the"
                " beginning; then run the whole unit again",
                code,
            )
        return Diagnosis(
            LockTimeoutError,
            "the write lock of the SQLite database was not free within"
            f" {self.settings.lock_timeout_seconds:g} s"
            f" ({self.settings.variable('lock_timeout_seconds')})",
            "keep units of work short, and do nothing slow inside them",
            code,
        )

    def _diagnose_path(self, code: str) -> Diagnosis:
        origin = self.settings.origin("name")
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            sentence = f"the folder {folder} of the SQLite file ({origin}) does not exist"
            hint = f"create it: mkdir -p {folder}"
        else:
            sentence = f"the SQLite file {self.path} ({origin}) cannot be opened"
            hint = f"check that it is a file, and that this user may write in {folder}"
        return Diagnosis(DatabaseMissingError, sentence, hint, code)

    def _storage_error(self, what: str, error: Exception) -> DatabaseError:
        folder = Path(self.path).absolute().parent
        ours = DatabaseError(
            f"the SQLite database {self.path} ({self.settings.origin('name')}) cannot be {what}:"
            f" {getattr(error, 'strerror', None) or error}",
            hint=f"choose another {self.settings.variable('name')}, or see to it that this user may"
            f" write in {folder}",
            orig=error,
        )
        return blend(ours, sa_exc.OperationalError(None, None, error))

    def _refuse_unusable_name(self) -> None:
        origin = self.settings.origin("name")
        if self.path.startswith("file:"):
            raise SettingsError(
                f"{origin} is a SQLite URI; write the plain path of the file, or {_MEMORY}"
            )
        if self.settings.url_scheme and "host" in self.settings.model_fields_set:
            raise SettingsError(
                f"{self.settings.origin('url')} names a host, which SQLite does not have; write"
                " three slashes before a relative path, four before an absolute one"
            )
        if self.in_memory and sqlite3.sqlite_version_info < _MEMDB_SINCE:
            raise SettingsError(
                f"{origin} is {_MEMORY}, which needs SQLite 3.36 or later; this Python has"
                f" {sqlite3.sqlite_version}",
                hint="name a file instead, or use a Python with a newer SQLite",
            )

    async def _set_journal_mode(self, driver_connection: Any) -> None:
        # SQLITE_BUSY is possible in spite of the busy timeout while another process switches the
        # mode of a new file; the deadline of connecting bounds the loop.
        while True:
            try:
                await driver_connection.execute(f"PRAGMA journal_mode={self.options.journal_mode}")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise

    @property
    def _memory_uri(self) -> str:
        return f"file:/{self._memory_name}?vfs=memdb"

    async def _create_memory(self, template: Path | None) -> None:
        self._keep_memory()
        if template is not None:
            try:
                await asyncio.to_thread(copy_database, template, self._memory_uri)
            except BaseException:
                self._let_memory_go()
                raise

    def _keep_memory(self) -> None:
        # A database in memory vanishes with its last connection, which the pool may close.
        if self._keeper is None:
            self._keeper = sqlite3.connect(self._memory_uri, uri=True, check_same_thread=False)

    def _let_memory_go(self, engine: object = None) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            with contextlib.suppress(sqlite3.Error):
                keeper.close()
