"""
The engine of one connector, with what moorage adds to every engine, whoever created it.

Added are: one deadline around a whole connection attempt, errors that are ours and SQLAlchemy's
at once, and a check of connections that have been idle. Listeners are attached to the engine
that the connector returned, so that an override of ``create_engine`` cannot lose them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from sqlalchemy import Engine, event, util
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from moorage.connector import DBConnector
from moorage.errors import DatabaseError, MoorageError, blend

__all__ = ["build_engine", "connector_of"]

# Execution option by which any listener, or a unit of work that was given a stranger's
# sessionmaker, finds the connector of an engine. Derived engines inherit it.
_CONNECTOR_OPTION = "moorage_connector"
_IDLE_SINCE = "moorage_idle_since"
# Closing a connection that was never handed out must not add much to a deadline that is over.
_ABANDON_SECONDS = 2.0


def build_engine(connector: DBConnector) -> AsyncEngine:
    """
    Return a new engine for a connector; opens no connection.

    Raises:
        ConnectorImportError: The driver is not installed.
    """
    engine = connector.create_engine()
    sync_engine = engine.sync_engine
    sync_engine.update_execution_options(**{_CONNECTOR_OPTION: connector})
    _attach_connect_step(sync_engine, connector)
    _attach_error_classes(sync_engine, connector)
    if connector.settings.pool_pre_ping == "idle":
        _attach_idle_ping(sync_engine, connector)
    return engine


def connector_of(engine: Engine) -> DBConnector | None:
    """Return the connector that an engine, or one derived from it, was built for."""
    found: DBConnector | None = engine.get_execution_options().get(_CONNECTOR_OPTION)
    return found


def _attach_connect_step(engine: Engine, connector: DBConnector) -> None:
    deadline = connector.settings.connect_timeout_seconds

    async def open_connection(dialect: Dialect, cargs: list[Any], cparams: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(deadline):
                connection = await util.greenlet_spawn(dialect.connect, *cargs, **cparams)
                try:
                    await connector.prepare_connection(dialect.get_driver_connection(connection))
                except BaseException:
                    await _abandon(dialect, connection)
                    raise
        except MoorageError as error:
            if isinstance(error, DatabaseError):
                raise blend(error, _as_sqlalchemy(error, dialect)) from error.__cause__
            raise
        except Exception as error:
            diagnosis = connector.classify_error(error)
            if diagnosis is None:
                raise
            raise blend(diagnosis.to_error(error), _as_sqlalchemy(error, dialect)) from error
        return connection

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, record: object, cargs: list[Any], cparams: dict[str, Any]) -> Any:
        return util.await_only(open_connection(dialect, cargs, cparams))


async def _abandon(dialect: Dialect, connection: Any) -> None:
    """Close a connection that failed before anybody used it; its failure must stay the news."""
    close = dialect.do_terminate if dialect.has_terminate else dialect.do_close
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_ABANDON_SECONDS):
            await util.greenlet_spawn(close, connection)


def _attach_error_classes(engine: Engine, connector: DBConnector) -> None:
    @event.listens_for(engine, "handle_error")
    def classify(context: ExceptionContext) -> DatabaseError | None:
        original = context.original_exception
        if isinstance(original, MoorageError):
            # Raised by a type or a listener of ours while the statement was prepared; SQLAlchemy
            # may have wrapped it.
            wrapped = context.sqlalchemy_exception
            if isinstance(original, DatabaseError) and wrapped is not None:
                return blend(original, wrapped)
            return None
        # An empty statement tells the connector that this is not the connect step.
        diagnosis = connector.classify_error(original, statement=context.statement or "")
        if diagnosis is None:
            return None
        theirs = context.sqlalchemy_exception or _as_sqlalchemy(original, context.dialect)
        # Returned, not raised: the listeners of other libraries get to see the error as well.
        return blend(diagnosis.to_error(original), theirs)


def _as_sqlalchemy(error: BaseException, dialect: Dialect) -> sa_exc.SQLAlchemyError:
    """Return what SQLAlchemy would have raised; for a raw OSError, the class it stands beside."""
    if isinstance(error, sa_exc.SQLAlchemyError):
        return error
    if isinstance(error, dialect.loaded_dbapi.Error):
        return sa_exc.DBAPIError.instance(
            None,
            None,
            error,
            dialect.loaded_dbapi.Error,
            hide_parameters=True,
            dialect=dialect,
        )
    return sa_exc.OperationalError(None, None, error)


def _attach_idle_ping(engine: Engine, connector: DBConnector) -> None:
    """
    Ping a connection at checkout if it idled for long, and replace it when it is dead.

    SQLAlchemy's own pre-ping asks before every use, which on asyncpg is three round trips of six
    for a one-row read. Connections die while idle (time-outs of proxies, restarts), not between
    two uses in a row.
    """
    idle_limit = connector.settings.pool_ping_idle_seconds
    deadline = connector.settings.connect_timeout_seconds

    async def ping(connection: Any) -> None:
        async with asyncio.timeout(deadline):
            await util.greenlet_spawn(engine.dialect.do_ping, connection)

    @event.listens_for(engine, "checkin")
    def remember(connection: object, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, proxy: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None or time.monotonic() - idle_since < idle_limit:
            return
        try:
            util.await_only(ping(connection))
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            # The pool's own word for "drop it and open another one".
            raise sa_exc.DisconnectionError("the connection died while idle") from error
