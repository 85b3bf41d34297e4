"""PostgreSQL on asyncpg: how to connect, with which limits, and what the server's errors mean."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Column, Connection, Dialect, Insert, event, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import DateTime

from moorage import (
    AccessMode,
    Admin,
    BulkLoad,
    Capabilities,
    ConnectorOptions,
    DatabaseSettings,
    DBConnector,
    Diagnosis,
    Identity,
    IdentityError,
    MigrationFinding,
    OnConflict,
    ServerFacts,
    SettingsError,
    TransactionLimits,
    URLParameter,
    effective_ssl_mode,
    enable_keepalive,
    make_ssl_context,
    release_descriptor,
)
from moorage_postgres import administration
from moorage_postgres.copy import can_copy, copy_rows
from moorage_postgres.executemany import make_executemany_cancellable
from moorage_postgres.identities import check_role, tell
from moorage_postgres.linting import lint_scripts
from moorage_postgres.options import PostgresOptions, parse_server_settings
from moorage_postgres.poolers import (
    POOL_SIZES,
    PoolerMode,
    attach_transaction_rules,
    connection_class,
    diagnose_refusal,
    pooler_of,
    refuse_lasting_parameters,
    set_statements,
)
from moorage_postgres.sqlstates import ERRORS, diagnose
from moorage_postgres.timestamps import CheckedDateTime

__all__ = ["PostgresConnector"]

_READ_COMMITTED = "read committed"
_READ_STATEMENTS = "moorage_postgres_read_statements"

logger: logging.Logger = logging.getLogger("moorage.postgres")


def _ssl_mode(text: str) -> str:
    modes = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    if text not in modes:
        raise ValueError(f"must be one of {', '.join(modes)}")
    return "prefer" if text == "allow" else text


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("must be a whole number of seconds")
    return float(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError("must be a number from 1 to 65535")
    return int(text)


def _pgbouncer(text: str) -> str:
    if text.lower() not in {"true", "false"}:
        raise ValueError("must be true or false")
    return "transaction" if text.lower() == "true" else "auto"


def _channel_binding(text: str) -> str:
    if text not in {"disable", "prefer"}:
        raise ValueError(
            "asks for channel binding, which asyncpg does not have; remove it and let"
            " sslmode=verify-full prove who the server is"
        )
    return text


class PostgresConnector(DBConnector):
    """PostgreSQL, over TCP or a Unix socket."""

    name = "postgres"
    contract = 1
    default_port: ClassVar[int | None] = 5432
    url_schemes: ClassVar[frozenset[str]] = frozenset({"postgresql"})
    options_model: ClassVar[type[ConnectorOptions]] = PostgresOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        tls=True,
        isolation_levels=frozenset({"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}),
        read_only_transactions=True,
        read_only_connections=True,
        ends_idle_transactions=True,
        transactional_ddl=True,
        transaction_limits=True,
        errors=ERRORS,
        deferrable_transactions=True,
        template_databases=True,
    )
    # libpq's own vocabulary, as hosting companies print it in their connection strings.
    url_parameters: ClassVar[Mapping[str, URLParameter]] = {
        "sslmode": URLParameter("ssl_mode", _ssl_mode),
        "ssl": URLParameter("ssl_mode", _ssl_mode),
        "sslrootcert": URLParameter("ssl_ca", Path),
        "sslcert": URLParameter("ssl_cert", Path),
        "sslkey": URLParameter("ssl_key", Path),
        "application_name": URLParameter("application_name"),
        "connect_timeout": URLParameter("connect_timeout_seconds", _seconds),
        "keepalives_idle": URLParameter("keepalive_idle_seconds", _seconds),
        "host": URLParameter("host"),
        "port": URLParameter("port", _port),
        "user": URLParameter("user"),
        "dbname": URLParameter("name"),
        "options": URLParameter("options.server_settings", parse_server_settings),
        "channel_binding": URLParameter("", _channel_binding),
        # What Prisma needs to be told, and connection strings made for it say.
        "pgbouncer": URLParameter("options.pooler", _pgbouncer),
    }
    reloads_api: ClassVar[bool] = False
    """Whether PostgREST is to be told of migrations."""
    options: PostgresOptions

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(settings)
        self.pooler: PoolerMode = self._find_pooler()
        self._fit_pooler()
        self._fit_identities()

    def get_url(self) -> URL:
        """Return the URL of the server, with asyncpg as driver whatever the settings' URL says."""
        place = self.settings.hosts[0]
        if place.is_socket:
            return self.build_url("postgresql+asyncpg", host=None, query={"host": place.host})
        return self.build_url("postgresql+asyncpg")

    def get_engine_args(self) -> dict[str, Any]:
        """Return the pool of the base, TLS, and limits that the server itself enforces."""
        arguments = super().get_engine_args()
        arguments["connect_args"] = {
            "timeout": self.settings.connect_timeout_seconds,
            "ssl": self._ssl(),
            "server_settings": {"application_name": self.settings.application_name},
            # SQLAlchemy's adapter prepares; asyncpg's own cache serves what goes past it.
            "prepared_statement_cache_size": self.options.prepared_statements,
        }
        if self.pooler == "direct":
            arguments["connect_args"]["server_settings"].update(self._server_settings())
        elif self.pooler == "transaction":
            arguments["connect_args"].update(
                statement_cache_size=0,
                prepared_statement_cache_size=0,
                prepared_statement_name_func=lambda: "",
                connection_class=connection_class(self._server_settings()),
            )
        return arguments

    def create_engine(self) -> AsyncEngine:
        """Create the engine, whose datetimes are checked and whose bulk work can be cancelled."""
        engine = super().create_engine()
        make_executemany_cancellable(engine.sync_engine)
        # An event of the dialect: those of connections are joined anew for each session.
        event.listen(engine.sync_engine, "do_execute", _begin_for_stream)
        if self.pooler == "transaction":
            attach_transaction_rules(engine.sync_engine, self.settings, self._pooler_variable)
        dialect: Any = engine.sync_engine.dialect
        for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
            # SQLAlchemy asks the server for the types of JSON behind the step of connecting.
            limited = partial(_within, self.settings.connect_timeout_seconds)
            setattr(dialect, name, partial(limited, getattr(dialect, name)))
        dialect.colspecs = {**dialect.colspecs, DateTime: CheckedDateTime}
        return engine

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """Return what makes a transaction READ ONLY; asyncpg says so in its BEGIN, for nothing."""
        match access:
            case "read write":
                return {}
            case "read statements":
                return {_READ_STATEMENTS: True}
        return {
            "postgresql_readonly": True,
            "postgresql_deferrable": access == "read only deferrable",
        }

    async def can_load(self, connection: AsyncConnection, load: BulkLoad) -> bool:
        """Take rows by COPY, but for types it has no encoder for, and row level security."""
        return await can_copy(connection, load)

    async def load_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Send the rows by COPY."""
        await copy_rows(connection, load, rows)

    def insert_on_conflict(
        self, load: BulkLoad, key: Sequence[Column[Any]], on_conflict: OnConflict
    ) -> Insert | None:
        """Return INSERT … ON CONFLICT, by the key alone: other errors stay errors."""
        statement = postgresql.insert(load.table)
        changed = {
            column.name: statement.excluded[column.name]
            for column in load.columns
            if column not in key
        }
        if on_conflict == "skip" or not changed:
            return statement.on_conflict_do_nothing(index_elements=key)
        return statement.on_conflict_do_update(index_elements=key, set_=changed)

    def lint_migrations(self, scripts: Mapping[str, str]) -> Sequence[MigrationFinding]:
        """Return what squawk says of scripts of SQL (extra ``lint``)."""
        return lint_scripts(scripts)

    def limit_transaction(self, connection: Connection, limits: TransactionLimits) -> None:
        """Set the server's own limits, which end with the transaction, in one round trip."""
        seconds = {
            "statement_timeout": limits.statement_timeout_seconds,
            "lock_timeout": limits.lock_timeout_seconds,
        }
        connection.execute(
            select(
                *(
                    func.set_config(name, _milliseconds(value), True)
                    for name, value in seconds.items()
                    if value is not None
                )
            )
        )

    async def has_written(self, connection: AsyncConnection) -> bool:
        """Return whether the transaction has an id, which it gets with its first change."""
        return bool(await connection.scalar(select(func.txid_current_if_assigned().is_not(None))))

    def get_uuid7_function(self, dialect: Dialect) -> str:
        """Return the server's function, which came with version 18."""
        version = getattr(dialect, "server_version_info", None) or (0,)
        return "uuidv7()" if version >= (18,) else ""

    async def prepare_connection(self, driver_connection: Any) -> None:
        """Switch TCP keepalives on, which asyncpg leaves off, and set what a pooler let not in."""
        # asyncpg has no public way to its socket.
        enable_keepalive(driver_connection._transport, self.settings.keepalive_idle_seconds)
        if self.pooler == "session":
            await driver_connection.execute(set_statements(self._server_settings(), "SESSION"))

    async def make_read_only(self, driver_connection: Any) -> None:
        """Make every transaction of the session READ ONLY, those of single statements included."""
        await driver_connection.execute("SET default_transaction_read_only = on")

    @property
    def reads_without_transaction(self) -> bool:
        """Whether statements see different data anyway, in one transaction or in two."""
        level = self.options.server_settings.get("default_transaction_isolation", _READ_COMMITTED)
        return level.strip("'\" ").lower() == _READ_COMMITTED

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """
        Return whether the server said behind its last answer that one is open.

        Where none is, SQLAlchemy's ROLLBACK sends nothing either; but it has to be called, since
        it clears what SQLAlchemy itself remembers.
        """
        return True if driver_connection.is_in_transaction() else None

    async def ping(self, driver_connection: Any) -> None:
        """Ask in one round trip, without a prepared statement; SQLAlchemy's ping takes three."""
        await driver_connection.execute("SELECT 1")

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether asyncpg has seen the end of the connection."""
        return bool(driver_connection.is_closed())

    def abandon(self, driver_connection: Any) -> None:
        """Let go of the socket without a Terminate message."""
        release_descriptor(driver_connection._transport)
        # By this asyncpg knows a connection that is closed; its finalizer complains of others.
        driver_connection._aborted = True

    def requires_identity(self) -> bool:
        """Return whether sessions that work on nobody's behalf are refused."""
        return self.options.require_identity

    def check_identity(self, identity: Identity | Admin) -> None:
        """Refuse a role that the settings do not list."""
        variable = self.option_variable("identity_roles")
        check_role(identity, self.options.identity_roles, variable)

    def bind_identity(self, connection: Connection, identity: Identity | Admin | None) -> None:
        """Switch the role, and tell the claims, for the transaction of ``connection``."""
        options = self.options
        tell(connection, identity, options.admin_role, options.role_statement_timeouts)
        if not self.in_transaction(connection.connection.driver_connection):
            raise IdentityError(
                "a session in autocommit cannot work on somebody's behalf: what is told to a"
                " transaction ends with each statement",
                hint="leave the isolation level AUTOCOMMIT out; read sessions take identity=",
            )

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means by its SQLSTATE."""
        if statement is None and type(error) is ConnectionError and self._ssl() != "prefer":
            # The one error that asyncpg raises bare: the server answered "no" to TLS. To
            # "prefer", only what is no PostgreSQL answers like this.
            return self.insecure("it does not offer TLS")
        refused = None
        if statement is None and self.pooler != "direct":
            refused = diagnose_refusal(self, error)
        return refused or diagnose(self, error, connecting=statement is None)

    async def database_exists(self) -> bool:
        """Return whether the database is there; asks in the maintenance database."""
        beside = self._past_the_pooler("looking for databases")
        return await administration.database_exists(beside, self.options.maintenance_database)

    async def create_database(self, *, template: str | None = None) -> None:
        """Create the database, as a copy of ``template`` if that is given."""
        beside = self._past_the_pooler("creating a database")
        await administration.create_database(beside, self.options.maintenance_database, template)

    async def drop_database(self) -> None:
        """Drop the database, and end the connections to it."""
        beside = self._past_the_pooler("dropping a database")
        await administration.drop_database(beside, self.options.maintenance_database)

    async def examine_server(self, engine: AsyncEngine) -> ServerFacts:
        """Ask the server what it is, after a look for a pooler that the settings do not know."""
        from moorage_postgres.examination import examine_server  # of use to few processes

        return await examine_server(self, engine)

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        """Take an advisory lock of the server's session; it needs no right and no table."""
        self._refuse_pooler("the lock for migrations")
        return await administration.try_lock_migrations(connection)

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        """Give the advisory lock back."""
        self._refuse_pooler("the lock for migrations")
        await administration.unlock_migrations(connection)

    @property
    def api_roles(self) -> tuple[str, ...]:
        """Roles that others work in, through an API or through us: a table is theirs by grants."""
        admin = self.options.admin_role
        return (*self.options.identity_roles, *([admin] if admin is not None else ()))

    def get_migration_options(
        self, given: Mapping[str, Any], connection: Connection | None
    ) -> Mapping[str, Any]:
        """Return what to leave alone, and bring the operations on row level security along."""
        from moorage_postgres.migrations import migration_options

        return migration_options(
            given,
            connection,
            foreign_schemas=self.options.foreign_schemas,
            version_schema=self.options.version_table_schema,
            api_roles=self.api_roles,
            reloads_api=self.reloads_api,
        )

    @property
    def _pooler_variable(self) -> str:
        return f"{self.option_variable('pooler')}={self.pooler}"

    def _find_pooler(self) -> PoolerMode:
        """Return what is between us and the server, and refuse what would read others' rows."""
        asked = self.options.pooler
        if self.settings.is_direct:
            return "direct"
        found, reason = pooler_of(self.settings, self.default_port or 0)
        if asked == "auto":
            if found != "direct":
                logger.info("pooler in %s mode: %s is %s", found, self.settings.host, reason)
            return found
        if found == "transaction" and asked != "transaction" and "Supabase" in reason:
            raise SettingsError(
                f"{self.option_variable('pooler')} says {asked}, and {self.settings.host}"
                f" ({self.settings.origin('host')}) is {reason}, in transaction mode: queries would"
                " get rows of other processes' queries",
                hint=f"leave {self.option_variable('pooler')} out, or give the address of another"
                " mode",
            )
        return asked

    def _fit_pooler(self) -> None:
        """Keep our own pool small behind a pooler, unless somebody chose its size."""
        if self.pooler == "direct":
            return
        size, overflow = POOL_SIZES[self.pooler]
        chosen = self.settings.model_fields_set
        sizes = {"pool_size": size, "max_overflow": overflow}
        fitting = {name: value for name, value in sizes.items() if name not in chosen}
        if fitting:
            self.settings: DatabaseSettings = self.settings.replaced(
                self._pooler_variable, **fitting
            )
        # A pooler goes on to hold connections, and what others are connected to cannot be copied.
        # Whether it makes them as new before it hands them on is up to it.
        can = dataclasses.replace(
            self.capabilities, template_databases=False, read_only_connections=False
        )
        self.capabilities = can  # type: ignore[misc]  # what the class can, but for these
        if self.pooler == "transaction":
            refuse_lasting_parameters(
                self.options.server_settings, self.option_variable("server_settings")
            )

    def _fit_identities(self) -> None:
        """Let read sessions be transactions where each has to be told for whom it works."""
        if not self.options.require_identity:
            return
        if not self.options.identity_roles:
            raise SettingsError(
                f"{self.option_variable('require_identity')} is set, and there is no role on whose"
                " behalf sessions may work",
                hint=f"list the roles in {self.option_variable('identity_roles')}",
            )
        can = dataclasses.replace(self.capabilities, read_only_connections=False)
        self.capabilities = can  # type: ignore[misc]  # as above

    def _refuse_pooler(self, what: str) -> None:
        if self.pooler == "transaction":
            raise SettingsError(
                f"{what} needs a session of the server for itself, and there is a pooler in"
                f" transaction mode in between ({self._pooler_variable})",
                hint=f"set {self.settings.variable('direct_url')} to the server's own address, or"
                " that of a pooler in session mode, and connect with settings.direct()",
            )

    def _past_the_pooler(self, what: str) -> PostgresConnector:
        """Return this connector, or one for the server itself where there is a pooler."""
        if self.pooler == "direct" or self.settings.direct_url is None:
            self._refuse_pooler(what)
            return self
        direct = self.settings.direct()
        return type(self)(direct.replaced(self.settings.origin("name"), name=self.settings.name))

    def _ssl(self) -> Any:
        mode = effective_ssl_mode(self.settings)
        if mode == "disable" or self.settings.hosts[0].is_socket:
            return False
        if mode == "prefer":
            return "prefer"  # only by this word does asyncpg go on without TLS
        return make_ssl_context(self.settings, mode)

    def _server_settings(self) -> dict[str, str]:
        """Return the run-time parameters of a session, or of each transaction behind a pooler."""
        settings = self.settings
        idle = round(settings.keepalive_idle_seconds)
        server = {
            "timezone": "UTC",
            "jit": "on" if self.options.jit else "off",
            "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
            "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.idle_in_transaction_timeout_seconds
            ),
        }
        if self.pooler == "direct":
            # The server's side of keepalive: it, too, must notice that a client is gone.
            server |= {
                "tcp_keepalives_idle": str(idle),
                "tcp_keepalives_interval": str(idle // 3),
                "tcp_keepalives_count": "3",
            }
        if self.options.search_path is not None:
            server["search_path"] = self.options.search_path
        return {**server, **self.options.server_settings}


async def _within(seconds: float, act: Callable[[Any], Awaitable[object]], connection: Any) -> None:
    from asyncpg import InterfaceError

    try:
        async with asyncio.timeout(seconds):
            await act(connection)
    except InterfaceError as error:
        # The server went away between the login and this; the driver has no code for it.
        raise ConnectionResetError(str(error)) from error


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _begin_for_stream(cursor: object, statement: str, parameters: object, context: Any) -> None:
    """Open a transaction in a read session whose rows are fetched piece by piece, and need one."""
    options = context.execution_options
    if not options.get("stream_results") or not options.get(_READ_STATEMENTS):
        return
    fairy: Any = context.root_connection.connection
    if not fairy.driver_connection.is_in_transaction():
        # The pool ends it, when the connection comes back.
        begin = fairy.cursor()
        begin.execute("BEGIN")
        begin.close()
