"""MySQL and MariaDB on aiomysql: sessions that are strict, utf8mb4 and limited in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Column, Connection, Engine, Insert, event
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolResetState

from moorage import (
    AccessMode,
    BulkLoad,
    Capabilities,
    ConnectorOptions,
    DBConnector,
    Diagnosis,
    OnConflict,
    ServerFacts,
    TransactionLimits,
    URLParameter,
    effective_ssl_mode,
    enable_keepalive,
    make_ssl_context,
    release_descriptor,
)
from moorage_mysql import administration, examination
from moorage_mysql.driver_connection import connect
from moorage_mysql.errnos import ERRORS, diagnose
from moorage_mysql.options import MySQLOptions
from moorage_mysql.undone import refuse_undone_transactions

__all__ = ["MySQLConnector"]

_DRIVER_NAME = "mysql+aiomysql"
_READ_ONLY = "moorage_mysql_read_only"
# Key in `Connection.info`: the limits of the session are not those of the settings.
_LIMITED = "moorage_mysql_limited"

_SSL_MODES = {
    "disabled": "disable",
    "preferred": "prefer",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_identity": "verify-full",
    "true": "require",
    "false": "disable",
}


def _ssl_mode(text: str) -> str:
    word = text.lower()
    if word.replace("_", "-") in {"disable", "prefer", "require", "verify-ca", "verify-full"}:
        return word.replace("_", "-")
    if word not in _SSL_MODES:
        raise ValueError(f"must be one of {', '.join(_SSL_MODES)}")
    return _SSL_MODES[word]


def _charset(text: str) -> str:
    if text.lower() != "utf8mb4":
        raise ValueError("must be utf8mb4, the only character set that holds all of Unicode")
    return text


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("must be a whole number of seconds")
    return float(text)


class MySQLConnector(DBConnector):
    """MySQL or MariaDB, over TCP or a Unix socket."""

    name = "mysql"
    contract = 1
    default_port: ClassVar[int | None] = 3306
    url_schemes: ClassVar[frozenset[str]] = frozenset({"mariadb"})
    options_model: ClassVar[type[ConnectorOptions]] = MySQLOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        tls=True,
        isolation_levels=frozenset(
            {"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}
        ),
        read_only_transactions=True,
        read_only_connections=True,
        ends_idle_transactions=True,
        transaction_limits=True,
        errors=ERRORS,
    )
    # The words of the mysql client, of its configuration files and of hosting companies.
    url_parameters: ClassVar[Mapping[str, URLParameter]] = {
        "ssl-mode": URLParameter("ssl_mode", _ssl_mode),
        "ssl_mode": URLParameter("ssl_mode", _ssl_mode),
        "sslmode": URLParameter("ssl_mode", _ssl_mode),
        "ssl": URLParameter("ssl_mode", _ssl_mode),
        "ssl-ca": URLParameter("ssl_ca", Path),
        "ssl_ca": URLParameter("ssl_ca", Path),
        "ssl-cert": URLParameter("ssl_cert", Path),
        "ssl_cert": URLParameter("ssl_cert", Path),
        "ssl-key": URLParameter("ssl_key", Path),
        "ssl_key": URLParameter("ssl_key", Path),
        "unix_socket": URLParameter("host"),
        "connect_timeout": URLParameter("connect_timeout_seconds", _seconds),
        "charset": URLParameter("", _charset),
    }
    options: MySQLOptions

    def get_url(self) -> URL:
        """Return the URL of the server, with aiomysql as driver whatever the settings' URL says."""
        overrides: dict[str, Any] = {}
        place = self.settings.hosts[0]
        if place.is_socket:
            overrides.update(host=None, query={"unix_socket": place.host})
        if self.settings.password is not None:
            # The driver encodes the password as Latin-1 where the server expects UTF-8; spelled
            # like this, the bytes on the wire are the right ones.
            secret = self.settings.password.get_secret_value()
            overrides["password"] = secret.encode("utf-8").decode("latin-1")
        return self.build_url(_DRIVER_NAME, **overrides)

    def get_engine_args(self) -> dict[str, Any]:
        """Return the pool of the base, utf8mb4, and TLS that is refused rather than skipped."""
        arguments = super().get_engine_args()
        options = arguments["connect_args"] = {
            "charset": "utf8mb4",
            "connect_timeout": self.settings.connect_timeout_seconds,
        }
        # Read sessions are in autocommit, and have nothing to roll back.
        arguments["skip_autocommit_rollback"] = True
        refusal = None
        if not self.settings.hosts[0].is_socket:
            mode = effective_ssl_mode(self.settings)
            options["ssl"] = make_ssl_context(self.settings, mode)
            if mode not in {"disable", "prefer"}:
                refusal = self.insecure("it does not offer TLS")
        options["async_creator_fn"] = partial(connect, refusal)
        return arguments

    def create_engine(self) -> AsyncEngine:
        """Create the engine, whose read sessions begin READ ONLY."""
        engine = super().create_engine()
        _attach_read_only(engine.sync_engine)
        restore = partial(self._restore_limits, engine.dialect)
        event.listen(engine.sync_engine, "reset", restore)
        refuse_undone_transactions(engine.sync_engine)
        return engine

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """Return what makes transactions READ ONLY."""
        return {_READ_ONLY: True} if access == "read only" else {}

    async def can_load(self, connection: AsyncConnection, load: BulkLoad) -> bool:
        """Take rows for any columns."""
        return True

    async def load_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """
        Hand the rows to the driver as they are, which makes INSERTs of about a megabyte of them.

        LOAD DATA LOCAL would be faster and wrong: it turns rows that the server refuses into
        warnings, and lets the server ask for any file of this machine.
        """
        statement = load.as_insert(connection.dialect, "%s")
        await connection.exec_driver_sql(statement, list(map(tuple, rows)))

    def insert_on_conflict(
        self, load: BulkLoad, key: Sequence[Column[Any]], on_conflict: OnConflict
    ) -> Insert | None:
        """Return INSERT … ON DUPLICATE KEY, which any unique key sets off."""
        statement = mysql.insert(load.table)
        changed = {
            column.name: statement.inserted[column.name]
            for column in load.columns
            if column not in key
        }
        if on_conflict == "skip" or not changed:
            return statement.on_duplicate_key_update({key[0].name: key[0]})
        return statement.on_duplicate_key_update(changed)

    def limit_transaction(self, connection: Connection, limits: TransactionLimits) -> None:
        """Set the limits of the server's session, which are set back with the pool's reset."""
        settings = self.settings
        statement, lock = limits.statement_timeout_seconds, limits.lock_timeout_seconds
        connection.info[_LIMITED] = True
        words = _limits(
            settings.statement_timeout_seconds if statement is None else statement,
            settings.lock_timeout_seconds if lock is None else lock,
        )
        connection.exec_driver_sql(f"SET SESSION {words}")

    async def prepare_connection(self, driver_connection: Any) -> None:
        """Make the session strict, limited in time, in UTC, and READ COMMITTED."""
        # aiomysql has no public way to its transport.
        transport = driver_connection._writer.transport
        enable_keepalive(transport, self.settings.keepalive_idle_seconds)
        async with driver_connection.cursor() as cursor:
            await cursor.execute(self._session_variables())
            await cursor.execute(
                f"SET SESSION TRANSACTION ISOLATION LEVEL {self.options.isolation_level}"
            )
        driver_connection.is_ready = True

    async def make_read_only(self, driver_connection: Any) -> None:
        """Make every transaction of the session READ ONLY, those of single statements included."""
        async with driver_connection.cursor() as cursor:
            await cursor.execute("SET SESSION TRANSACTION READ ONLY")

    @property
    def reads_without_transaction(self) -> bool:
        """Whether statements see different data anyway, in one transaction or in two."""
        return bool(self.options.isolation_level == "READ COMMITTED")

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """Return what the server said with its last answer, if that told of it."""
        is_open: bool | None = driver_connection.in_transaction()
        return is_open

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether the driver has closed the connection, or seen its end."""
        reader = driver_connection._reader
        return reader is None or bool(reader.at_eof()) or reader.exception() is not None

    def abandon(self, driver_connection: Any) -> None:
        """Let go of the socket without a QUIT."""
        writer = driver_connection._writer
        release_descriptor(None if writer is None else writer.transport)

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means by the server's or the client's error number."""
        return diagnose(self, error, connecting=statement is None)

    async def database_exists(self) -> bool:
        """Return whether the database is there, and this user may know it."""
        return await administration.database_exists(self)

    async def create_database(self, *, template: str | None = None) -> None:
        """Create the database; the server has no copies, so that none are declared."""
        if template is not None:
            raise NotImplementedError(f"connector {self.name!r} does not copy databases")
        await administration.create_database(self)

    async def drop_database(self) -> None:
        """Drop the database; waits for open transactions on it, to the limit for locks."""
        await administration.drop_database(self)

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        """Take a named lock of the server's session; it needs no right and no table."""
        return await administration.try_lock_migrations(self, connection)

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        """Give the named lock back."""
        await administration.unlock_migrations(self, connection)

    async def examine_server(self, engine: AsyncEngine) -> ServerFacts:
        """Ask the server what it is, and whether all tables know transactions."""
        return await examination.examine_server(self, engine)

    def _session_variables(self) -> str:
        settings = self.settings
        limits = _limits(settings.statement_timeout_seconds, settings.lock_timeout_seconds)
        idle = math.ceil(settings.idle_in_transaction_timeout_seconds)
        # The comments are read as SQL by MariaDB (M!) and by MySQL from 8.0 on (!80000) only: the
        # two have other names for the same limit. One statement is one round trip.
        return (
            f"SET SESSION sql_mode='{self.options.sql_mode}', time_zone='+00:00', {limits}"
            f" /*M!100301 , idle_transaction_timeout={idle} */"
        )

    def _restore_limits(
        self, dialect: Any, connection: Any, record: Any, state: PoolResetState
    ) -> None:
        if record.info.pop(_LIMITED, False) and not state.terminate_only:
            settings = self.settings
            limits = _limits(settings.statement_timeout_seconds, settings.lock_timeout_seconds)
            cursor = connection.cursor()
            try:
                # By the dialect, which waits for no answer for ever.
                dialect.do_execute(cursor, f"SET SESSION {limits}", ())
            finally:
                cursor.close()


def _limits(statement_seconds: float, lock_seconds: float) -> str:
    # Whole seconds, at least one; there is no word for "no limit", a year is the largest value.
    lock = math.ceil(lock_seconds) or 31536000
    return (
        f"innodb_lock_wait_timeout={lock}, lock_wait_timeout={lock}"
        f" /*M!100301 , max_statement_time={statement_seconds:g} */"
        f" /*!80000 , max_execution_time={round(statement_seconds * 1000)} */"
    )


def _attach_read_only(engine: Engine) -> None:
    """Listen for BEGIN where transactions are to be READ ONLY, so that no other pays for it."""
    dialect: Any = engine.dialect
    names = ("set_connection_execution_options", "set_engine_execution_options")
    for name, set_options in [(name, getattr(dialect, name)) for name in names]:
        setattr(dialect, name, partial(_set_options, set_options))


def _set_options(
    set_options: Callable[..., None], target: Connection | Engine, options: Mapping[str, Any]
) -> None:
    if options.get(_READ_ONLY):
        event.listen(target, "begin", _begin_read_only)
    set_options(target, options)


def _begin_read_only(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ_ONLY):
        connection.exec_driver_sql("START TRANSACTION READ ONLY")
