"""psycopg 3: the driver on libpq, an extra."""

from __future__ import annotations

import contextlib
import math
import re
import select
import ssl
from collections.abc import Iterator, Mapping, Sequence
from operator import length_hint
from typing import Any, ClassVar, Final, Literal

import psycopg
from psycopg import generators, pq, sql
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import (
    BulkLoad,
    ConnectionLostError,
    DatabaseSettings,
    DatabaseUnavailableError,
    DataError,
    InsecureConnectionError,
    StalePlanError,
    TLSState,
    effective_ssl_mode,
    make_ssl_context,
    release_descriptor,
)
from moorage_postgres.driver import Driver, Report
from moorage_postgres.options import PostgresOptions
from moorage_postgres.poolers import PoolerMode, set_statements

__all__ = ["PsycopgDriver"]

_IDLE: Final = pq.TransactionStatus.IDLE
_UNKNOWN: Final = pq.TransactionStatus.UNKNOWN
_LINE = re.compile(r"^COPY .*, line (\d+)")
_PROBES: Final = 3
_PROOFS: Final[Mapping[bytes | None, Literal["authority", "host name"]]] = {
    b"verify-ca": "authority",
    b"verify-full": "host name",
}
# The last words of a server that ended a connection, and then its end.
_MOST_READS: Final = 4

# While connecting, libpq hands on the server's sentence without its code. Here, and only here,
# words decide: they are those of a server that speaks English.
_SAID: Final[Mapping[str, str]] = {
    r"password authentication failed|no password supplied": "28P01",
    r"role .* does not exist|no pg_hba\.conf entry|is not permitted to log in"
    r"|authentication failed": "28000",
    r"database .* does not exist": "3D000",
    r"permission denied for database": "42501",
    r"too many clients|too many connections|connection slots are reserved": "53300",
    r"the database system is|not yet accepting connections|not accepting connections": "57P03",
}
# What libpq itself says of TLS that it did not get.
_INSECURE: Final = re.compile(
    r"does not support SSL|SSL was required|SSL error|certificate|sslmode|SSL connection"
)
_PREFIX: Final = re.compile(r".*\bfailed: +(?:FATAL: +)?")


