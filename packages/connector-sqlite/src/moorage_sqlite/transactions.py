"""
When a SQLite transaction begins, and how.

Python's ``sqlite3`` opens no transaction for a SELECT, so that "read, add one, write" loses
updates without any error. Here every transaction is opened by us, with the first statement:
IMMEDIATE (the write lock is taken at once, and waited for) in units of work and where the first
statement writes, else deferred. A deferred transaction that wants to write after another one has
written cannot be saved by waiting; SQLite says so, and the error becomes a ``SerializationError``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy import exc as sa_exc

from moorage import TransactionAbortedError, blend
from moorage_sqlite.dialect import BEGIN_IMMEDIATE, READ_LOCK, READ_ONLY, READ_STATEMENTS
from moorage_sqlite.statements import first_word, writes

__all__ = ["READ_WRITE", "TAKE_READ_LOCK", "manage_transactions"]

READ_WRITE = "moorage_sqlite_read_write"
"""Execution option of units of work: take the write lock at the beginning."""

TAKE_READ_LOCK = "moorage_sqlite_take_read_lock"
"""
Execution option of databases where readers wait for writers: lock right behind a deferred BEGIN.

BEGIN alone locks nothing there. The statement behind it would wait for its lock inside SQLite;
taken first, it can be waited for without blocking a thread.
"""

# Key in `Connection.info`, which lives as long as the driver's connection.
_STATE = "moorage_sqlite_transaction"
_PENDING, _SENDING, _OPEN, _AUTOCOMMIT = "pending", "sending", "open", "autocommit"


def manage_transactions(engine: Engine) -> None:
    """Let every transaction of ``engine`` begin as described above."""
    event.listen(engine, "begin", _await_first_statement)
    event.listen(engine, "before_cursor_execute", _begin_with_first_statement)


def _await_first_statement(connection: Connection) -> None:
    options = connection.get_execution_options()
    autocommit = READ_STATEMENTS in options or options.get("isolation_level") == "AUTOCOMMIT"
    connection.info[_STATE] = _AUTOCOMMIT if autocommit else _PENDING


def _begin_with_first_statement(
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: object,
    executemany: bool,
) -> None:
    info = connection.info  # asked for once: after a lost connection it cannot be had any more
    state = info.get(_STATE)
    if state in {_SENDING, _AUTOCOMMIT, None}:
        return
    adapter: Any = connection.connection.dbapi_connection
    if state == _OPEN:
        if _was_ended(adapter.driver_connection) and first_word(statement) != "pragma":
            # SQLite rolls a whole transaction back by itself when the disk is full, for one.
            # What follows would be committed without what came before.
            message = (
                "SQLite has ended this transaction by itself after an error, or a COMMIT or"
                " ROLLBACK was sent as SQL; nothing of it can be stored"
            )
            hint = "let errors leave the unit of work, which can then be run again as a whole"
            ours = TransactionAbortedError(message, hint=hint)
            raise blend(ours, sa_exc.InvalidRequestError(message))
        return
    if first_word(statement) == "pragma":
        return  # most of them mean nothing, or something else, inside a transaction
    options = connection.get_execution_options()
    immediate = options.get(READ_WRITE) or (not options.get(READ_ONLY) and writes(statement))
    info[_STATE] = _SENDING
    try:
        connection.exec_driver_sql(BEGIN_IMMEDIATE if immediate else "BEGIN")
        if not immediate and options.get(TAKE_READ_LOCK):
            connection.exec_driver_sql(READ_LOCK)
    except BaseException:
        info[_STATE] = _PENDING
        raise
    info[_STATE] = _OPEN


def _was_ended(driver_connection: Any) -> bool:
    try:
        return not driver_connection.in_transaction
    except ValueError:
        return False  # somebody closed the connection, which the statement will say
