"""
The engine of one connector, with what moorage adds to every engine, whoever created it.

Added are: one deadline around a whole connection attempt and around each answer, errors that are
ours and SQLAlchemy's at once, and a check of connections that have been idle. All of it is
attached to the engine that the connector returned, so that an override of ``create_engine`` cannot
lose it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event, util
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolResetState

from moorage.answers import Answers, limit_answers
from moorage.connector import DBConnector, TransactionLimits
from moorage.deadline import awaiting, within
from moorage.errors import (
    CommitOutcomeUnknownError,
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DataError,
    IdleInTransactionTimeoutError,
    LockTimeoutError,
    MoorageError,
    StatementTimeoutError,
    blend,
)
from moorage.notes import (
    DRIVER_CONNECTION,
    LIMITS,
    READS_ONLY,
    RESTS,
    forget_failure,
    notes_of,
    take_notes,
    writes,
)
from moorage.pool import ConnectGate, LoopPool, attach_liveness
from moorage.statements import watch_statements

__all__ = [
    "build_engine",
    "connector_of",
    "connector_of_dialect",
    "driver_at_work",
    "limit_transaction",
    "own_resets",
    "unwanted_connections_closed",
]

# Execution option by which any listener, or a unit of work that was given a stranger's
# sessionmaker, finds the connector of an engine. Derived engines inherit it.
_CONNECTOR_OPTION = "moorage_connector"
_ANSWERS_OPTION = "moorage_answers"

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
    _connectors[sync_engine.dialect] = connector
    _attach_connect_step(sync_engine, connector)
    _attach_error_classes(sync_engine, connector)
    answers = limit_answers(sync_engine, connector)
    sync_engine.update_execution_options(**{_ANSWERS_OPTION: answers})
    _attach_levels(sync_engine, connector, answers)
    _attach_reset(sync_engine, connector, answers)
    if isinstance(sync_engine.pool, LoopPool):
        sync_engine.pool.translate = functools.partial(_translate_checkout, connector, sync_engine)
    kind = type(connector)
    attach_liveness(
        sync_engine,
        connector.settings,
        is_closed=None if kind.is_closed is DBConnector.is_closed else connector.is_closed,
        ping=None if kind.ping is DBConnector.ping else connector.ping,
    )
    take_notes(sync_engine)
    watch_statements(sync_engine, answers, keeps_time=_ends_idle_transactions(connector))
    _own_resets[sync_engine.dialect] = len(sync_engine.pool.dispatch.reset)
    return engine


_own_resets: WeakKeyDictionary[Dialect, int] = WeakKeyDictionary()


def own_resets(engine: Engine) -> int:
    """Return how many that listen to returning connections are ours or the connector's."""
    return _own_resets.get(engine.dialect, 0)


def connector_of(engine: Engine | Connection) -> DBConnector | None:
    """Return the connector that an engine, or one derived from it, was built for."""
    found: DBConnector | None = engine.get_execution_options().get(_CONNECTOR_OPTION)
    return found


# What is compiled sees the dialect, and no engine.
_connectors: WeakKeyDictionary[Dialect, DBConnector] = WeakKeyDictionary()


def connector_of_dialect(dialect: Dialect) -> DBConnector | None:
    """Return the connector of the engine that a dialect belongs to."""
    return _connectors.get(dialect)


