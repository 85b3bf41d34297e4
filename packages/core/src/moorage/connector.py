"""
The contract between moorage and a backend: all that the author of a connector must read.

A minimal connector is a class with a name and ``get_url``::

    class DuckConnector(DBConnector):
        name = "duck"
        contract = 1

        def get_url(self) -> URL:
            return self.build_url("duck+asyncduck")

Everything else has a default that is right for a plain SQLAlchemy async dialect. A connector
returns data and answers questions; it never calls back into the layers above it. What only some
backends can do, such as creating databases, are protocols of their own in ``moorage.abilities``.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import URL, Column, Connection, Dialect, Insert, Table
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moorage.address import parse_hosts
from moorage.diagnosis import Diagnosis, explain_error
from moorage.environment import nearest
from moorage.errors import (
    ConnectionLostError,
    ConnectorContractError,
    ConnectorImportError,
    DatabaseError,
    DatabaseUnavailableError,
    DataError,
    InsecureConnectionError,
    SettingsError,
)
from moorage.json_codec import json_arguments
from moorage.pool import LoopPool
from moorage.settings import DatabaseSettings, explain
from moorage.tls import effective_ssl_mode

__all__ = [
    "CONTRACT_VERSION",
    "AccessMode",
    "BulkLoad",
    "Capabilities",
    "ConnectorOptions",
    "DBConnector",
    "Diagnosis",
    "OnConflict",
    "TransactionLimits",
    "URLParameter",
]

CONTRACT_VERSION: Final = 1
"""Number of the contract on this page. It grows only when connectors written before would break."""

# Statements that are compiled once: more than applications have, where SQLAlchemy keeps 500.
_COMPILED_STATEMENTS = 2000

AccessMode = Literal["read write", "read only", "read only deferrable", "read statements"]
"""
What a session was opened for: a unit of work writes, a read session does not.

``read only deferrable`` is asked for only where ``capabilities.deferrable_transactions`` says so,
and ``read statements`` only where ``capabilities.read_only_connections`` does: there the
statements of a read session run each for itself, on a connection that refuses writes.
"""


OnConflict = Literal["raise", "skip", "update"]
"""What a bulk insert does with a row whose key is there already."""


@dataclass
class BulkLoad:
    """
    Where the rows of a bulk insert go.

    Attributes:
        table: The table.
        columns: The columns that the rows have values for, in the order of these; the database
            fills in the others.
        failed_row: Set by :meth:`DBConnector.load_rows` before it raises, where it can: the index,
            among the rows it was given, of the one that failed.
    """

    table: Table
    columns: tuple[Column[Any], ...]
    failed_row: int | None = None

    def as_insert(self, dialect: Dialect, placeholder: str) -> str:
        """Return the INSERT of one row for a driver that is given the values in their order."""
        preparer = dialect.identifier_preparer
        names = ", ".join(map(preparer.format_column, self.columns))
        values = ", ".join([placeholder] * len(self.columns))
        return f"INSERT INTO {preparer.format_table(self.table)} ({names}) VALUES ({values})"  # noqa: S608 (names are quoted)


@dataclass(frozen=True)
class TransactionLimits:
    """
    The limits of one unit of work, in seconds; ``None`` leaves what the settings say.

    Attributes:
        statement_timeout_seconds: Longest run of one statement; 0 is no limit.
        lock_timeout_seconds: Longest wait for a lock; 0 is no limit.
    """

    statement_timeout_seconds: float | None = None
    lock_timeout_seconds: float | None = None


@dataclass(frozen=True)
class Capabilities:
    """
    What a backend can do, as plain facts; core and the tests read them, nobody asks for names.

    The defaults promise nothing that a connector did not say. A field that is added later has a
    default, so that connectors written before keep their meaning.

    Attributes:
        networked: It is reached over a network or a socket, so that host, port, user, password
            and TLS mean something.
        tls: ``ssl_mode`` and the certificates are understood. Settings that ask for encryption,
            as they do for a host elsewhere unless they say otherwise, are refused without it.
        several_hosts: ``host`` may list several places between which the connector fails over.
        read_hosts: ``read_host`` is understood;
            :meth:`DBConnector.get_read_connect_args` says where read sessions connect to. It needs
            ``read_only_connections``: only then have these connections of their own.
        isolation_levels: SQLAlchemy's names of the isolation levels that a unit may ask for.
        read_only_transactions: A transaction can be opened so that the database refuses writes.
        read_only_connections: A connection can be made to refuse writes as long as it is open;
            :meth:`DBConnector.make_read_only` is understood.
        savepoints: A transaction can be rolled back to a point inside it.
        transactional_ddl: CREATE and ALTER are undone by a rollback.
        single_writer: At most one transaction writes at a time; the others wait.
        ends_idle_transactions: It closes a connection whose transaction sits idle for
            ``idle_in_transaction_timeout_seconds``.
        transaction_limits: :meth:`DBConnector.limit_transaction` is understood.
        deferrable_transactions: A SERIALIZABLE transaction that only reads may wait until it can
            neither fail nor make others fail.
        template_databases: ``create_database`` of :class:`ManagesStorage` can copy another one.
        errors: Classes of ``moorage.errors`` that :meth:`DBConnector.classify_error` tells apart;
            the conformance suite brings about each of them that it knows how to.
    """

    networked: bool = True
    tls: bool = False
    several_hosts: bool = False
    read_hosts: bool = False
    isolation_levels: frozenset[str] = frozenset()
    read_only_transactions: bool = False
    read_only_connections: bool = False
    savepoints: bool = True
    transactional_ddl: bool = False
    single_writer: bool = False
    ends_idle_transactions: bool = False
    transaction_limits: bool = False
    deferrable_transactions: bool = False
    template_databases: bool = False
    errors: frozenset[type[DatabaseError]] = frozenset()


class ConnectorOptions(BaseModel):
    """
    Base of a connector's own options, read from ``DB_<CONNECTOR>_<OPTION>``.

    Derive a model, give every field a default and a description, and set it as
    ``options_model``; unknown options are refused with the nearest known name.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True,  # built when first used: importing moorage costs less
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )


