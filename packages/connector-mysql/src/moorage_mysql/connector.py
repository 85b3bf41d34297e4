"""MySQL and MariaDB on aiomysql: sessions that are strict, utf8mb4 and limited in time."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from moorage import (
    AccessMode,
    AuthenticationError,
    Capabilities,
    ConnectorOptions,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DBConnector,
    Diagnosis,
    LockTimeoutError,
    ReadOnlyError,
    SerializationError,
    URLParameter,
    effective_ssl_mode,
    enable_keepalive,
    make_ssl_context,
)
from moorage_mysql.encrypted import connect_encrypted
from moorage_mysql.options import MySQLOptions

__all__ = ["MySQLConnector"]

_DRIVER_NAME = "mysql+aiomysql"
_READ_ONLY = "moorage_mysql_read_only"

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
        isolation_levels=frozenset(
            {"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}
        ),
        read_only_transactions=True,
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
        connect = arguments["connect_args"] = {
            "charset": "utf8mb4",
            "connect_timeout": self.settings.connect_timeout_seconds,
        }
        if not self.settings.hosts[0].is_socket:
            mode = effective_ssl_mode(self.settings)
            connect["ssl"] = make_ssl_context(self.settings, mode)
            if mode not in {"disable", "prefer"}:
                connect["async_creator_fn"] = partial(
                    connect_encrypted, self.insecure("it does not offer TLS")
                )
        return arguments

    def create_engine(self) -> AsyncEngine:
        """Create the engine, whose read sessions begin READ ONLY."""
        engine = super().create_engine()
        event.listen(engine.sync_engine, "begin", _begin_read_only)
        return engine

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """Return what makes transactions READ ONLY."""
        return {_READ_ONLY: True} if access == "read only" else {}

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

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means by the server's or the client's error number."""
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if isinstance(error, OSError) or number is None:
            return super().classify_error(error, statement=statement)
        return self._diagnose(number, error, connecting=statement is None)

    def _session_variables(self) -> str:
        settings = self.settings
        # Whole seconds, at least one; there is no word for "no limit", a year is the largest value.
        lock = math.ceil(settings.lock_timeout_seconds) or 31536000
        seconds = settings.statement_timeout_seconds
        idle = math.ceil(settings.idle_in_transaction_timeout_seconds)
        # The comments are read as SQL by MariaDB (M!) and by MySQL from 8.0 on (!80000) only: the
        # two have other names for the same limit. One statement is one round trip.
        return (
            f"SET SESSION sql_mode='{self.options.sql_mode}', time_zone='+00:00',"
            f" innodb_lock_wait_timeout={lock}, lock_wait_timeout={lock}"
            f" /*M!100301 , max_statement_time={seconds:g}, idle_transaction_timeout={idle} */"
            f" /*!80000 , max_execution_time={round(seconds * 1000)} */"
        )

    def _diagnose(self, number: int, error: BaseException, *, connecting: bool) -> Diagnosis | None:
        settings = self.settings
        code, text = str(number), str(error.args[-1])
        match number:
            case 2002 | 2003 | 2005 | 2006 | 2013 if connecting:
                cause = error.__cause__
                if isinstance(cause, ssl.SSLError):
                    return self.insecure(cause.reason or str(cause))
                return self.unreachable(cause if isinstance(cause, OSError) else error)
            case 1040 | 1203 | 1053 if connecting:
                return Diagnosis(
                    DatabaseUnavailableError,
                    f"the server at {settings.host} takes no connection now: {text}",
                    "wait for it to start; if it has too many clients, lower"
                    f" {settings.variable('pool_size')} and {settings.variable('max_overflow')}",
                    code,
                )
            case 1044 | 1045 | 1698:
                return Diagnosis(
                    AuthenticationError,
                    f"the server at {settings.host} refused user {settings.user!r}"
                    f" ({settings.origin('user')}): {text}",
                    f"check {settings.variable('user')}, {settings.variable('password')} and the"
                    " grants of the user",
                    code,
                )
            case 1049:
                return Diagnosis(
                    DatabaseMissingError,
                    f"there is no database {settings.name!r} ({settings.origin('name')}) on"
                    f" {settings.host}",
                    f"create it (CREATE DATABASE {settings.name}), or correct"
                    f" {settings.variable('name')}",
                    code,
                )
            case 1020 | 1213:
                return Diagnosis(
                    SerializationError,
                    f"the transaction collided with another one and was undone: {text}",
                    "run the whole unit of work again",
                    code,
                )
            case 1205:
                return Diagnosis(
                    LockTimeoutError,
                    f"a lock was not free within {settings.lock_timeout_seconds:g} s"
                    f" ({settings.variable('lock_timeout_seconds')})",
                    "keep units of work short, and run the whole unit again",
                    code,
                )
            case 1290 | 1792 | 1836:
                return Diagnosis(
                    ReadOnlyError,
                    f"a write reached a session or a server that only reads: {text}",
                    "use database.session() or a unit of work for writing",
                    code,
                )
            case 1264 | 1265 | 1292 | 1366 | 1406:
                return Diagnosis(
                    DataError, f"a value does not fit: {text}", "correct the value", code
                )
        return None


def _begin_read_only(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ_ONLY):
        connection.exec_driver_sql("START TRANSACTION READ ONLY")
