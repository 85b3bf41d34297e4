"""
What PostgreSQL's SQLSTATEs mean, whichever driver handed them on.

Source of the codes: appendix A, "PostgreSQL Error Codes", of the PostgreSQL manual.
"""

from __future__ import annotations

import re

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
from moorage_postgres.driver import Report

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


def diagnose(connector: DBConnector, report: Report, *, connecting: bool) -> Diagnosis | None:
    """Return what a report means; ``None`` for one without code that its driver leaves open."""
    if report.kind is not None:
        return connector.diagnose(report.kind, report.reason, report.state)
    if not report.state:
        return None
    column = report.column
    key = _KEY.search(report.detail)
    return connector.diagnose(
        _kind(report, connecting=connecting),
        report.reason,
        report.state,
        constraint=report.constraint,
        table=report.table,
        columns=(column,) if column else tuple(key[1].split(", ")) if key else (),
    )


def _kind(report: Report, *, connecting: bool) -> type[DatabaseError]:
    state = report.state
    if state in _ENDED or state.startswith("08"):
        return DatabaseUnavailableError if connecting else ConnectionLostError
    if state == "57014":
        # One code for the time-out and for a request to cancel; only the text tells them apart,
        # and where it is translated, a time-out is by far the likelier.
        is_request = "user request" in report.reason
        return StatementCancelledError if is_request else StatementTimeoutError
    if state.startswith("22"):
        return DataError
    if state.startswith("23"):
        return _KINDS.get(state, ConstraintViolationError)
    return _KINDS.get(state, DatabaseError)
