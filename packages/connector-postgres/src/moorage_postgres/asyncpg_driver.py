"""asyncpg: the driver that is there without being asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from operator import length_hint
from typing import Any, ClassVar, Final

import asyncpg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import (
    BulkLoad,
    ConnectionLostError,
    DatabaseError,
    DatabaseSettings,
    DataError,
    InsecureConnectionError,
    StalePlanError,
    TLSState,
    effective_ssl_mode,
    enable_keepalive,
    make_ssl_context,
    release_descriptor,
)
from moorage_postgres.driver import Driver, Report
from moorage_postgres.executemany import make_executemany_cancellable
from moorage_postgres.options import PostgresOptions
from moorage_postgres.poolers import PoolerMode, set_statements

__all__ = ["AsyncpgDriver"]

_OURS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.exceptions.OutdatedSchemaCacheError)
_LINE = re.compile(r"^COPY .*, line (\d+)")
# Nothing is prepared that another process could take for its own.
_UNNAMED: Final[Mapping[str, Any]] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}


class AsyncpgDriver(Driver):
    """asyncpg, through SQLAlchemy's adapter, which prepares every statement."""

    name: ClassVar[str] = "asyncpg"

    def engine_arguments(
        self,
        settings: DatabaseSettings,
        options: PostgresOptions,
        pooler: PoolerMode,
        parameters: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return arguments; behind a pooler in transaction mode no statement is kept."""
        arguments: dict[str, Any] = {
            "timeout": settings.connect_timeout_seconds,
            "ssl": _ssl(settings),
            "server_settings": {"application_name": settings.application_name},
            # SQLAlchemy's adapter prepares; asyncpg's own cache serves what goes past it.
            "prepared_statement_cache_size": options.prepared_statements,
        }
        if pooler == "direct":
            arguments["server_settings"].update(parameters)
        elif pooler == "transaction":
            arguments.update(_UNNAMED, connection_class=_pooled(parameters))
        return {"connect_args": arguments}

    def attach(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Let bulk work be cancelled, and limit what SQLAlchemy asks behind the connect step."""
        make_executemany_cancellable(engine)
        dialect: Any = engine.dialect
        limited = partial(_within, settings.connect_timeout_seconds)
        for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
            # SQLAlchemy asks the server for the types of JSON there.
            setattr(dialect, name, partial(limited, getattr(dialect, name)))

    def named_statements(self, arguments: Mapping[str, Any]) -> str:
        """Return which of the three gives statements a name."""
        caches = ("statement_cache_size", "prepared_statement_cache_size")
        named = [name for name in caches if arguments.get(name) != 0]
        if arguments.get("prepared_statement_name_func", _any_name)() != "":
            named.append("prepared_statement_name_func")
        return ", ".join(named)

    async def set_up(
        self, driver_connection: Any, settings: DatabaseSettings, options: PostgresOptions
    ) -> None:
        """Switch TCP keepalive on, which asyncpg leaves off; it has no public way to its socket."""
        enable_keepalive(driver_connection._transport, settings.keepalive_idle_seconds)

    async def execute(self, driver_connection: Any, statement: str) -> None:
        """Run a statement by the simple protocol."""
        await driver_connection.execute(statement)

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """
        Return what the server said.

        Where none is open, SQLAlchemy's ROLLBACK sends nothing either; but it has to be called,
        since it clears what SQLAlchemy itself remembers.
        """
        return True if driver_connection.is_in_transaction() else None

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether asyncpg has seen the end of the connection."""
        return bool(driver_connection.is_closed())

    def abandon(self, driver_connection: Any) -> None:
        """Let go of the socket without a Terminate message."""
        release_descriptor(driver_connection._transport)
        # By this asyncpg knows a connection that is closed; its finalizer complains of others.
        driver_connection._aborted = True

    def log_in_plainly(self, arguments: dict[str, Any]) -> None:
        """Leave the parameters of the session out, and prepare nothing."""
        told = arguments.get("server_settings", {})
        plain = {name: told[name] for name in ("application_name",) if name in told}
        arguments.update(_UNNAMED, server_settings=plain)

    def process_of(self, driver_connection: Any) -> int:
        """Return what asyncpg would send with a request to cancel."""
        return int(driver_connection.get_server_pid())

    def tls_of(self, driver_connection: Any) -> TLSState:
        """Return what the transport says."""
        return TLSState.of(driver_connection._transport.get_extra_info("ssl_object"))

    def read_error(self, error: BaseException, *, connecting: bool) -> Report | None:
        """Read an error of asyncpg, or of SQLAlchemy's adapter around it."""
        if connecting and type(error) is ConnectionError:
            # The one error that asyncpg raises bare: the server answered "no" to TLS.
            return Report("it does not offer TLS", kind=InsecureConnectionError)
        driver: Any = error.__cause__ if isinstance(error.__cause__, _OURS) else error
        # Without the server's DETAIL line, which quotes the values of the row.
        reason = str(driver.args[0] if driver.args else driver)
        state = str(getattr(driver, "sqlstate", None) or "")
        if isinstance(driver, _STALE):
            return Report(reason, state, kind=StalePlanError)
        if state:
            return Report(
                reason,
                state,
                constraint=getattr(driver, "constraint_name", None),
                table=getattr(driver, "table_name", None),
                column=getattr(driver, "column_name", None),
                detail=getattr(driver, "detail", None) or "",
            )
        if isinstance(driver, asyncpg.DataError):
            return Report(reason, kind=DataError)  # it encodes values, and refuses by itself
        if isinstance(driver, asyncpg.InternalClientError) and not connecting:
            return Report(reason, kind=ConnectionLostError)
        if isinstance(driver, asyncpg.InterfaceError) and not connecting:
            # There is no code for "closed": a connection that is used after its link broke.
            is_lost = "closed" in reason
            return Report(reason, kind=ConnectionLostError if is_lost else DatabaseError)
        return None

    async def copy_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """
        Send rows by COPY, which asyncpg encodes.

        It sends them on its own, outside of what SQLAlchemy knows: without a statement before it
        there is no transaction yet, and every chunk would be committed by itself.
        """
        fairy = await connection.get_raw_connection()
        driver_connection: Any = fairy.driver_connection
        remaining = iter(rows)
        try:
            await driver_connection.copy_records_to_table(
                load.table.name,
                schema_name=load.table.schema,
                columns=[column.name for column in load.columns],
                records=remaining,
            )
        except Exception as error:
            load.failed_row = _failed_row(error, len(rows), length_hint(remaining))
            if not isinstance(error, (*_OURS, OSError)):
                # What encodes values for a statement says DataError; for COPY it lets anything out.
                refusal = asyncpg.DataError(f"invalid input for COPY: {error}")
                refusal.__cause__, error = error, refusal
            # SQLAlchemy's adapter alone knows which class of the DBAPI an error of asyncpg is.
            adapter: Any = fairy.dbapi_connection
            adapter._handle_exception(error)
            raise


def _ssl(settings: DatabaseSettings) -> Any:
    mode = effective_ssl_mode(settings)
    if mode == "disable" or settings.hosts[0].is_socket:
        return False
    if mode == "prefer":
        return "prefer"  # only by this word does asyncpg go on without TLS
    return make_ssl_context(settings, mode)


def _any_name() -> str | None:
    return None


def _failed_row(error: Exception, total: int, remaining: int) -> int | None:
    """Return the index of the row that the server names, or that asyncpg could not encode."""
    if found := _LINE.match(getattr(error, "context", None) or ""):
        return int(found[1]) - 1
    if getattr(error, "sqlstate", None) is None and remaining < total:
        return total - remaining - 1
    return None


async def _within(seconds: float, act: Callable[[Any], Awaitable[object]], connection: Any) -> None:
    try:
        async with asyncio.timeout(seconds):
            await act(connection)
    except asyncpg.InterfaceError as error:
        # The server went away between the login and this; the driver has no code for it.
        raise ConnectionResetError(str(error)) from error


def _pooled(parameters: Mapping[str, str]) -> type[Any]:
    """
    Return the class of connections whose BEGIN sets ``parameters`` as well.

    Both travel in one message, so that it costs no round trip.
    """
    tail = ";".join(set_statements(parameters, "LOCAL"))

    class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
        """A connection through a pooler, of which one transaction is ours at a time."""

        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
            if args or not query.startswith("BEGIN"):
                status: str = await super().execute(query, *args, timeout=timeout)
                return status
            try:
                return str(await super().execute(query.rstrip(";") + ";" + tail, timeout=timeout))
            except asyncpg.PostgresError:
                # BEGIN may have worked, and what followed did not. asyncpg would go on to believe
                # in a transaction that could not begin.
                if self.is_in_transaction():
                    await super().execute("ROLLBACK", timeout=timeout)
                self._top_xact = None
                raise

    return PooledConnection
