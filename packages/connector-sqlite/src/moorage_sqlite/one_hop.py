"""
A statement and all of its rows in one hop into the driver's thread.

SQLAlchemy's cursor for aiosqlite hops four times for a SELECT: to make a cursor, to execute, to
fetch and to close. SQLite answers a read by key in microseconds; the hops are what takes the time.
aiosqlite can execute and fetch in one, and gives the rows alone; here they carry the rest along.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import util

__all__ = ["OneHopConnection", "OneHopCursor"]


class _Rows(list[Any]):
    """All rows of a statement, and what its cursor knew."""

    description: Any = None
    lastrowid: int | None = None
    rowcount: int = -1


class _EagerCursor(sqlite3.Cursor):
    def fetchall(self) -> _Rows:
        rows = _Rows(super().fetchall())
        rows.description = self.description
        rows.lastrowid = self.lastrowid
        rows.rowcount = self.rowcount
        return rows


class OneHopConnection(sqlite3.Connection):
    """A connection whose cursors give their rows with all that is known of them."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Execute a statement; called in the driver's thread."""
        return self.cursor(_EagerCursor).execute(sql, parameters)


class OneHopCursor:
    """
    What SQLAlchemy takes for a cursor of the DBAPI; made without a hop, and closed without one.

    Args:
        adapter: SQLAlchemy's adapter of an aiosqlite connection, made with
            :class:`OneHopConnection` as its factory.
    """

    server_side: bool = False

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._connection = adapter.driver_connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.lastrowid: int | None = None
        self.rowcount: int = -1
        self.arraysize: int = 1

    def execute(self, operation: str, parameters: Any = None) -> None:
        """Execute a statement and fetch its rows."""
        try:
            rows = util.await_only(self._connection.execute_fetchall(operation, parameters))
        except Exception as error:
            self._adapter._handle_exception(error)
            raise
        self.description, self.lastrowid = rows.description, rows.lastrowid
        self.rowcount = rows.rowcount
        self._rows = deque(rows)

    def executemany(self, operation: str, parameters: Iterable[Any]) -> None:
        """Execute a statement for each of many rows."""
        try:
            cursor = util.await_only(self._connection.executemany(operation, parameters))
        except Exception as error:
            self._adapter._handle_exception(error)
            raise
        self.description, self.lastrowid = None, cursor.lastrowid
        self.rowcount = cursor.rowcount

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return some more rows."""
        rows = self._rows
        return [rows.popleft() for _ in range(min(size or self.arraysize, len(rows)))]

    def fetchall(self) -> Sequence[Any]:
        """Return all rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def __iter__(self) -> Iterator[Any]:
        """Give the rows that are left."""
        while self._rows:
            yield self._rows.popleft()

    def setinputsizes(self, *sizes: Any) -> None:
        """Do nothing: SQLite has no sizes."""

    def close(self) -> None:
        """Forget the rows; SQLite was done with the statement when the last one was fetched."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Do nothing; called before rows are handed to code outside of SQLAlchemy's greenlet."""