def _attach_connect_step(engine: Engine, connector: DBConnector) -> None:
    deadline = connector.settings.connect_timeout_seconds
    gate = ConnectGate(connector.settings.pool_connects_at_once)
    set_level = engine.dialect.set_isolation_level

    async def open_connection(
        dialect: Dialect, record: Any, cargs: list[Any], cparams: dict[str, Any]
    ) -> Any:
        cparams = _connect_args(connector, record, cparams)
        try:
            async with asyncio.timeout(deadline), gate.passing():
                connection = await util.greenlet_spawn(dialect.connect, *cargs, **cparams)
                try:
                    await _prepare(connector, dialect, connection, record, set_level)
                except BaseException:
                    await _abandon(dialect, connection)
                    raise
        except MoorageError as error:
            if isinstance(error, DatabaseError):
                raise blend(error, _as_sqlalchemy(error, dialect, type(error))) from error.__cause__
            raise
        except Exception as error:
            translated = _translate(connector, error, dialect)
            if translated is None:
                raise
            raise translated from error
        return connection

    unwanted = _unwanted[engine] = set()

    async def open_in_own_task(dialect: Dialect, record: Any, cargs: Any, cparams: Any) -> Any:
        task = asyncio.create_task(open_connection(dialect, record, cargs, cparams))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Drivers do not bear to be cancelled in the middle of a handshake: sockets stay open
            # and futures complain. Nobody waits for it any more; it ends by itself, in time.
            closing = asyncio.create_task(_close_unwanted(dialect, task))
            unwanted.add(closing)
            closing.add_done_callback(unwanted.discard)
            raise
        return task.result()

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> Any:
        return util.await_only(open_in_own_task(dialect, record, cargs, cparams))


async def _prepare(
    connector: DBConnector,
    dialect: Dialect,
    connection: Any,
    record: Any,
    set_level: Callable[[Any, Any], None],
) -> None:
    driver_connection = dialect.get_driver_connection(connection)
    await connector.prepare_connection(driver_connection)
    if record is None:
        return
    record.info[DRIVER_CONNECTION] = driver_connection
    if READS_ONLY in record.record_info:
        await connector.make_read_only(driver_connection)
        await util.greenlet_spawn(set_level, connection, "AUTOCOMMIT")
        record.info[READS_ONLY] = type(connector).in_transaction is not DBConnector.in_transaction


def _connect_args(connector: DBConnector, record: Any, usual: dict[str, Any]) -> dict[str, Any]:
    """Return what a connection is opened with: of a read session, maybe somewhere else."""
    elsewhere = connector.settings.read_host is not None and record is not None
    if elsewhere and READS_ONLY in record.record_info:
        return {**usual, **connector.get_read_connect_args()}
    return usual


# Per engine: connections that are being made for tasks which were cancelled meanwhile.
_unwanted: WeakKeyDictionary[Engine, set[asyncio.Task[None]]] = WeakKeyDictionary()


async def _close_unwanted(dialect: Dialect, connecting: asyncio.Task[Any]) -> None:
    await asyncio.wait({connecting})  # it has a deadline of its own
    if not connecting.cancelled() and connecting.exception() is None:
        await _abandon(dialect, connecting.result())


async def unwanted_connections_closed(engine: Engine) -> None:
    """Return when no connection is being made any more for a task of this loop that is gone."""
    loop = asyncio.get_running_loop()
    if tasks := [task for task in _unwanted.get(engine, ()) if task.get_loop() is loop]:
        await asyncio.wait(tasks)


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
        is_drivers = isinstance(original, context.dialect.loaded_dbapi.Error)
        if context.statement is not None and context.execution_context is None and not is_drivers:
            return None  # a parameter could not be prepared: not a word to the driver yet
        if context.connection is not None and not context.is_disconnect:
            notes_of(context.connection).statement_failed = True
        # An empty statement tells the connector that this is not the connect step.
        translated = _translate(
            connector,
            original,
            context.dialect,
            statement=context.statement or "",
            theirs=context.sqlalchemy_exception,
            is_lost=context.is_disconnect,
        )
        if isinstance(translated, ConnectionLostError):
            if _commit_is_under_way(context):
                translated = _outcome_unknown(connector, translated)
            else:
                translated = _blame_idleness(connector, translated, context)
            # Not every way of losing a connection is one in the eyes of SQLAlchemy's dialects,
            # which would put the broken one back into the pool.
            context.is_disconnect = True
            translated.__dict__["connection_invalidated"] = True
        elif translated is not None:
            translated = _blame_unit_limit(translated, context)
        # Returned, not raised: the listeners of other libraries get to see the error as well.
        return translated


