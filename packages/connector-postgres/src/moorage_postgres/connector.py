"""PostgreSQL: how to connect, with which limits, and what the server's errors mean."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Column, Connection, Dialect, Insert, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from moorage import (
    AccessMode,
    Admin,
    BulkLoad,
    Capabilities,
    ConnectorOptions,
    DatabaseSettings,
    DatabaseUnavailableError,
    DBConnector,
    Diagnosis,
    Identity,
    IdentityError,
    InsecureConnectionError,
    MigrationFinding,
    OnConflict,
    ServerFacts,
    SettingsError,
    TransactionLimits,
    URLParameter,
    effective_ssl_mode,
)
from moorage_postgres import administration
from moorage_postgres.copy import can_copy
from moorage_postgres.driver import Driver, load_driver
from moorage_postgres.identities import check_role, tell
from moorage_postgres.linting import lint_scripts
from moorage_postgres.options import PostgresOptions, parse_server_settings
from moorage_postgres.poolers import (
    POOL_SIZES,
    PoolerMode,
    attach_transaction_rules,
    diagnose_refusal,
    pooler_of,
    refuse_lasting_parameters,
    set_statements,
)
from moorage_postgres.sqlstates import ERRORS, diagnose
from moorage_postgres.timestamps import check_datetimes

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
            "asks for channel binding, which not every driver has; remove it and let"
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
        self.driver: Driver = load_driver(self.options.driver, self.option_variable("driver"))
        self.pooler: PoolerMode = self._find_pooler()
        self._fit_pooler()
        self._fit_identities()

    def get_url(self) -> URL:
        """Return the URL of the server, with the chosen driver whatever the settings' URL says."""
        name = f"postgresql+{self.driver.name}"
        place = self.settings.hosts[0]
        if place.is_socket:
            return self.build_url(name, host=None, query={"host": place.host})
        return self.build_url(name)

    def get_engine_args(self) -> dict[str, Any]:
        """Return the pool of the base, TLS, and limits that the server itself enforces."""
        return {
            **super().get_engine_args(),
            **self.driver.engine_arguments(
                self.settings, self.options, self.pooler, self._server_settings()
            ),
        }

    def create_engine(self) -> AsyncEngine:
        """Create the engine, whose datetimes are checked and whose bulk work can be cancelled."""
        engine = super().create_engine()
        self.driver.attach(engine.sync_engine, self.settings)
        _begin_for_streams(engine.dialect, self.driver.in_transaction)
        if self.pooler == "transaction":
            attach_transaction_rules(
                engine.sync_engine,
                self.settings,
                self._pooler_variable,
                self.driver.named_statements,
            )
        check_datetimes(engine.dialect)
        return engine

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """Return what makes a transaction READ ONLY; drivers say so in their BEGIN, for nothing."""
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
        await self.driver.copy_rows(connection, load, rows)

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
        """Set up the driver's side, and set what a pooler let not in."""
        await self.driver.set_up(driver_connection, self.settings, self.options)
        if self.pooler == "session":
            statements = set_statements(self._server_settings(), "SESSION")
            await self.driver.execute(driver_connection, ";".join(statements))

    async def make_read_only(self, driver_connection: Any) -> None:
        """Make every transaction of the session READ ONLY, those of single statements included."""
        await self.driver.execute(driver_connection, "SET default_transaction_read_only = on")

    @property
    def reads_without_transaction(self) -> bool:
        """Whether statements see different data anyway, in one transaction or in two."""
        level = self.options.server_settings.get("default_transaction_isolation", _READ_COMMITTED)
        return level.strip("'\" ").lower() == _READ_COMMITTED

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """Return whether the server said behind its last answer that one is open."""
        return self.driver.in_transaction(driver_connection)

    async def ping(self, driver_connection: Any) -> None:
        """Ask in one round trip, without a prepared statement; SQLAlchemy's ping takes three."""
        await self.driver.execute(driver_connection, "SELECT 1")

    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether the driver has seen the end of the connection."""
        return self.driver.is_closed(driver_connection)

    def abandon(self, driver_connection: Any) -> None:
        """Let go of the socket without a Terminate message."""
        self.driver.abandon(driver_connection)

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
        connecting = statement is None
        report = self.driver.read_error(error, connecting=connecting)
        if report is None:
            return None
        if connecting and report.kind is InsecureConnectionError:
            # To "prefer", only what is no PostgreSQL answers like this.
            return self.insecure(report.reason) if self._demands_tls else None
        if connecting and report.kind is DatabaseUnavailableError:
            return self.unreachable(ConnectionError(report.reason))
        refused = None
        if connecting and self.pooler != "direct":
            refused = diagnose_refusal(self, report.state, report.reason)
        return refused or diagnose(self, report, connecting=connecting)

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

    @property
    def _demands_tls(self) -> bool:
        is_socket = self.settings.hosts[0].is_socket
        return not is_socket and effective_ssl_mode(self.settings) not in {"disable", "prefer"}

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


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _begin_for_streams(dialect: Any, in_transaction: Callable[[Any], bool | None]) -> None:
    """
    Let read sessions open a transaction where rows are fetched piece by piece, and only there.

    The pool ends it, when the connection comes back. Not an event, since one of the dialect is
    heard at every statement, and one of connections is joined anew for each session.
    """
    usual: type[Any] = dialect.execution_ctx_cls

    class _BeginningContext(usual):  # type: ignore[misc]  # which one it is, the driver says
        def create_server_side_cursor(self) -> Any:
            if self.execution_options.get(_READ_STATEMENTS):
                fairy: Any = self.root_connection.connection
                if not in_transaction(fairy.driver_connection):
                    begin = fairy.cursor()
                    begin.execute("BEGIN")
                    begin.close()
            return super().create_server_side_cursor()

    dialect.execution_ctx_cls = _BeginningContext
