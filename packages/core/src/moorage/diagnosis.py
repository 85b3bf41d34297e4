"""
What an error of a driver means, in the user's words.

A connector says which class of ``moorage.errors`` a code of its backend stands for; the sentence
and the next step are the same on every backend and are written here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moorage.errors import (
    AuthenticationError,
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DeadlockError,
    ExclusionViolationError,
    ForeignKeyViolationError,
    IdleInTransactionTimeoutError,
    LockTimeoutError,
    NotNullViolationError,
    PermissionDeniedError,
    ReadOnlyError,
    SerializationError,
    StalePlanError,
    StatementCancelledError,
    StatementSyntaxError,
    StatementTimeoutError,
    TooManyConnectionsError,
    TransactionAbortedError,
    UndefinedObjectError,
    UniqueViolationError,
)
from moorage.settings import DatabaseSettings

__all__ = ["LOST_COMMIT", "Diagnosis", "explain_error"]


@dataclass(frozen=True)
class Diagnosis:
    """
    What a connector makes of an error of its driver.

    Attributes:
        kind: The class of ``moorage.errors`` that the error becomes an instance of.
        sentence: What happened, in the user's terms and with the setting that governs it.
        hint: The next step; empty where there is none.
        code: The code that decided it (SQLSTATE, errno, result code).
        constraint: Name of the constraint that was broken, if the backend tells.
        table: Name of the table, likewise.
        columns: Names of the columns, likewise.
    """

    kind: type[DatabaseError]
    sentence: str
    hint: str = ""
    code: str = ""
    constraint: str | None = None
    table: str | None = None
    columns: tuple[str, ...] = ()

    def to_error(self, orig: BaseException | None = None) -> DatabaseError:
        """Return the error to raise, for what the driver raised or, without it, for our own."""
        return self.kind(
            self.sentence,
            hint=self.hint,
            backend_code=self.code,
            constraint=self.constraint,
            table=self.table,
            columns=self.columns,
            orig=orig,
        )


_Words = tuple[str, str]
_AGAIN = "run the whole unit of work again"


def explain_error(kind: type[DatabaseError], settings: DatabaseSettings, reason: str) -> _Words:
    """
    Return the sentence and the next step for an error of one class.

    Args:
        kind: A class of ``moorage.errors``; one that is not known here gets the words of its
            nearest base.
        settings: Named in the words, with the variable each came from.
        reason: What the backend said.
    """
    for cls in kind.__mro__:
        if words := _WORDS.get(cls):
            return words(settings, reason)
    return reason, ""


def _authentication(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"the server at {settings.host} refused user {settings.user!r}"
        f" ({settings.origin('user')}): {reason}",
        f"check {settings.variable('user')} and {settings.variable('password')}, and the server's"
        " rules of who may connect from here",
    )


def _database_missing(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"there is no database {settings.name!r} ({settings.origin('name')}) on"
        f" {settings.host}: {reason}",
        f"create it, or correct {settings.variable('name')}",
    )


def _unavailable(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"the server at {settings.host} takes no connection now: {reason}",
        "wait for it to start; Database.wait_until_ready() does",
    )


def _too_many_connections(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"the server at {settings.host} has no connection left: {reason}",
        f"lower {settings.variable('pool_size')} and {settings.variable('max_overflow')}: every"
        " process, and every event loop in it, may open as many as both together",
    )


def _connection_lost(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"the connection to {settings.host} broke in the middle of work: {reason}",
        f"nothing of this transaction is stored; {_AGAIN}",
    )


def _idle_in_transaction(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        "the server ended the connection because its transaction sat idle for longer than"
        f" {settings.idle_in_transaction_timeout_seconds:g} s"
        f" ({settings.variable('idle_in_transaction_timeout_seconds')})",
        "do slow work, such as calls of other services, outside of the unit of work",
    )


def _lock_timeout(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"a lock was not free within {settings.lock_timeout_seconds:g} s"
        f" ({settings.variable('lock_timeout_seconds')}): {reason}",
        "keep units of work short, and run the whole unit again",
    )


def _statement_timeout(settings: DatabaseSettings, reason: str) -> _Words:
    return (
        f"the statement ran for longer than {settings.statement_timeout_seconds:g} s"
        f" ({settings.variable('statement_timeout_seconds')}): {reason}",
        "make it faster (look at its plan with EXPLAIN), or allow it more time",
    )


LOST_COMMIT = (
    "the connection was lost while COMMIT was under way",
    "look whether the work is there before doing it again; moorage never repeats a unit after its"
    " COMMIT was sent",
)
"""What happened, and the next step, when a link breaks behind a COMMIT."""


def _constant(sentence: str, hint: str) -> Callable[[DatabaseSettings, str], _Words]:
    return lambda settings, reason: (f"{sentence}: {reason}", hint)


_WORDS: dict[type, Callable[[DatabaseSettings, str], _Words]] = {
    AuthenticationError: _authentication,
    DatabaseMissingError: _database_missing,
    DatabaseUnavailableError: _unavailable,
    TooManyConnectionsError: _too_many_connections,
    ConnectionLostError: _connection_lost,
    CommitOutcomeUnknownError: _constant(*LOST_COMMIT),
    IdleInTransactionTimeoutError: _idle_in_transaction,
    LockTimeoutError: _lock_timeout,
    StatementTimeoutError: _statement_timeout,
    StatementCancelledError: _constant(
        "the server ended the statement at somebody's request",
        "find out who cancels statements on this server; running it again is safe",
    ),
    SerializationError: _constant(
        "the transaction collided with another one and was undone", _AGAIN
    ),
    DeadlockError: _constant(
        "this transaction and another one waited for each other, and this one was undone",
        f"{_AGAIN}; take locks in the same order everywhere",
    ),
    TransactionAbortedError: _constant(
        "an earlier error ended this transaction, and nothing of it can be stored",
        "let errors leave the unit of work, or do what may fail inside"
        " `async with unit.savepoint():`",
    ),
    StalePlanError: _constant(
        "the schema changed after this statement had been prepared",
        f"{_AGAIN}; the statement is prepared anew",
    ),
    UniqueViolationError: _constant(
        "a row with this key is there already", "use another key, or change the row that is there"
    ),
    ForeignKeyViolationError: _constant(
        "a row refers to one that is not there, or others refer to the one that would go",
        "write the row that is referred to first; delete the rows that refer to it first",
    ),
    NotNullViolationError: _constant(
        "a column that must have a value was given none", "give it a value, or a default"
    ),
    CheckViolationError: _constant(
        "a value breaks a CHECK constraint", "correct the value, or the constraint"
    ),
    ExclusionViolationError: _constant(
        "a row conflicts with another one under an EXCLUDE constraint", "correct the row"
    ),
    ReadOnlyError: _constant(
        "a write reached a session or a server that only reads",
        "use database.session() or a unit of work for writing",
    ),
    PermissionDeniedError: _constant(
        "the database user may not do this", "grant it to the user, or use another one"
    ),
    UndefinedObjectError: _constant(
        "the statement names something that is not there",
        "correct the name, or bring the schema up to date (has every migration run?)",
    ),
    StatementSyntaxError: _constant(
        "the database does not understand the statement", "correct the statement"
    ),
    DataError: _constant("a value does not fit", "correct the value"),
}