class PsycopgDriver(Driver):
    """psycopg's asynchronous connections; a statement is one round trip, prepared or not."""

    name: ClassVar[str] = "psycopg"

    def engine_arguments(
        self,
        settings: DatabaseSettings,
        options: PostgresOptions,
        pooler: PoolerMode,
        parameters: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return arguments in libpq's words, so that none of its own variables has a say."""
        is_pooled = pooler == "transaction"
        arguments: dict[str, Any] = {
            "async_creator_fn": _connector(_pooled(parameters) if is_pooled else None),
            "application_name": settings.application_name,
            "client_encoding": "utf8",
            "gssencmode": "disable",
            # The deadline of the whole attempt is core's; this one is of each address.
            "connect_timeout": max(2, math.ceil(settings.connect_timeout_seconds)),
            "options": _options(parameters) if pooler == "direct" else "",
            **_keepalive(settings),
            **_tls(settings),
        }
        if is_pooled or not options.prepared_statements:
            arguments["prepare_threshold"] = None
        # The dialect would ask for a type of an extension behind the connect step.
        return {"connect_args": arguments, "use_native_hstore": False}

    def attach(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Let connections be ended without a word, and forget statements that became stale."""
        # psycopg closes without waiting for anybody, of which SQLAlchemy's dialect knows nothing.
        dialect: Any = engine.dialect
        dialect.has_terminate = True
        dialect.do_terminate = _terminate

        @event.listens_for(engine, "handle_error")
        def forget(context: ExceptionContext) -> None:
            # psycopg forgets with a ROLLBACK, and in autocommit there is none.
            connection = context.connection
            if connection is None or connection.invalidated:
                return
            if isinstance(context.original_exception, psycopg.Error) and _is_stale(
                context.original_exception
            ):
                driver_connection: Any = connection.connection.driver_connection
                driver_connection._prepared.clear()

    def named_statements(self, arguments: Mapping[str, Any]) -> str:
        """Return whether the threshold is there, behind which statements get a name."""
        return "" if arguments.get("prepare_threshold", 0) is None else "prepare_threshold"

    async def set_up(
        self, driver_connection: Any, settings: DatabaseSettings, options: PostgresOptions
    ) -> None:
        """Say how many statements may stay prepared, and that cursors end with transactions."""
        driver_connection.server_cursor_factory = _ServerCursor
        if options.prepared_statements:
            driver_connection.prepared_max = options.prepared_statements

    async def execute(self, driver_connection: Any, statement: str) -> None:
        """Run a statement in autocommit, or psycopg would begin a transaction."""
        usual = driver_connection.autocommit
        await driver_connection.set_autocommit(True)
        await driver_connection.execute(statement, prepare=False)
        await driver_connection.set_autocommit(usual)

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """Return what the server said; ``None`` for a connection that is closed."""
        status = driver_connection.pgconn.transaction_status
        return None if status == _UNKNOWN else status != _IDLE

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether the end of a connection has come; libpq sees it when it looks."""
        for _ in range(_MOST_READS):
            if driver_connection.closed or not _has_something(driver_connection.fileno()):
                break
            with contextlib.suppress(psycopg.Error):
                driver_connection.pgconn.consume_input()
                driver_connection.pgconn.is_busy()  # what was read is understood
        return bool(driver_connection.closed)

    def abandon(self, driver_connection: Any) -> None:
        """Let go of libpq's descriptor, without its Terminate message."""
        if not driver_connection.closed:
            release_descriptor(driver_connection.fileno())

    def log_in_plainly(self, arguments: dict[str, Any]) -> None:
        """Leave the parameters of the session out, and prepare nothing."""
        arguments.update(options="", prepare_threshold=None)

    def process_of(self, driver_connection: Any) -> int:
        """Return what libpq would send with a request to cancel."""
        return int(driver_connection.pgconn.backend_pid)

    def tls_of(self, driver_connection: Any) -> TLSState:
        """Return what libpq was asked for: it has connected, so that it was proved."""
        if not driver_connection.pgconn.ssl_in_use:
            return TLSState()
        mode = next(one.val for one in driver_connection.pgconn.info if one.keyword == b"sslmode")
        return TLSState("TLS", _PROOFS.get(mode, ""))

    def read_error(self, error: BaseException, *, connecting: bool) -> Report | None:
        """Read an error of psycopg."""
        if not isinstance(error, psycopg.Error):
            return None
        if error.sqlstate:
            told = error.diag
            return Report(
                # Without the server's DETAIL line, which quotes the values of the row.
                told.message_primary or str(error),
                error.sqlstate,
                kind=StalePlanError if _is_stale(error) else None,
                constraint=told.constraint_name,
                table=told.table_name,
                column=told.column_name,
                detail=told.message_detail or "",
            )
        if isinstance(error, psycopg.OperationalError):
            if connecting:
                return _read_refusal(str(error))
            return Report(str(error), kind=ConnectionLostError)
        return Report(str(error), kind=DataError) if isinstance(error, psycopg.DataError) else None

    async def copy_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Send rows by COPY, as text, which the server reads like the values of a statement."""
        fairy = await connection.get_raw_connection()
        driver_connection: Any = fairy.driver_connection
        parts = (load.table.schema, load.table.name)
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(*filter(None, parts)),
            sql.SQL(", ").join(sql.Identifier(column.name) for column in load.columns),
        )
        remaining = iter(rows)
        try:
            async with (
                driver_connection.cursor() as cursor,
                cursor.copy(statement) as copy,
            ):
                for row in remaining:
                    await copy.write_row(row)
        except Exception as error:
            load.failed_row = _failed_row(error, len(rows), length_hint(remaining))
            if isinstance(error, (psycopg.Error, OSError)):
                raise
            raise psycopg.DataError(f"invalid input for COPY: {error}") from error


class _ServerCursor(psycopg.AsyncServerCursor[Any]):
    """A cursor of the server, which ends with its transaction, also if nobody closed it."""

    def __del__(self, *_: object) -> None:
        """Say nothing: the task that was to close it may have been cancelled."""


def _terminate(adapted: Any) -> None:
    adapted.driver_connection.pgconn.finish()


def _tls(settings: DatabaseSettings) -> dict[str, str]:
    """Return libpq's words for TLS; its modes are those of the settings."""
    mode = effective_ssl_mode(settings)
    if settings.hosts[0].is_socket:
        return {"sslmode": "disable"}
    make_ssl_context(settings, mode)  # says which file cannot be read, where libpq says so later
    words: dict[str, str] = {"sslmode": mode}
    if settings.ssl_ca is not None and mode not in {"disable", "prefer"}:
        words["sslrootcert"] = str(settings.ssl_ca)
    elif mode.startswith("verify"):
        # Those of the system, from where Python takes them: the wheel's OpenSSL has none.
        words["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
    if settings.ssl_cert is not None:
        words["sslcert"] = str(settings.ssl_cert)
        words["sslkey"] = str(settings.ssl_key or settings.ssl_cert)
    return words


def _keepalive(settings: DatabaseSettings) -> dict[str, int]:
    idle = round(settings.keepalive_idle_seconds)
    if not idle:
        return {"keepalives": 0}
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": max(1, idle // _PROBES),
        "keepalives_count": _PROBES,
        "tcp_user_timeout": 2 * idle * 1000,
    }


def _options(parameters: Mapping[str, str]) -> str:
    """Return run-time parameters as a command line, whose words end with a blank."""
    escaped = {name: re.sub(r"([\\\s])", r"\\\1", value) for name, value in parameters.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def _connector(pooled: type[psycopg.AsyncConnection[Any]] | None) -> Any:
    """Return what opens a connection."""
    connection_class = pooled or psycopg.AsyncConnection

    async def connect(**arguments: Any) -> Any:
        try:
            return await connection_class.connect(**arguments)
        except psycopg.Error as error:
            told = type(error)(*error.args)
        # Outside of the except block: what was caught holds what was connected with, the password
        # included, and would travel along.
        raise told

    return connect


def _pooled(parameters: Mapping[str, str]) -> type[psycopg.AsyncConnection[Any]]:
    """
    Return the class of connections whose BEGIN sets ``parameters`` as well.

    Both travel in one message, so that it costs no round trip.
    """
    local = [statement.encode() for statement in set_statements(parameters, "LOCAL")]

    class PooledConnection(psycopg.AsyncConnection[Any]):
        """A connection through a pooler, of which one transaction is ours at a time."""

        def _start_query(self) -> Iterator[Any]:  # type: ignore[override]  # a generator of theirs
            if self.autocommit or self.pgconn.transaction_status != _IDLE:
                return
            begin = self._get_tx_start_command()
            if self._pipeline:
                for command in (begin, *local):
                    yield from self._exec_command(command)
                yield from self._pipeline._sync_gen()
                return
            self.pgconn.send_query(b";".join((begin, *local)))
            for result in (yield from generators.execute(self.pgconn)):
                if result.status == pq.ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result, encoding="utf-8")

    return PooledConnection


def _has_something(descriptor: int) -> bool:
    """Return whether something has come that nobody has read, be it the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _is_stale(error: psycopg.Error) -> bool:
    """Return whether a prepared statement does not fit the tables any more."""
    # The code is that of whatever is not there; the function that says it is the server's own.
    return error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"


def _read_refusal(text: str) -> Report:
    """Read why nobody was let in."""
    # One line for each address that was tried: what a server said counts more than silence.
    for words, state in _SAID.items():
        if found := re.search(f".*(?:{words}).*", text):
            return Report(_PREFIX.sub("", found[0]), state)
    if found := re.search(".*FATAL.*", text):
        return Report(_PREFIX.sub("", found[0]))
    reason = _PREFIX.sub("", text.partition("\n")[0])
    if "does not support SSL" in reason:
        reason = "it does not offer TLS"
    is_insecure = _INSECURE.search(text) is not None
    return Report(reason, kind=InsecureConnectionError if is_insecure else DatabaseUnavailableError)


def _failed_row(error: Exception, total: int, remaining: int) -> int | None:
    """Return the index of the row that the server names, or that psycopg could not write."""
    told = error.diag.context if isinstance(error, psycopg.Error) else None
    if found := _LINE.match(told or ""):
        return int(found[1]) - 1
    if getattr(error, "sqlstate", None) is None and remaining < total:
        return total - remaining - 1
    return None