@dataclass(frozen=True)
class URLParameter:
    """
    What a parameter behind the ``?`` of ``DB_URL`` stands for.

    Attributes:
        field: The core setting, or ``options.<name>`` for an option of the connector; empty for a
            parameter that is understood and needs nothing done.
        convert: Makes the value of the field from the text, or raises ``ValueError`` with what is
            wrong with it.
    """

    field: str
    convert: Callable[[str], Any] = str


class DBConnector(ABC):
    """
    Everything that moorage knows about one backend.

    One instance belongs to one ``Database``. It is built with its settings while the database
    starts; building it opens nothing.

    Class attributes:
        name: Lower-case letters, digits and underscores; also the middle of its options'
            variables (``DB_<NAME>_…``), so it must not be the beginning of a core setting.
        contract: The :data:`CONTRACT_VERSION` it was written for. Write the number, do not
            import it.
        default_port: Port where ``DB_PORT`` is unset; ``None`` for a backend without ports.
        url_schemes: Schemes of ``DB_URL`` it understands, besides the names it is installed as.
        capabilities: What the backend can do.
        options_model: Model of its own options.
        url_parameters: Parameters of ``DB_URL`` by name; any other is refused.

    Attributes:
        settings: The settings it was built with.
        options: Its own options, validated.

    Raises:
        SettingsError: An option is wrong, or a setting asks for what the backend cannot do.
    """

    name: ClassVar[str]
    # What a connector that says nothing was written for: the first contract, for ever.
    contract: ClassVar[int] = 1
    default_port: ClassVar[int | None] = None
    url_schemes: ClassVar[frozenset[str]] = frozenset()
    capabilities: ClassVar[Capabilities] = Capabilities()
    options_model: ClassVar[type[ConnectorOptions]] = ConnectorOptions
    url_parameters: ClassVar[Mapping[str, URLParameter]] = {}

    def __init__(self, settings: DatabaseSettings) -> None:
        folded, self._options_in_url = self._with_url_parameters(settings)
        self.settings: DatabaseSettings = folded
        self.options: ConnectorOptions = self._validated_options()
        self._refuse_unsupported_settings()

    @abstractmethod
    def get_url(self) -> URL:
        """
        Return the URL that the engine is created with; most often a call of :meth:`build_url`.

        Called once, before any connection; it must do no I/O.
        """

    def build_url(self, drivername: str, **overrides: Any) -> URL:
        """
        Return a URL made from the settings, with the password in the clear.

        Use it instead of ``URL.create``: a ``SecretStr`` handed to SQLAlchemy logs in with
        asterisks, and a host with a port glued to it becomes one bogus name.

        Args:
            drivername: SQLAlchemy's name of dialect and driver, as in ``postgresql+asyncpg``.
            **overrides: ``username``, ``password``, ``host``, ``port``, ``database`` or ``query``
                in place of what the settings say; ``None`` leaves a part out.
        """
        parts: dict[str, Any] = {"database": self.settings.name}
        if self.capabilities.networked:
            place = self.settings.hosts[0]
            password = self.settings.password
            parts.update(
                username=self.settings.user,
                password=password.get_secret_value() if password is not None else None,
                host=place.host,
                port=None if place.is_socket else place.port or self.default_port,
            )
        return URL.create(drivername, **{**parts, **overrides})

    def get_engine_args(self) -> dict[str, Any]:
        """
        Return keyword arguments for ``create_async_engine``.

        Called once, before any connection; it must do no I/O. Extend the result of ``super()``:
        it holds the pool that the settings ask for and keeps values out of logs, and replacing it
        opts out of both.
        """
        settings = self.settings
        return {
            "poolclass": LoopPool,
            "connector": self,
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_timeout": settings.pool_timeout_seconds,
            "surplus_seconds": settings.pool_shrink_seconds,
            "hold_warning_seconds": settings.pool_hold_warning_seconds,
            "pool_recycle": settings.pool_recycle_seconds,
            "query_cache_size": _COMPILED_STATEMENTS,
            "pool_reset_on_return": None,  # core does it, where `in_transaction` asks for it
            "echo": settings.echo,
            "hide_parameters": not settings.echo,
            **json_arguments(settings),
            "connect_args": {},
        }

    def create_engine(self) -> AsyncEngine:
        """
        Create the engine; opens no connection.

        Override it to attach the backend's own listeners to the engine of ``super()``. Core adds
        its own afterwards to whatever is returned.

        Raises:
            ConnectorImportError: The driver, or SQLAlchemy's dialect for it, is not installed.
            ConnectorContractError: SQLAlchemy makes nothing of the URL or of the arguments.
        """
        try:
            url, arguments = self.get_url(), self.get_engine_args()
            try:
                return create_async_engine(url, **arguments)
            except sa_exc.NoSuchModuleError:
                raise
            except (sa_exc.ArgumentError, sa_exc.InvalidRequestError, TypeError) as error:
                raise self._unusable(str(error)) from error
            except ValueError:
                # Said of a part of the URL, which is quoted and may be the password's.
                raise self._unusable("a part of the URL is no number") from None
        except (ImportError, sa_exc.NoSuchModuleError) as error:
            distribution = _distribution_of(type(self))
            origin = f" of {distribution}" if distribution else ""
            raise ConnectorImportError(
                f"connector {self.name!r}{origin} cannot load its driver: {error}",
                hint=f"install what it needs: pip install --force-reinstall {distribution}"
                if distribution
                else "pip install the driver, or correct the URL that get_url() returns",
            ) from error

    def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
        """
        Return execution options for connections of a session that was opened for ``access``.

        Called once per unit of work and per database for read sessions. An empty mapping (the
        default) means that such sessions need nothing special, and costs nothing.
        """
        return {}

    def limit_transaction(self, connection: Connection, limits: TransactionLimits) -> None:
        """
        Put limits on the transaction that was just opened on ``connection``.

        Called where ``capabilities.transaction_limits`` says so, and only for a unit that asks;
        statements may be executed. The limits must be gone when the connection is back in the
        pool, also after a rollback.
        """
        raise NotImplementedError(f"connector {self.name!r} declares transaction_limits")

    def get_uuid7_function(self, dialect: Dialect) -> str:
        """
        Return the SQL that makes a UUIDv7 on the server; empty (the default) where it has none.

        Called while a table is created whose key has that default. The version of the server is
        in ``dialect.server_version_info``, which is missing before the first connection.
        """
        return ""

    async def prepare_connection(self, driver_connection: Any) -> None:
        """
        Set up a connection of the driver that was just opened, before anybody uses it.

        Runs under the same deadline as opening it; an exception closes the connection. The
        default does nothing.
        """

    async def make_read_only(self, driver_connection: Any) -> None:
        """
        Let a connection refuse writes as long as it is open.

        Called behind :meth:`prepare_connection` for the connections of read sessions, where
        ``capabilities.read_only_connections`` says so. The backend itself has to refuse, so that
        no statement finds a way around it; core puts the connection into autocommit.
        """
        raise NotImplementedError(f"connector {self.name!r} declares read_only_connections")

    def get_read_connect_args(self) -> Mapping[str, Any]:
        """
        Return arguments for the driver's ``connect`` that lead to ``settings.read_hosts``.

        Called for each connection of a read session, where ``capabilities.read_hosts`` is declared
        and ``settings.read_host`` is set. They replace those of the same name that SQLAlchemy's
        dialect has made of the URL.
        """
        raise NotImplementedError(f"connector {self.name!r} declares read_hosts")

    @property
    def reads_without_transaction(self) -> bool:
        """
        Whether read sessions run each statement for itself, with no transaction around them.

        Asked once, where ``capabilities.read_only_connections`` says that it can be done. Return
        ``False`` where the settings ask for more than that: that all statements of a transaction
        see the same data.
        """
        return self.capabilities.read_only_connections

    async def can_load(self, connection: AsyncConnection, load: BulkLoad) -> bool:
        """
        Return whether :meth:`load_rows` can take rows for these columns.

        Called once per bulk insert and set of columns, inside its transaction; statements may be
        executed. The default says no, and rows are inserted by SQLAlchemy's ``executemany``.
        """
        return False

    async def load_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """
        Insert rows in the fastest way that the driver has, inside the open transaction.

        The values are as the driver takes them: defaults of Python are filled in, and the types
        of SQLAlchemy have processed them. The outcome has to be that of INSERT, errors included;
        errors of the driver are translated by core.

        Args:
            connection: Of the session, in a transaction.
            load: The table, and the columns in the order of the values.
            rows: One chunk.
        """
        raise NotImplementedError(f"connector {self.name!r} says that it can load rows")

    def insert_on_conflict(
        self, load: BulkLoad, key: Sequence[Column[Any]], on_conflict: OnConflict
    ) -> Insert | None:
        """
        Return an INSERT that skips, or updates by, rows whose ``key`` is there already.

        The default knows none.
        """
        return None

    def in_transaction(self, driver_connection: Any) -> bool | None:
        """
        Return whether a transaction is open on a connection, as far as its driver knows.

        Asked when a connection returns to the pool: behind a COMMIT there is nothing to roll back,
        and asking the server to do it is a round trip for nothing. ``None`` (the default) means
        that the driver does not say, and the pool rolls back to be sure; but for connections of
        read sessions, which are in autocommit, where the override of a connector that does not say
        means that there is nothing to roll back. Only what the server has said may decide. It must
        do no I/O.
        """
        return None

    async def ping(self, driver_connection: Any) -> None:
        """
        Make one round trip to the server, or raise what the driver raises.

        Called, as ``settings.pool_pre_ping`` says, before a connection is used again. Without an
        override the dialect's own ping is used, which may take several round trips.
        """
        raise NotImplementedError(f"connector {self.name!r} leaves the ping to its dialect")

    def is_closed(self, driver_connection: Any) -> bool:
        """
        Return whether the driver has noticed that a connection is closed; asks nobody.

        Called each time before a connection is used again. The default knows nothing.
        """
        return False

    def abandon(self, driver_connection: Any) -> None:
        """
        Let go of a connection without a word to the server, and without the event loop.

        Called in a forked child, whose parent goes on using the connection, and for connections
        whose event loop does not run any more. Release the descriptor
        (:func:`moorage.release_descriptor` does), neither await nor use the loop. What was
        abandoned is kept, unused, until the process ends, so that no finalizer gets at it. The
        default does nothing: the connection stays open as long as the process.
        """

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """
        Say what an error means, by its code and never by its text; ``None`` for what it leaves
        to the base.

        Called for each error of the driver while connecting or running a statement. What an
        override leaves open is asked of the base, whether or not it calls ``super()``; what
        nobody knows becomes a plain ``DatabaseError``. Use :meth:`diagnose` for the result.

        Args:
            error: What was raised; its ``__cause__`` may be the driver's own exception.
            statement: ``None`` while connecting; else the SQL that failed, empty for BEGIN,
                COMMIT and ROLLBACK.
        """
        if statement is None:
            below = _operating_system_error(error)
            if isinstance(below, ssl.SSLError):
                reason = getattr(below, "reason", None)  # only those that OpenSSL made have one
                return self.insecure(reason or below.strerror or str(below))
            return None if below is None else self.unreachable(below)
        if isinstance(error, (OSError, EOFError)):  # TimeoutError is an OSError
            return self.diagnose(ConnectionLostError, str(error) or type(error).__name__)
        if isinstance(error, OverflowError):
            return self.diagnose(DataError, str(error))
        return None

    def diagnose(
        self,
        kind: type[DatabaseError],
        reason: str,
        code: str = "",
        *,
        constraint: str | None = None,
        table: str | None = None,
        columns: tuple[str, ...] = (),
    ) -> Diagnosis:
        """
        Return a diagnosis in moorage's words for ``kind``, which name the settings concerned.

        Args:
            kind: A class of ``moorage.errors``.
            reason: What the backend said.
            code: The code that decided.
            constraint: Name of the constraint that was broken, if the backend tells.
            table: Name of the table, likewise.
            columns: Names of the columns, likewise.
        """
        sentence, hint = explain_error(kind, self.settings, reason)
        return Diagnosis(kind, sentence, hint, code, constraint, table, columns)

    def option_variable(self, option: str) -> str:
        """Return the variable of one of the connector's own options, for messages."""
        return self.settings.variable(f"{self.name}_{option}")

    def unreachable(self, error: BaseException) -> Diagnosis:
        """Return the diagnosis for a server that refused, was not found or did not answer."""
        settings = self.settings
        where = settings.host if settings.port is None else f"{settings.host}:{settings.port}"
        if isinstance(error, TimeoutError):
            reason = (
                f"no connection within {settings.connect_timeout_seconds:g} s"
                f" ({settings.variable('connect_timeout_seconds')})"
            )
        else:
            reason = str(error) or type(error).__name__
        return Diagnosis(
            DatabaseUnavailableError,
            f"the database at {where} ({settings.origin('host')}) cannot be reached: {reason}",
            f"check that the server runs and that {settings.variable('host')} and"
            f" {settings.variable('port')} name it",
        )

    def insecure(self, reason: str) -> Diagnosis:
        """Return the diagnosis for a server that does not give the TLS that was asked for."""
        settings = self.settings
        mode = effective_ssl_mode(settings)
        why = "" if settings.ssl_mode else ", the default for a host elsewhere"
        return Diagnosis(
            InsecureConnectionError,
            f"the server at {settings.host} does not give the TLS that"
            f" {settings.variable('ssl_mode')}={mode}{why} asks for: {reason}",
            f"give its certificate authority in {settings.variable('ssl_ca')}, or, on a network"
            f" that you trust, choose another {settings.variable('ssl_mode')} (disable, prefer,"
            " require, verify-ca)",
        )

    def _with_url_parameters(
        self, settings: DatabaseSettings
    ) -> tuple[DatabaseSettings, dict[str, Any]]:
        """Return the settings, and raw options, with the parameters of the URL folded in."""
        url = settings.origin("url")
        problems: list[str] = []
        options: dict[str, Any] = {}
        for name, texts in settings.url_query.items():
            parameter = self.url_parameters.get(name)
            if parameter is None:
                near = nearest(name, self.url_parameters)
                known = ", ".join(self.url_parameters) or "none"
                advice = f"did you mean {near}?" if near else f"it knows {known}"
                problems.append(
                    f"{url} has the parameter {name!r}, which connector {self.name!r} does not"
                    f" know; {advice}"
                )
                continue
            try:
                value = parameter.convert(",".join(texts))
                if parameter.field == "host":
                    parse_hosts(value)
            except ValueError as error:
                problems.append(f"{url} has a parameter {name!r} that {error}")
                continue
            if value == "":
                problems.append(f"{url} has a parameter {name!r} that is empty; remove it")
                continue
            field = parameter.field
            if field.startswith("options."):
                options[field.removeprefix("options.")] = value
            elif field and field in settings.model_fields_set and getattr(settings, field) != value:
                problems.append(
                    f"{settings.origin(field)} and the parameter {name!r} of {url} disagree;"
                    " remove one of them"
                )
            elif field:
                settings = settings.replaced(url, **{field: value})
        if problems:
            raise SettingsError(problems)
        return settings, options

    def _validated_options(self) -> ConnectorOptions:
        alias = self.settings.type
        raw = {
            **self._options_in_url,
            **self.settings.options_for(self.name, *([alias] if alias else [])),
        }
        problems: list[str] = []
        known = self.options_model.model_fields
        try:
            return self.options_model.model_validate(raw)
        except ValidationError as error:
            for item in error.errors(include_input=False):
                option = str(item["loc"][0]) if item["loc"] else ""
                variable = self.option_variable(option)
                if item["type"] == "extra_forbidden":
                    near = nearest(option, known)
                    names = ", ".join(self.option_variable(name) for name in known) or "none"
                    advice = (
                        f"did you mean {self.option_variable(near)}?" if near else f"it has {names}"
                    )
                    problems.append(f"{variable} is no option of connector {self.name!r}; {advice}")
                else:
                    problems.append(explain(self.option_variable, item))
        raise SettingsError(problems)

    def _unusable(self, reason: str) -> ConnectorContractError:
        distribution = _distribution_of(type(self))
        origin = f" of {distribution}" if distribution else ""
        return ConnectorContractError(
            f"SQLAlchemy can make no engine of what get_url() and get_engine_args() of connector"
            f" {self.name!r}{origin} return: {reason}",
            hint=f"report it to the authors of {distribution}"
            if distribution
            else "return what build_url() makes of dialect and async driver, as in"
            " 'postgresql+asyncpg', and arguments that create_async_engine() knows",
        )

    def _refuse_unsupported_settings(self) -> None:
        settings, can = self.settings, self.capabilities
        problems = []
        if can.networked and len(settings.hosts) > 1 and not can.several_hosts:
            problems.append(
                f"{settings.origin('host')} lists {len(settings.hosts)} hosts, and connector"
                f" {self.name!r} does not fail over between hosts yet; name one host"
            )
        mode = effective_ssl_mode(settings)
        if can.networked and not can.tls and mode not in {"disable", "prefer"}:
            variable = settings.variable("ssl_mode")
            asked = (
                f"{settings.origin('ssl_mode')}={mode} asks for encryption"
                if settings.ssl_mode is not None
                else f"{settings.host} ({settings.origin('host')}) is not this machine, so that"
                f" {variable} means {mode}"
            )
            problems.append(
                f"{asked}, and connector {self.name!r} does not encrypt; on a network that you"
                f" trust, set {variable}=disable"
            )
        if settings.read_host is not None and not can.read_hosts:
            problems.append(
                f"{settings.origin('read_host')} is set, and connector {self.name!r} does not use"
                " read hosts yet; remove it"
            )
        if problems:
            raise SettingsError(problems)


def _operating_system_error(error: BaseException | None) -> OSError | None:
    """Return what the operating system said, which a driver may have wrapped in its own words."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def _distribution_of(connector: type) -> str:
    """Return the name of the distribution that a class comes from; empty for none."""
    from importlib.metadata import packages_distributions  # slow, and needed for an error only

    package = connector.__module__.partition(".")[0]
    return next(iter(packages_distributions().get(package, ())), "")
