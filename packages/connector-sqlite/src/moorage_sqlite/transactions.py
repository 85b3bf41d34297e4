"""
When a SQLite transaction begins, and how.

Python's ``sqlite3`` opens no transaction for a SELECT, so that "read, add one, write" loses
updates without any error. Here every transaction is opened by us, with the first statement:
IMMEDIATE (the write lock is taken at once, and waited for) in units of work and where the first
statement writes, else deferred. A deferred transaction that wants to write after another one has
written cannot be saved by waiting; SQLite says so, and the error becomes a ``SerializationError``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy import exc as sa_exc

from moorage import TransactionAbortedError, blend, statement_info
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
    """
    Let every transaction of ``engine`` begin as described above.

    It is the dialect that begins them, not a listener, which every session would pay for.
    """
    dialect: Any = engine.dialect
    do_begin = dialect.do_begin

    def begin(dbapi_connection: Any) -> None:
        dbapi_connection.info[_STATE] = _PENDING
        do_begin(dbapi_connection)

    dialect.do_begin = begin
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, _beginning(getattr(dialect, name)))


def _beginning(execute: Callable[..., None]) -> Callable[..., None]:
    @wraps(execute)
    def beginning(cursor: Any, statement: str, *arguments: Any) -> None:
        context = arguments[-1] if arguments else None
        info = statement_info(context)
        state = None if info is None else info.get(_STATE)
        if state == _PENDING:
            _begin_with_first_statement(context.root_connection, statement)  # type: ignore[union-attr]
        elif state == _OPEN:
            _refuse_if_ended(context.root_connection, statement)  # type: ignore[union-attr]
        execute(cursor, statement, *arguments)

    return beginning


def _begin_with_first_statement(connection: Connection, statement: str) -> None:
    options = connection.get_execution_options()
    info = connection.info  # asked for once: after a lost connection it cannot be had any more
    if READ_STATEMENTS in options or options.get("isolation_level") == "AUTOCOMMIT":
        info[_STATE] = _AUTOCOMMIT
        return
    if first_word(statement) == "pragma":
        return  # most of them mean nothing, or something else, inside a transaction
    immediate = options.get(READ_WRITE) or (not options.get(READ_ONLY) and writes(statement))
    info[_STATE] = _SENDING
    try:
        # With an entry in the log of its own, and errors that name it and not what it is for.
        connection.exec_driver_sql(BEGIN_IMMEDIATE if immediate else "BEGIN")
        if not immediate and options.get(TAKE_READ_LOCK):
            connection.exec_driver_sql(READ_LOCK)
    except BaseException:
        info[_STATE] = _PENDING
        raise
    info[_STATE] = _OPEN


def _refuse_if_ended(connection: Connection, statement: str) -> None:
    adapter: Any = connection.connection.dbapi_connection
    if not _was_ended(adapter.driver_connection) or first_word(statement) == "pragma":
        return
    # SQLite rolls a whole transaction back by itself when the disk is full, for one. What follows
    # would be committed without what came before.
    message = (
        "SQLite has ended this transaction by itself after an error, or a COMMIT or ROLLBACK was"
        " sent as SQL; nothing of it can be stored"
    )
    hint = "let errors leave the unit of work, which can then be run again as a whole"
    ours = TransactionAbortedError(message, hint=hint)
    raise blend(ours, sa_exc.InvalidRequestError(message))


def _was_ended(driver_connection: Any) -> bool:
    try:
        return not driver_connection.in_transaction
    except ValueError:
        return False  # somebody closed the connection, which the statement will say
