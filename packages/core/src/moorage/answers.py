"""
How long the answer of a server is waited for.

A server limits its statements by itself, but only a server that is still there: behind a link that
swallows everything, a driver waits for ever. So each wait has a deadline on this side as well, a
little later than the server's own; a connection whose server did not keep it is not used again.

The methods of the dialect that speak to the server are wrapped on the instance, which belongs to
one engine and is shared with nobody. SQLAlchemy has no place for that: it takes the class of a
dialect from the name in the URL, which is the connector's; what extends ``create_engine`` is given
arguments and the finished engine; and of events there are some around statements, which each
connection would pay for when it is taken, and none around COMMIT, ROLLBACK and rows of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

from moorage.connector import DBConnector
from moorage.deadline import LateError, Wait, within
from moorage.notes import LIMITS
from moorage.pool import CLOSED_BY_FORCE

__all__ = ["Answers", "limit_answers"]

# Keys in `ConnectionPoolEntry.info`, which lives as long as the driver's connection.
_WAIT = "moorage_wait"
_SILENT = "moorage_silent"
# Rows of one `executemany` that may take as long as one statement.
_ROWS_PER_STATEMENT = 1000

_Info = dict[Any, Any]
_Run = Callable[..., None]


class Answers:
    """The answers that one engine waits for."""

    def __init__(self, engine: Engine, connector: DBConnector) -> None:
        settings = connector.settings
        self._grace = settings.answer_grace_seconds
        self.is_limited: bool = connector.capabilities.networked and self._grace > 0
        self._statement = settings.statement_timeout_seconds
        self._least_commit = settings.commit_timeout_seconds
        self._usual = self._seconds(None)
        self._roll_back = engine.dialect.do_rollback

    def wrap_statement(
        self, run: Callable[..., None], *, many: bool = False
    ) -> Callable[..., None]:
        """Return ``run`` with a deadline, which grows with the rows where there are many."""

        def limited(cursor: Any, statement: str, *arguments: Any) -> None:
            context = arguments[-1] if arguments else None
            try:
                info = context.root_connection.info  # type: ignore[union-attr]
            except (AttributeError, NotImplementedError):
                # The dialect sets itself up, on what stands for a connection.
                within(self._usual, run, cursor, statement, *arguments)
                return
            statements = 1 + len(arguments[0]) // _ROWS_PER_STATEMENT if many else 1
            limits = info.get(LIMITS)
            is_usual = limits is None and statements == 1
            seconds = self._usual if is_usual else self._seconds(limits, statements)
            self.wait(info, seconds, run, cursor, statement, *arguments)
            if getattr(cursor, "server_side", False):
                context.cursor = _StreamCursor(cursor, context.root_connection, self)  # type: ignore[union-attr]

        return limited

    def commit(self, run: Callable[..., None], connection: Any) -> None:
        """Send COMMIT, unless the connection was closed by force; a unit ends this wait sooner."""
        info = _info_of(connection)
        if CLOSED_BY_FORCE in info:
            # Some adapters take it for a success when there is no transaction to commit any more.
            raise ConnectionError("the connection was closed while it was in use")
        seconds = self._seconds(info.get(LIMITS), least=self._least_commit)
        self.wait(info, seconds, run, connection)

    def roll_back(self, connection: Any, info: _Info | None = None) -> None:
        """Send ROLLBACK, unless the connection was closed by force, and the transaction with it."""
        if info is None:
            info = _info_of(connection)
        if CLOSED_BY_FORCE not in info:
            limits = info.get(LIMITS)
            seconds = self._usual if limits is None else self._seconds(limits)
            self.wait(info, seconds, self._roll_back, connection)

    def wait(self, info: _Info, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """
        Call what waits for an answer on the connection that ``info`` belongs to.

        Raises:
            TimeoutError: It did not come in time.
        """
        if not seconds:
            return call(*arguments)
        wait: Wait | None = info.get(_WAIT)
        if wait is None:
            wait = info[_WAIT] = Wait()
        try:
            return wait.call(seconds, call, *arguments)
        except LateError:
            info[_SILENT] = True
            raise

    def wait_for_rows(self, connection: Connection, fetch: Callable[..., Any], *size: Any) -> Any:
        """Call what waits for the next rows of a stream."""
        info = connection.info
        return self.wait(info, self._seconds(info.get(LIMITS)), fetch, *size)

    def _seconds(self, limits: Any, statements: int = 1, least: float = 0.0) -> float:
        own = getattr(limits, "statement_timeout_seconds", None)
        seconds = self._statement if own is None else own
        if not seconds or not self.is_limited:
            return 0.0
        return max(seconds * statements, least) + self._grace


def limit_answers(engine: Engine, connector: DBConnector) -> Answers:
    """Limit each wait for an answer on ``engine``."""
    dialect: Any = engine.dialect
    answers = Answers(engine, connector)
    commit = dialect.do_commit
    dialect.do_commit = lambda connection: answers.commit(commit, connection)
    dialect.do_rollback = answers.roll_back
    if answers.is_limited:
        dialect.do_execute = answers.wrap_statement(dialect.do_execute)
        dialect.do_execute_no_params = answers.wrap_statement(dialect.do_execute_no_params)
        dialect.do_executemany = answers.wrap_statement(dialect.do_executemany, many=True)
        if dialect.has_terminate:
            _attach_haste(engine)
    return answers


def _attach_haste(engine: Engine) -> None:
    """Close a connection whose server does not answer without waiting for an answer to that."""

    @event.listens_for(engine, "close")
    def hasten(connection: Any, record: Any) -> None:
        if record.info.pop(_SILENT, False):
            # Outside of SQLAlchemy's greenlet nothing can be waited for, and a driver that is in
            # the middle of its goodbye is ended by this.
            asyncio.get_running_loop().call_soon(engine.dialect.do_terminate, connection)


def _info_of(connection: Any) -> _Info:
    try:
        info: _Info = connection.info
    except (AttributeError, NotImplementedError):
        return {}  # the dialect sets itself up, on what stands for a connection
    return info


class _StreamCursor:
    """The cursor of a result that is read piece by piece, each of which has to come in time."""

    def __init__(self, cursor: Any, connection: Connection, answers: Answers) -> None:
        self._cursor = cursor
        self._connection = connection
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchmany, size)

    def fetchall(self) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchall)

    def close(self) -> None:
        """Close the cursor, which on some drivers reads the rest of the result."""
        if self._connection.closed or self._connection.invalidated:
            self._cursor.close()
            return
        try:
            self._answers.wait_for_rows(self._connection, self._cursor.close)
        except TimeoutError as error:
            self._connection.invalidate(error)
