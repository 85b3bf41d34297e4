"""
What SQLite's extended result codes mean, and what its messages name.

Source: "Result and Error Codes", https://sqlite.org/rescode.html
"""

from __future__ import annotations

import re
import sqlite3

from moorage import (
    CheckViolationError,
    ConnectionLostError,
    ConstraintViolationError,
    DatabaseError,
    DataError,
    DBConnector,
    Diagnosis,
    ForeignKeyViolationError,
    LockTimeoutError,
    NotNullViolationError,
    PermissionDeniedError,
    ReadOnlyError,
    SerializationError,
    StalePlanError,
    StatementCancelledError,
    StatementSyntaxError,
    StatementTimeoutError,
    UndefinedObjectError,
    UniqueViolationError,
)
from moorage_sqlite.dialect import STATEMENT_TIMEOUT

__all__ = ["ERRORS", "diagnose"]

_KINDS: dict[str, type[DatabaseError]] = {
    STATEMENT_TIMEOUT: StatementTimeoutError,
    "SQLITE_AUTH": PermissionDeniedError,
    "SQLITE_CONSTRAINT_CHECK": CheckViolationError,
    "SQLITE_CONSTRAINT_DATATYPE": DataError,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ForeignKeyViolationError,
    "SQLITE_CONSTRAINT_NOTNULL": NotNullViolationError,
    "SQLITE_CONSTRAINT_PRIMARYKEY": UniqueViolationError,
    "SQLITE_CONSTRAINT_ROWID": UniqueViolationError,
    "SQLITE_CONSTRAINT_UNIQUE": UniqueViolationError,
    "SQLITE_INTERRUPT": StatementCancelledError,
    "SQLITE_MISMATCH": DataError,
    "SQLITE_SCHEMA": StalePlanError,
    "SQLITE_TOOBIG": DataError,
}
# Told apart as well, but nothing that moorage does brings them about: they need an authorizer, an
# interrupt from outside, or the interface for statements that SQLite has replaced long ago.
_OUT_OF_REACH = {PermissionDeniedError, StatementCancelledError, StalePlanError}
ERRORS: frozenset[type[DatabaseError]] = frozenset(
    {*_KINDS.values(), LockTimeoutError, ReadOnlyError, SerializationError}
    | {StatementSyntaxError, UndefinedObjectError}
) - frozenset(_OUT_OF_REACH)
"""The classes that are promised; those of locks and files are told by the connector itself."""

_UNDEFINED = re.compile(
    r"^no such (?:table|column|function|index|view|trigger|collation)|"
    r"has no column named"
)
_SYNTAX = re.compile(r"syntax error|^incomplete input|^unrecognized token")


def diagnose(connector: DBConnector, error: BaseException) -> Diagnosis | None:
    """Return what an error of ``sqlite3`` or aiosqlite means; ``None`` for no error of theirs."""
    text = str(error)
    name = getattr(error, "sqlite_errorname", None)
    if name is None:
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in text:
            return connector.diagnose(ConnectionLostError, text)
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)) and (
            "binding" in text
        ):
            return connector.diagnose(DataError, text)
        if text in {"no active connection", "Connection closed"}:
            # aiosqlite's words for closed; SQLAlchemy puts them into another class.
            return connector.diagnose(ConnectionLostError, text)
        return None
    if name == "SQLITE_ERROR":
        # One code for everything that is wrong with a statement; the text is never translated.
        if _UNDEFINED.search(text):
            return connector.diagnose(UndefinedObjectError, text, name)
        if _SYNTAX.search(text):
            return connector.diagnose(StatementSyntaxError, text, name)
    kind = _KINDS.get(name, DatabaseError)
    if name.startswith("SQLITE_CONSTRAINT") and kind is DatabaseError:
        kind = ConstraintViolationError
    constraint, table = None, None
    columns: tuple[str, ...] = ()
    subject = text.partition("constraint failed: ")[2]
    if kind is CheckViolationError:
        constraint = subject or None
    elif kind in {UniqueViolationError, NotNullViolationError} and "." in subject:
        pairs = [column.rpartition(".")[::2] for column in subject.split(", ")]
        table, columns = pairs[0][0], tuple(column for _, column in pairs)
    return connector.diagnose(kind, text, name, constraint=constraint, table=table, columns=columns)
