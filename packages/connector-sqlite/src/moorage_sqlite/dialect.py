# mypy: allow-untyped-calls
"""
SQLAlchemy's aiosqlite dialect with transactions that are ours, from the first word to the last.

The driver runs in autocommit and opens nothing by itself; `transactions.py` sends BEGIN. COMMIT
and ROLLBACK cost no thread hop where nothing is open, and give the place in the write queue back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import util
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import (
    SQLiteDialect_aiosqlite,
    SQLiteExecutionContext_aiosqlite,
)
from sqlalchemy.dialects.sqlite.base import SQLiteDialect, SQLiteTypeCompiler
from sqlalchemy.util.concurrency import in_greenlet

from moorage import wait_shielded
from moorage_sqlite.limits import Limits
from moorage_sqlite.one_hop import OneHopConnection, OneHopCursor
from moorage_sqlite.statements import first_word, writes
from moorage_sqlite.write_queue import WriteQueue

__all__ = [
    "BEGIN_IMMEDIATE",
    "DRIVER_NAME",
    "READ_LOCK",
    "READ_ONLY",
    "READ_STATEMENTS",
    "STATEMENT_TIMEOUT",
    "WRITE_REFUSED",
    "MoorageSQLiteDialect",
]

DRIVER_NAME = "sqlite+moorage"

BEGIN_IMMEDIATE = "BEGIN IMMEDIATE"
"""Opens a transaction and takes the write lock; waits in the queue, then for other processes."""

READ_ONLY = "moorage_sqlite_read_only"
"""Execution option of read sessions: begin deferred and refuse statements that write."""

READ_STATEMENTS = "moorage_sqlite_read_statements"
"""Execution option of read sessions whose statements run each for itself, in no transaction."""

WRITE_REFUSED = "MOORAGE_READ_ONLY_SESSION"
"""Name of the error that a write in such a session ends with, beside SQLite's own names."""

STATEMENT_TIMEOUT = "MOORAGE_STATEMENT_TIMEOUT"
"""Name of the error that a statement ends with whose time is over, likewise."""

READ_LOCK = "SELECT 1 FROM sqlite_master LIMIT 1"
"""Takes the read lock of a transaction that was opened deferred."""

_LOCKING = frozenset({BEGIN_IMMEDIATE, READ_LOCK})
_LONGEST_PAUSE_SECONDS = 0.02
# A statement that is told to end does so within milliseconds; a file system may take longer.
_END_SECONDS = 5.0
_TRANSACTION_WORDS = frozenset({"begin", "commit", "rollback", "savepoint", "release", "pragma"})


class MoorageSQLiteTypeCompiler(SQLiteTypeCompiler):
    """
    SQLite's types, of which INTEGER is the only one that the database counts keys in.

    It holds 64 bits: a BIGINT that is spelled like this is no smaller.
    """

    def visit_BIGINT(self, type_: Any, **kw: Any) -> str:  # noqa: N802 (SQLAlchemy's name)
        """Return the spelling of an integer of 64 bits."""
        return "INTEGER"


class _ExecutionContext(SQLiteExecutionContext_aiosqlite):
    def create_default_cursor(self) -> Any:
        connection: Any = self._dbapi_connection
        return OneHopCursor(connection.dbapi_connection)


