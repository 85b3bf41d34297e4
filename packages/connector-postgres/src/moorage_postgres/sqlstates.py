"""
What PostgreSQL's SQLSTATEs, and asyncpg's own errors, mean.

Source of the codes: appendix A, "PostgreSQL Error Codes", of the PostgreSQL manual.
"""

from __future__ import annotations

import re
from typing import Any

import asyncpg

from moorage import (
    AuthenticationError,
    CheckViolationError,
    ConnectionLostError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DBConnector,
    DeadlockError,
    Diagnosis,
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

__all__ = ["ERRORS", "diagnose"]

_KINDS: dict[str, type[DatabaseError]] = {
    "23001": ForeignKeyViolationError,
    "23502": NotNullViolationError,
    "23503": ForeignKeyViolationError,
    "23505": UniqueViolationError,
    "23514": CheckViolationError,
    "23P01": ExclusionViolationError,
    "25006": ReadOnlyError,
    "25P03": IdleInTransactionTimeoutError,
    "28000": AuthenticationError,
    "28P01": AuthenticationError,
    "3D000": DatabaseMissingError,
    "3F000": UndefinedObjectError,
    "40001": SerializationError,
    "40P01": DeadlockError,
    "25P02": TransactionAbortedError,
    "42501": PermissionDeniedError,
    "42601": StatementSyntaxError,
    "42703": UndefinedObjectError,
    "42704": UndefinedObjectError,
    "42883": UndefinedObjectError,
    "42P01": UndefinedObjectError,
    "42P02": UndefinedObjectError,
    "53300": TooManyConnectionsError,
    "55P03": LockTimeoutError,
    "57P03": DatabaseUnavailableError,
}
ERRORS: frozenset[type[DatabaseError]] = frozenset(
    {*_KINDS.values(), ConnectionLostError, DataError, StalePlanError}
    | {StatementCancelledError, StatementTimeoutError}
)
"""The classes that are told apart."""

# The server ends the connection: an administrator, a crash, a time-out, a dropped database.
_ENDED = frozenset({"57P01", "57P02", "57P04", "57P05", "25P04"})
_KEY = re.compile(r"\(([^()]*)\)=\(")


def diagnose(connector: DBConnector, error: BaseException, *, connecting: bool) -> Diagnosis | None:
    """Return what an error of asyncpg, or of SQLAlchemy's adapter around it, means."""
    driver = error.__cause__ if isinstance(error.__cause__, _ASYNCPG) else error
    # Without the server's DETAIL line, which quotes the values of the row.
    reason = str(driver.args[0] if driver.args else driver)
    state = str(getattr(driver, "sqlstate", None) or "")
    if isinstance(
        driver,
        (
            asyncpg.InvalidCachedStatementError,
            asyncpg.exceptions.OutdatedSchemaCacheError,
        ),
    ):
        return connector.diagnose(StalePlanError, reason, state)
    if state:
        return _diagnose_state(connector, state, reason, driver, connecting=connecting)
    if isinstance(driver, asyncpg.DataError):
        return connector.diagnose(
            DataError, reason
        )  # asyncpg encodes values, and refuses by itself
    if isinstance(driver, asyncpg.InternalClientError) and not connecting:
        return connector.diagnose(ConnectionLostError, reason)
    if isinstance(driver, asyncpg.InterfaceError) and not connecting:
        # asyncpg has no code for "closed": a connection that is used after its link broke.
        kind = ConnectionLostError if "closed" in reason else DatabaseError
        return connector.diagnose(kind, reason)
    return None


_ASYNCPG = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def _diagnose_state(
    connector: DBConnector, state: str, reason: str, driver: Any, *, connecting: bool
) -> Diagnosis:
    kind = _KINDS.get(state)
    if state in _ENDED or state.startswith("08"):
        kind = DatabaseUnavailableError if connecting else ConnectionLostError
    elif state == "57014":
        # One code for the time-out and for a request to cancel; only the text tells them apart,
        # and where it is translated, a time-out is by far the likelier.
        kind = StatementCancelledError if "user request" in reason else StatementTimeoutError
    elif state.startswith("22"):
        kind = DataError
    elif state.startswith("23") and kind is None:
        kind = ConstraintViolationError
    column = getattr(driver, "column_name", None)
    key = _KEY.search(getattr(driver, "detail", None) or "")
    return connector.diagnose(
        kind or DatabaseError,
        reason,
        state,
        constraint=getattr(driver, "constraint_name", None),
        table=getattr(driver, "table_name", None),
        columns=(column,) if column else tuple(key[1].split(", ")) if key else (),
    )
