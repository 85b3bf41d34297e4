"""
When a SQLite transaction begins, and how.

Python's ``sqlite3`` opens no transaction for a SELECT, so that "read, add one, write" loses
updates without any error. Here every transaction is opened by us, with the first statement:
IMMEDIATE (the write lock is taken at once, and waited for) in units of work and where the first
statement writes, else deferred. A deferred transaction that wants to write after another one has
written cannot be saved by waiting; SQLite says so, and the error becomes a ``SerializationError``.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy import exc as sa_exc

from moorage import ReadOnlyError
from moorage_sqlite.dialect import BEGIN_IMMEDIATE, READ_LOCK

__all__ = ["READ_ONLY", "READ_WRITE", "TAKE_READ_LOCK", "manage_transactions"]

READ_WRITE = "moorage_sqlite_read_write"
"""Execution option of units of work: take the write lock at the beginning."""

READ_ONLY = "moorage_sqlite_read_only"
"""Execution option of read sessions: begin deferred and refuse statements that write."""

TAKE_READ_LOCK = "moorage_sqlite_take_read_lock"
"""
Execution option of databases where readers wait for writers: lock right behind a deferred BEGIN.

BEGIN alone locks nothing there. The statement behind it would wait for its lock inside SQLite;
taken first, it can be waited for without blocking a thread.
"""

# Key in `Connection.info`, which lives as long as the driver's connection.
_STATE = "moorage_sqlite_transaction"
_PENDING, _SENDING, _OPEN, _AUTOCOMMIT = "pending", "sending", "open", "autocommit"

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_WRITING_WORD = re.compile(r"\b(insert|update|delete|replace)\b", re.IGNORECASE)
_READING = frozenset({"select", "values", "explain"})


def first_word(statement: str) -> str:
    """Return the first key word of a statement in lower case, comments skipped."""
    rest = _COMMENTS.sub("", statement, count=1)
    match = re.match(r"[A-Za-z]+", rest)
    return match.group().lower() if match else ""


def writes(statement: str) -> bool:
    """
    Return whether a statement may write.

    Whatever is not known to read counts as writing: the lock that is taken too early costs a
    wait, the one that is taken too late costs the transaction.
    """
    word = first_word(statement)
    if word == "with":
        return _WRITING_WORD.search(statement) is not None
    return word not in _READING


def manage_transactions(engine: Engine) -> None:
    """Let every transaction of ``engine`` begin as described above."""
    event.listen(engine, "begin", _await_first_statement)
    event.listen(engine, "before_cursor_execute", _begin_with_first_statement)


def _await_first_statement(connection: Connection) -> None:
    level = connection.get_execution_options().get("isolation_level")
    connection.info[_STATE] = _AUTOCOMMIT if level == "AUTOCOMMIT" else _PENDING


def _begin_with_first_statement(
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: object,
    executemany: bool,
) -> None:
    state = connection.info.get(_STATE)
    options = connection.get_execution_options()
    word = first_word(statement)
    if options.get(READ_ONLY) and word != "pragma" and writes(statement) and state != _SENDING:
        _refuse_write(statement)
    if state in {_SENDING, _AUTOCOMMIT, None}:
        return
    adapter: Any = connection.connection.dbapi_connection
    if state == _OPEN:
        if not adapter.driver_connection.in_transaction and word != "pragma":
            # SQLite rolls a whole transaction back by itself when the disk is full, for one.
            # What follows would be committed without what came before.
            raise sa_exc.InvalidRequestError(
                "SQLite has ended this transaction by itself after an error, or a COMMIT or"
                " ROLLBACK was sent as SQL; roll the session back and run the whole unit again"
            )
        return
    if word == "pragma":
        return  # most of them mean nothing, or something else, inside a transaction
    immediate = options.get(READ_WRITE) or (not options.get(READ_ONLY) and writes(statement))
    connection.info[_STATE] = _SENDING
    try:
        connection.exec_driver_sql(BEGIN_IMMEDIATE if immediate else "BEGIN")
        if not immediate and options.get(TAKE_READ_LOCK):
            connection.exec_driver_sql(READ_LOCK)
    except BaseException:
        connection.info[_STATE] = _PENDING
        raise
    connection.info[_STATE] = _OPEN


def _refuse_write(statement: str) -> None:
    raise ReadOnlyError(
        f"a {first_word(statement).upper()} reached a session that only reads",
        hint="use database.session() or a unit of work for writing",
    )