class MoorageSQLiteDialect(SQLiteDialect_aiosqlite):
    """
    aiosqlite under moorage's transaction rules; ``dialect.name`` stays ``sqlite``.

    Args:
        write_queue: Queue of the writers of one ``Database``.
        limits: How long the statements of that ``Database`` may run and wait.
    """

    supports_statement_cache = True
    execution_ctx_cls: Any = _ExecutionContext
    type_compiler_cls: ClassVar[Any] = MoorageSQLiteTypeCompiler

    def __init__(
        self,
        write_queue: WriteQueue | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.write_queue: WriteQueue = write_queue or WriteQueue()
        self.limits: Limits = limits or Limits()

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        """Open a connection, unless it is plain that the file cannot be used."""
        if not cparams.get("uri"):
            _refuse_unusable_file(Path(cargs[0]))
        cparams.setdefault("factory", OneHopConnection)
        return super().connect(*cargs, **cparams)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Run a statement; the ones that only take a lock are repeated until they have it."""
        _refuse_write(statement, context)
        execute = partial(cursor.execute, statement, parameters)
        if statement not in _LOCKING:
            if _takes_its_own_lock(context):
                self._repeat(_driver_connection(cursor), partial(self._run, cursor, execute))
            else:
                self._run(cursor, execute)
            return
        if statement == BEGIN_IMMEDIATE:
            self._queue_up(cursor)
        try:
            self._repeat(_driver_connection(cursor), execute)
        except BaseException:
            self.write_queue.release(_driver_connection(cursor))
            raise

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """Run a statement for each of many rows."""
        _refuse_write(statement, context)
        self._run(cursor, partial(cursor.executemany, statement, parameters))

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit what is open; wait for readers where they stand in the way."""
        connection = dbapi_connection.driver_connection
        if connection.in_transaction:
            try:
                self._repeat(connection, dbapi_connection.commit)
            except BaseException:
                # SQLite keeps the transaction open, and SQLAlchemy takes a failed COMMIT for its
                # end: nobody else would roll it back.
                with contextlib.suppress(sqlite3.Error):
                    self.do_rollback(dbapi_connection)
                raise
        self.write_queue.release(connection)

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back what is open."""
        connection = dbapi_connection.driver_connection
        try:
            if connection.in_transaction:
                super().do_rollback(dbapi_connection)
            self.limits.lift(connection)
        finally:
            self.write_queue.release(connection)

    def do_close(self, dbapi_connection: Any) -> None:
        """Close the connection, and with it whatever it held."""
        try:
            super().do_close(dbapi_connection)
        finally:
            self.write_queue.release(dbapi_connection.driver_connection)

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Roll back and close the connection, and with it whatever it held."""
        connection = dbapi_connection.driver_connection
        try:
            if in_greenlet():
                util.await_only(_end(connection))
            else:
                super().do_terminate(dbapi_connection)
        finally:
            self.write_queue.release(connection)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the level without handing BEGIN back to the driver, as pysqlite's dialect does."""
        if level != "AUTOCOMMIT":
            SQLiteDialect.set_isolation_level(self, dbapi_connection, level)

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        """Say no: the driver is in autocommit always, and transactions are open all the same."""
        return False

    def _run(self, cursor: Any, execute: Callable[[], None]) -> None:
        try:
            self.limits.run(_driver_connection(cursor), execute)
        except TimeoutError:
            raise _error("interrupted", sqlite3.SQLITE_INTERRUPT, STATEMENT_TIMEOUT) from None

    def _queue_up(self, cursor: Any) -> None:
        connection = _driver_connection(cursor)
        seconds = self.limits.lock_seconds(connection)

        async def wait() -> None:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self.write_queue.acquire(connection)

        try:
            util.await_only(wait())
        except TimeoutError:
            # What a wait inside SQLite ends with, so that one place explains both.
            raise _error("database is locked", sqlite3.SQLITE_BUSY, "SQLITE_BUSY") from None

    def _repeat(self, connection: Any, act: Callable[[], None]) -> None:
        """Do it until no lock stands in the way, or the deadline for locks is over."""
        began = time.monotonic()
        pause = 0.001
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                if not _is_busy(error) or waited >= self.limits.lock_seconds(connection):
                    raise
            util.await_only(asyncio.sleep(pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _end(connection: Any) -> None:
    """
    Roll back and close a connection of the driver, whoever cancels meanwhile.

    A file that is closed while a cursor still has a statement stays open, with its locks, until
    the cursor is collected; after a cancellation the traceback may hold one for long. And the
    driver's own ``close`` waits for ever when it is interrupted and called again.
    """
    ending = asyncio.create_task(_roll_back_and_close(connection))
    cancellation = await wait_shielded(ending, _END_SECONDS)
    if not ending.done():
        ending.cancel()
        connection.stop()
    if cancellation is not None:
        raise cancellation


async def _roll_back_and_close(connection: Any) -> None:
    with contextlib.suppress(sqlite3.Error, ValueError):  # ValueError: it is closed already
        await connection.rollback()
    with contextlib.suppress(sqlite3.Error, ValueError):
        await connection.close()


def _driver_connection(cursor: Any) -> Any:
    return cursor._connection  # the adapter's cursor has no public way back to its connection


def _takes_its_own_lock(context: Any) -> bool:
    """Return whether a statement reads in no transaction, so that nothing is lost by a repeat."""
    return (
        context is not None and READ_STATEMENTS in context.root_connection.get_execution_options()
    )


def _refuse_write(statement: str, context: Any) -> None:
    if context is None or not context.root_connection.get_execution_options().get(READ_ONLY):
        return
    if writes(statement) and first_word(statement) not in _TRANSACTION_WORDS:
        raise _error("a write in a read session", sqlite3.SQLITE_READONLY, WRITE_REFUSED)


def _refuse_unusable_file(path: Path) -> None:
    # SQLite would find out by itself, but too late: the driver has started a thread by then that
    # outlives a short-lived loop, and a read-only file is opened without a word.
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise _error("unable to open database file", sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN")
    effective = os.access in os.supports_effective_ids
    if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
        raise _error(
            "attempt to write a readonly database", sqlite3.SQLITE_READONLY, "SQLITE_READONLY"
        )


def _error(text: str, code: int, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


def _is_busy(error: BaseException | None) -> bool:
    """Return whether SQLite refused because somebody else holds a lock."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


registry.register("sqlite.moorage", __name__, MoorageSQLiteDialect.__name__)
