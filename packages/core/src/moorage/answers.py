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
from moorage.deadline import Wait
from moorage.notes import LIMITS, RESTS
from moorage.pool import CLOSED_BY_FORCE

__all__ = ["WAIT", "Answers", "limit_answers", "wait_in"]

WAIT = "moorage_wait"
"""Key in ``Connection.info``: what its answers are waited for with."""

# Rows that may take as long as one statement.
_ROWS_PER_STATEMENT = 1000

_Info = dict[Any, Any]


class Answers:
    """The answers that one engine waits for."""

    def __init__(self, engine: Engine, connector: DBConnector) -> None:
        settings = connector.settings
        self._grace = settings.answer_grace_seconds
        self.is_limited: bool = connector.capabilities.networked and self._grace > 0
        self._statement = settings.statement_timeout_seconds
        self._least_commit = settings.commit_timeout_seconds
        self.usual: float = self.seconds(None)
        """How long one statement is waited for, where nobody says otherwise; 0 is for ever."""
        self._roll_back = engine.dialect.do_rollback

    def commit(self, run: Callable[..., None], connection: Any) -> None:
        """Send COMMIT, unless the connection was closed by force; a unit ends this wait sooner."""
        info = _info_of(connection)
        if CLOSED_BY_FORCE in info:
            # Some adapters take it for a success when there is no transaction to commit any more.
            raise ConnectionError("the connection was closed while it was in use")
        seconds = self.seconds(info.get(LIMITS), least=self._least_commit)
        wait_in(info).call(seconds, run, connection)

    def roll_back(self, connection: Any) -> None:
        """Send ROLLBACK, unless the connection rests; the pool asks its driver when it is back."""
        info = _info_of(connection)
        if not info.get(RESTS):
            self.send_rollback(connection, info)

    def send_rollback(self, connection: Any, info: _Info) -> None:
        """Send ROLLBACK, unless the connection was closed by force, and the transaction with it."""
        if CLOSED_BY_FORCE not in info:
            limits = info.get(LIMITS)
            seconds = self.usual if limits is None else self.seconds(limits)
            wait_in(info).call(seconds, self._roll_back, connection)

    def wait_for_rows(self, connection: Connection, fetch: Callable[..., Any], *size: Any) -> Any:
        """Call what waits for the next rows of a stream."""
        info = connection.info
        return wait_in(info).call(self.seconds(info.get(LIMITS)), fetch, *size)

    def seconds_for_rows(self, limits: Any, rows: int) -> float:
        """Return how long the answer to a statement with so many rows is waited for."""
        return self.seconds(limits, 1 + rows // _ROWS_PER_STATEMENT)

    def seconds(self, limits: Any, statements: int = 1, least: float = 0.0) -> float:
        """Return how long the answer to so many statements is waited for; 0 is for ever."""
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
    if answers.is_limited and dialect.has_terminate:
        _attach_haste(engine)
    return answers


def wait_in(info: _Info) -> Wait:
    """Return the wait of the connection that ``info`` belongs to."""
    wait: Wait | None = info.get(WAIT)
    if wait is None:
        wait = info[WAIT] = Wait()
    return wait


def _attach_haste(engine: Engine) -> None:
    """Close a connection whose server does not answer without waiting for an answer to that."""

    @event.listens_for(engine, "close")
    def hasten(connection: Any, record: Any) -> None:
        wait: Wait | None = record.info.get(WAIT)
        if wait is not None and wait.was_late:
            # Outside of SQLAlchemy's greenlet nothing can be waited for, and a driver that is in
            # the middle of its goodbye is ended by this.
            asyncio.get_running_loop().call_soon(engine.dialect.do_terminate, connection)


def _info_of(connection: Any) -> _Info:
    try:
        info: _Info = connection.info
    except (AttributeError, NotImplementedError):
        return {}  # the dialect sets itself up, on what stands for a connection
    return info