def _commit_is_under_way(context: ExceptionContext) -> bool:
    """Return whether the link broke behind a COMMIT, or a write that is its own transaction."""
    connection = context.connection
    if connection is None:
        return False
    if context.statement is None:
        return notes_of(connection).is_committing
    is_autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
    execution = context.execution_context
    return is_autocommit and execution is not None and writes(execution, context.statement)


def _outcome_unknown(connector: DBConnector, lost: DatabaseError) -> DatabaseError:
    diagnosis = connector.diagnose(CommitOutcomeUnknownError, str(lost.orig), lost.backend_code)
    return blend(diagnosis.to_error(lost.orig), lost)  # type: ignore[arg-type]  # it is blended


def _attach_levels(engine: Engine, connector: DBConnector, answers: Answers) -> None:
    """
    Limit and translate the setting of isolation levels, which some dialects ask the server for.

    They do so on the driver's connection, where nothing of SQLAlchemy's comes by.
    """
    dialect: Any = engine.dialect
    set_level = dialect.set_isolation_level

    def set_isolation_level(connection: Any, level: str) -> None:
        try:
            within(answers.usual, set_level, connection, level)
        except sa_exc.SQLAlchemyError:
            raise
        except Exception as error:
            translated = _translate(connector, error, dialect, statement="")
            if translated is None:
                raise
            if isinstance(translated, ConnectionLostError):
                # Nobody tells the pool, which will find it closed.
                (dialect.do_terminate if dialect.has_terminate else dialect.do_close)(connection)
            raise translated from error

    dialect.set_isolation_level = set_isolation_level


def _attach_reset(engine: Engine, connector: DBConnector, answers: Answers) -> None:
    """
    Roll back what is open when a connection returns to the pool, and only that.

    SQLAlchemy's own reset rolls back behind each session, though the session has just committed
    or rolled back; and it overlooks a transaction that was begun by SQL.
    """
    dialect = engine.dialect

    @event.listens_for(engine, "reset")
    def reset(connection: Any, record: Any, state: PoolResetState) -> None:
        if not state.asyncio_safe or state.terminate_only:
            return
        if record.dbapi_connection is None:
            return  # it was closed while it was in use
        info = record.info
        driver_connection = info.get(DRIVER_CONNECTION)
        if driver_connection is None:  # opened by a creator of the connector's own
            driver_connection = record.driver_connection
        is_open = connector.in_transaction(driver_connection)
        was_reset = state.transaction_was_reset
        if is_open is None:
            is_left = not was_reset and not info.get(RESTS)
        else:
            # What a driver knows comes with the server's answers, and an error may not tell it.
            is_left = is_open or forget_failure(info)
        if is_left:
            if not was_reset:
                answers.send_rollback(connection, info)
            if is_open is not None and connector.in_transaction(driver_connection):
                cursor = connection.cursor()
                try:
                    dialect.do_execute(cursor, "ROLLBACK", ())
                finally:
                    cursor.close()
        # Isolation levels are set back here, where a failure costs the connection alone. Later,
        # where SQLAlchemy does it, it would reach the user as it is, and cost room in the pool.
        while record.finalize_callback:
            record.finalize_callback.pop()(record.dbapi_connection)


@contextlib.asynccontextmanager
async def driver_at_work(
    connection: Connection, connector: DBConnector, rows: int
) -> AsyncIterator[None]:
    """
    Limit, and translate, what a driver does while it writes rows behind SQLAlchemy's back.

    The transaction counts as one that has written, and after an error as one that may be undone.
    """
    notes = notes_of(connection)
    notes.writes += 1
    answers: Answers = connection.engine.get_execution_options()[_ANSWERS_OPTION]
    try:
        async with awaiting(answers.seconds_for_rows(connection.info.get(LIMITS), rows)):
            yield
    except sa_exc.SQLAlchemyError:
        raise
    except Exception as error:
        translated = _translate(connector, error, connection.dialect, statement="")
        if translated is None:
            raise
        notes.statement_failed = True
        if isinstance(translated, ConnectionLostError):
            connection.invalidate(error)
            translated.__dict__["connection_invalidated"] = True
        raise translated from error


