"""
What is remembered of the transaction that is open on a connection, and where it is noted down.

SQLAlchemy has an event for each moment at which something is noted. But a connection whose engine
has listeners joins them to its own each time it is taken, and finds them again at each step, which
makes a fifth of all calls of a one-row read. The methods of the dialect are called at the same
moments, and a dialect belongs to one engine; so it is those that note, wrapped on the instance.
What is noted of statements is noted in ``statements``, which wraps the methods that run them.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from sqlalchemy import Connection, Engine, select

__all__ = [
    "DRIVER_CONNECTION",
    "LIMITS",
    "NOTES",
    "READS_ONLY",
    "RESTS",
    "Notes",
    "forget_failure",
    "notes_in",
    "notes_of",
    "statement_info",
    "take_notes",
    "writes",
]

# Below are keys in `Connection.info`, which lives as long as the driver's connection.

NOTES = "moorage_notes"
"""The :class:`Notes` of the transaction that is open, or was open last."""

DRIVER_CONNECTION = "moorage_driver_connection"
"""What SQLAlchemy asks its dialect for each time."""

READS_ONLY = "moorage_reads_only"
"""
A connection of read sessions, in autocommit; in the ``record_info`` as well, from before it is
opened. In the ``info`` it says whether its driver knows if a transaction is open all the same.
"""

RESTS = "moorage_rests"
"""Whether that of a read session has nothing to roll back: no rows were fetched piece by piece."""

LIMITS = "moorage_limits"
"""The ``TransactionLimits`` of the unit of work that has the connection."""

# The share of a limit that an answer may have been under way; a statement that ran for longer
# was not idle for as long.
_UNHEARD = 0.1

# SQL that was written by hand; what SQLAlchemy has compiled says by itself that it writes.
_WRITING = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:with\b.*\b)?"
    r"(?:insert|update|delete|merge|replace|copy|truncate|create|alter|drop)\b",
    re.IGNORECASE | re.DOTALL,
)


class Notes:
    """
    What is known of one transaction.

    Attributes:
        writes: How many statements that write it has executed.
        has_run_by_hand: It has run SQL that was written by hand and may have written.
        statement_failed: A statement of it failed, and nobody has rolled back since.
        is_bound: It was told on whose behalf it works.
        is_committing: Its COMMIT was sent.
        is_committed: Its COMMIT was answered.
        asked_at: When its last statement was sent, on the monotonic clock, where that is noted.
        answered_at: When the answer to that was heard.
    """

    __slots__ = (
        "answered_at",
        "asked_at",
        "has_run_by_hand",
        "is_bound",
        "is_committed",
        "is_committing",
        "statement_failed",
        "writes",
    )

    def __init__(self) -> None:
        self.writes: int = 0
        self.has_run_by_hand: bool = False
        self.statement_failed: bool = False
        self.is_bound: bool = False
        self.is_committing: bool = False
        self.is_committed: bool = False
        self.asked_at: float = 0.0
        self.answered_at: float | None = None

    def has_idled(self, seconds: float, now: float) -> bool:
        """
        Return whether the server may have counted that many seconds since its last answer.

        It counts from where it answers, which is heard a little later on a busy machine.
        """
        if self.answered_at is None:
            return False
        unheard = min(self.answered_at - self.asked_at, _UNHEARD * seconds)
        return now - self.answered_at + unheard >= seconds


def notes_of(connection: Connection) -> Notes:
    """
    Return what is remembered of a connection's transaction.

    A connection that was lost has nothing to remember, and asking SQLAlchemy for it is an error.
    """
    if connection.invalidated:
        return Notes()
    return notes_in(connection.info)


def forget_failure(info: dict[Any, Any]) -> bool:
    """Return whether a statement failed that nobody has rolled back, and forget it."""
    notes = notes_in(info)
    failed, notes.statement_failed = notes.statement_failed, False
    return failed


def statement_info(context: Any) -> dict[Any, Any] | None:
    """
    Return the ``info`` of the connection that a statement runs on.

    For methods of the dialect that run statements, ``do_execute`` for one. While a dialect sets
    itself up, it asks on what only stands for a connection, and has nothing to remember.

    Args:
        context: What SQLAlchemy hands to such a method last, if it hands anything.
    """
    try:
        info: dict[Any, Any] = context.root_connection.connection.info
    except (AttributeError, NotImplementedError):
        return None
    return info


def take_notes(engine: Engine) -> None:
    """
    Let the dialect of an engine note where each transaction begins and ends.

    Before a COMMIT behind an error that was swallowed it asks, too, whether there is something to
    commit: some servers answer such a COMMIT with a ROLLBACK, which drivers take for success. The
    question fails where the transaction has, and costs nothing where no statement failed.

    Args:
        engine: An engine that has a dialect for itself.
    """
    dialect: Any = engine.dialect
    do_begin, do_commit = dialect.do_begin, dialect.do_commit
    roll_back_to = dialect.do_rollback_to_savepoint
    question = str(select(1).compile(dialect=dialect))

    def begin(dbapi_connection: Any) -> None:
        info = dbapi_connection.info
        info[NOTES] = Notes()
        info.pop(LIMITS, None)
        if READS_ONLY in info:
            info[RESTS] = info[READS_ONLY]
        do_begin(dbapi_connection)

    def commit(dbapi_connection: Any) -> None:
        notes = notes_in(dbapi_connection.info)
        if notes.statement_failed:
            notes.statement_failed = False
            _ask(dialect, dbapi_connection, question)
        notes.is_committing = True
        do_commit(dbapi_connection)
        notes.is_committing, notes.is_committed = False, True

    def roll_back_to_savepoint(connection: Connection, name: str) -> None:
        notes_of(connection).statement_failed = False
        roll_back_to(connection, name)

    dialect.do_begin, dialect.do_commit = begin, commit
    dialect.do_rollback_to_savepoint = roll_back_to_savepoint


def writes(context: Any, statement: str) -> bool:
    """Return whether a statement writes, as far as its compiled form or its words tell."""
    return bool(
        context.isinsert
        or context.isupdate
        or context.isdelete
        or (context.is_text and _WRITING.match(statement))
    )


def notes_in(info: dict[Any, Any]) -> Notes:
    """Return what is remembered in the ``info`` of a connection."""
    notes: Notes | None = info.get(NOTES)
    if notes is None:
        notes = info[NOTES] = Notes()
    return notes


def _ask(dialect: Any, dbapi_connection: Any, question: str) -> None:
    cursor = dbapi_connection.cursor()
    try:
        dialect.do_execute(cursor, question, ())
    except BaseException:
        # SQLAlchemy takes a COMMIT that failed for the end of the transaction.
        dialect.do_rollback(dbapi_connection)
        raise
    finally:
        with contextlib.suppress(Exception):
            cursor.close()
