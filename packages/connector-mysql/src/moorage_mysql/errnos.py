"""
What the error numbers of MySQL, MariaDB and their client mean.

Sources: "Server Error Message Reference" and "Client Error Message Reference" of the MySQL manual,
"MariaDB Error Code Reference" of the MariaDB documentation.
"""

from __future__ import annotations

import re
import ssl

from pymysql.err import InterfaceError, InternalError

from moorage import (
    AuthenticationError,
    CheckViolationError,
    ConnectionLostError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DBConnector,
    DeadlockError,
    Diagnosis,
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
    UndefinedObjectError,
    UniqueViolationError,
)

__all__ = ["ERRORS", "diagnose"]

_NUMBERS: dict[type[DatabaseError], tuple[int, ...]] = {
    UniqueViolationError: (1062, 1169, 1586),
    ForeignKeyViolationError: (1216, 1217, 1451, 1452),
    NotNullViolationError: (1048, 1364),
    CheckViolationError: (3819, 4025),
    DataError: (1264, 1265, 1292, 1366, 1367, 1406, 1690, 3140),
    UndefinedObjectError: (1051, 1054, 1091, 1146, 1176, 1305, 4161),
    StatementSyntaxError: (1064, 1065, 1149),
    PermissionDeniedError: (1142, 1143, 1227, 1370),
    AuthenticationError: (1045, 1698),
    DatabaseMissingError: (1049,),
    TooManyConnectionsError: (1040, 1203, 1226),
    SerializationError: (1020,),
    DeadlockError: (1213,),
    LockTimeoutError: (1205, 3572),
    StatementTimeoutError: (1969, 3024),
    StatementCancelledError: (1317,),
    StalePlanError: (1412, 1615),
    ReadOnlyError: (1290, 1792, 1836),
    # MySQL and MariaDB call what ends a connection that sat idle inside a transaction so.
    IdleInTransactionTimeoutError: (4031,),
}
_KINDS = {number: kind for kind, numbers in _NUMBERS.items() for number in numbers}
ERRORS: frozenset[type[DatabaseError]] = frozenset(_NUMBERS) | {ConnectionLostError}
"""The classes that are told apart."""

_NOT_REACHED = frozenset({2002, 2003, 2005, 2006, 2012, 2013, 2055})
_LOST = frozenset({1053, 1080, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2014, 2055})

# The server tells names in its text alone; they are looked for behind what no language changes.
_CONSTRAINT = re.compile(r"CONSTRAINT `([^`]+)`")
_FOREIGN_KEY = re.compile(r"FOREIGN KEY \(([^)]+)\)")
_TABLE = re.compile(r"`[^`]+`\.`([^`]+)`")
_LAST_NAME = re.compile(r"'([^']+)'\W*$")
_FIRST_NAME = re.compile(r"'([^']+)'")


def diagnose(connector: DBConnector, error: BaseException, *, connecting: bool) -> Diagnosis | None:
    """Return what an error of aiomysql means; ``None`` for one without a number."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    if isinstance(error, OSError) or number is None:
        if isinstance(error, (RuntimeError, InterfaceError)) and not connecting:
            # aiomysql's own words for a stream that was closed, or is out of step.
            return connector.diagnose(ConnectionLostError, str(error))
        if isinstance(error, InternalError) and connecting:
            return connector.unreachable(error)  # what answers does not speak MySQL's protocol
        return None
    code, reason = str(number), str(error.args[-1])
    if connecting and number in _NOT_REACHED:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            return connector.insecure(cause.reason or str(cause))
        return connector.unreachable(cause if isinstance(cause, OSError) else error)
    if number in _LOST:
        kind: type[DatabaseError] = DatabaseUnavailableError if connecting else ConnectionLostError
        return connector.diagnose(kind, reason, code)
    if number == 1044:
        return connector.diagnose(
            AuthenticationError if connecting else PermissionDeniedError, reason, code
        )
    kind = _KINDS.get(number, DatabaseError)
    constraint, table, columns = _names(kind, reason)
    return connector.diagnose(
        kind, reason, code, constraint=constraint, table=table, columns=columns
    )


def _names(kind: type[DatabaseError], text: str) -> tuple[str | None, str | None, tuple[str, ...]]:
    table = _first(_TABLE, text)
    if kind is UniqueViolationError:
        # MySQL writes 'table.key', MariaDB 'key'; the value before it may hold anything.
        owner, _, key = (_first(_LAST_NAME, text) or "").rpartition(".")
        return key or None, owner or None, ()
    if kind is NotNullViolationError:
        column = _first(_FIRST_NAME, text)
        return None, None, (column,) if column else ()
    if kind is ForeignKeyViolationError:
        columns = _first(_FOREIGN_KEY, text) or ""
        names = tuple(name.strip("` ") for name in columns.split(",") if name)
        return _first(_CONSTRAINT, text), table, names
    if kind is CheckViolationError:
        return _first(_CONSTRAINT, text) or _first(_FIRST_NAME, text), table, ()
    return None, None, ()


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None
