"""
How long the answer of a server is waited for.

A server limits its statements by itself, but only a server that is still there: behind a link that
swallows everything, a driver waits for ever. So each call of the driver has a deadline on this
side as well, a little later than the server's own; a connection whose server did not keep it is
not used again.

The methods of the dialect that speak to the server are wrapped on the instance that belongs to one
engine. SQLAlchemy has events around statements, and none around COMMIT and ROLLBACK.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

from moorage.connector import DBConnector
from moorage.notes import LIMITS

__all__ = ["limit_answers"]

# Key in `ConnectionPoolEntry.info`: the server did not answer in time.
_SILENT = "moorage_silent"
# Rows of one `executemany` that may take as long as one statement.
_ROWS_PER_STATEMENT = 1000


def limit_answers(engine: Engine, connector: DBConnector) -> None:
    """Limit each wait for an answer on ``engine``."""
    dialect: Any = engine.dialect
    usual = connector.settings.statement_timeout_seconds
    grace = connector.settings.answer_grace_seconds
    if connector.capabilities.networked and grace > 0:

        def limit(connection: Any, statements: int = 1, least: float = 0.0) -> float:
            try:
                limits = connection.info.get(LIMITS)
            except (AttributeError, NotImplementedError):
                limits = None  # the dialect sets itself up, on what stands for a connection
            own = getattr(limits, "statement_timeout_seconds", None)
            seconds = usual if own is None else own
            return max(seconds * statements, least) + grace if seconds else 0.0

        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, _statement_limited(getattr(dialect, name), limit))
        # A unit of work ends the wait for its COMMIT itself.
        commit_limit = functools.partial(limit, least=connector.settings.commit_timeout_seconds)
        dialect.do_commit = _end_limited(dialect.do_commit, commit_limit)
        dialect.do_rollback = _end_limited(dialect.do_rollback, limit)
        if dialect.has_terminate:
            _attach_haste(engine)
    dialect.do_commit = _only_if_connected(dialect.do_commit)
    dialect.do_rollback = _unless_closed(dialect.do_rollback)


def _statement_limited(run: Callable[..., Any], limit: Callable[..., float]) -> Callable[..., Any]:
    many = run.__name__ == "do_executemany"

    @functools.wraps(run)
    def limited(cursor: Any, statement: str, *arguments: Any, **named: Any) -> Any:
        context = named.get("context", arguments[-1] if arguments else None)
        connection = getattr(context, "root_connection", None)
        statements = 1 + len(arguments[0]) // _ROWS_PER_STATEMENT if many and arguments else 1
        call = functools.partial(run, cursor, statement, *arguments, **named)
        return _within(limit(connection, statements), call, connection)

    return limited


def _end_limited(run: Callable[..., Any], limit: Callable[..., float]) -> Callable[..., Any]:
    @functools.wraps(run)
    def limited(dbapi_connection: Any) -> Any:
        call = functools.partial(run, dbapi_connection)
        return _within(limit(dbapi_connection), call, dbapi_connection)

    return limited


def _within(seconds: float, call: Callable[[], Any], connection: Any) -> Any:
    """
    Call what waits inside SQLAlchemy's greenlet, as ``asyncio.timeout`` does for coroutines.

    Raises:
        TimeoutError: The time was over first.
    """
    task = asyncio.current_task()
    if not seconds or task is None:
        return call()
    is_over = False

    def end() -> None:
        nonlocal is_over
        is_over = True
        task.cancel()

    cancelling = task.cancelling()
    timer = task.get_loop().call_later(seconds, end)
    try:
        return call()
    except asyncio.CancelledError as error:
        if not is_over or task.uncancel() > cancelling:
            raise
        with contextlib.suppress(AttributeError, NotImplementedError):
            connection.info[_SILENT] = True
        raise TimeoutError(f"no answer from the server within {seconds:g} s") from error
    finally:
        timer.cancel()


def _attach_haste(engine: Engine) -> None:
    """Close a connection whose server does not answer without waiting for an answer to that."""

    @event.listens_for(engine, "close")
    def hasten(connection: Any, record: Any) -> None:
        if record.info.pop(_SILENT, False):
            # Outside of SQLAlchemy's greenlet nothing can be waited for, and a driver that is in
            # the middle of its goodbye is ended by this.
            asyncio.get_running_loop().call_soon(engine.dialect.do_terminate, connection)


def _only_if_connected(commit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(commit)
    def conditional(dbapi_connection: Any) -> None:
        if dbapi_connection.driver_connection is None:
            # Some adapters take it for a success when there is no transaction to commit any more.
            raise ConnectionError("the connection was closed while it was in use")
        commit(dbapi_connection)

    return conditional


def _unless_closed(roll_back: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(roll_back)
    def conditional(dbapi_connection: Any) -> None:
        if dbapi_connection.driver_connection is not None:  # else its transaction went with it
            roll_back(dbapi_connection)

    return conditional