def limit_transaction(
    connection: Connection, connector: DBConnector, limits: TransactionLimits
) -> None:
    """Put a unit's limits on the transaction that was just opened on ``connection``."""
    connection.info[LIMITS] = limits
    connector.limit_transaction(connection, limits)


_LIMIT_OF: dict[type[DatabaseError], str] = {
    StatementTimeoutError: "statement_timeout_seconds",
    LockTimeoutError: "lock_timeout_seconds",
}


def _blame_unit_limit(error: DatabaseError, context: ExceptionContext) -> DatabaseError:
    """Name the limit of the unit of work, where it is that which was exceeded."""
    connection = context.connection
    if connection is None or connection.invalidated:
        return error
    limits = connection.info.get(LIMITS)
    for kind, name in _LIMIT_OF.items():
        seconds = getattr(limits, name, None)
        if isinstance(error, kind) and seconds is not None:
            what = "the statement ran" if kind is StatementTimeoutError else "a lock was waited for"
            error.args = (
                f"{what} for longer than {seconds:g} s ({name} of the unit of work)",
                *error.args[1:],
            )
    return error


def _ends_idle_transactions(connector: DBConnector) -> bool:
    limit = connector.settings.idle_in_transaction_timeout_seconds
    return connector.capabilities.ends_idle_transactions and limit > 0


def _blame_idleness(
    connector: DBConnector, lost: DatabaseError, context: ExceptionContext
) -> DatabaseError:
    """
    Name the time-out of idle transactions where it is the reason of a lost connection.

    The server says so before it closes the connection, to a driver that is not listening then;
    what the next statement finds is a closed connection and nothing more.
    """
    connection = context.connection
    if connection is None or not _ends_idle_transactions(connector):
        return lost
    limit = connector.settings.idle_in_transaction_timeout_seconds
    if not notes_of(connection).has_idled(limit, time.monotonic()):
        return lost
    diagnosis = connector.diagnose(IdleInTransactionTimeoutError, str(lost.orig), lost.backend_code)
    return blend(diagnosis.to_error(lost.orig), lost)  # type: ignore[arg-type]  # it is blended


def _translate(
    connector: DBConnector,
    error: BaseException,
    dialect: Dialect,
    *,
    statement: str | None = None,
    theirs: sa_exc.SQLAlchemyError | None = None,
    is_lost: bool = False,
) -> DatabaseError | None:
    """Return the error to raise; ``None`` for what is no failure of the database."""
    diagnosis = connector.classify_error(error, statement=statement)
    if diagnosis is None:
        diagnosis = DBConnector.classify_error(connector, error, statement=statement)
    if diagnosis is None:
        if not isinstance(error, dialect.loaded_dbapi.Error):
            return None
        kind = ConnectError if statement is None else DatabaseError
        # Where the connector does not know, the dialect may: it has to tell lost connections.
        diagnosis = connector.diagnose(ConnectionLostError if is_lost else kind, str(error))
    ours = diagnosis.to_error(error)
    return blend(ours, theirs or _as_sqlalchemy(error, dialect, type(ours)))


def _translate_checkout(
    connector: DBConnector, engine: Engine, error: Exception
) -> DatabaseError | None:
    """Return the error to raise for one that was raised behind the connect step; else ``None``."""
    return None if isinstance(error, MoorageError) else _translate(connector, error, engine.dialect)


def _as_sqlalchemy(
    error: BaseException, dialect: Dialect, kind: type[DatabaseError]
) -> sa_exc.SQLAlchemyError:
    """Return what SQLAlchemy would have raised; for what it lets through, what comes nearest."""
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
    if issubclass(kind, DataError):
        return sa_exc.DataError(None, None, error)
    return sa_exc.OperationalError(None, None, error)
