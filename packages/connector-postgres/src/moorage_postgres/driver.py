"""
What is not the same on asyncpg and on psycopg: the seam between this connector and its drivers.

The connector knows PostgreSQL: limits, poolers, roles, codes of errors. A driver knows its own
connections: how they are opened, asked and let go, and what its exceptions say. Drivers have no
state, and each is imported when a connector asks for it by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import BulkLoad, DatabaseError, DatabaseSettings, MissingExtraError, TLSState
from moorage_postgres.options import PostgresOptions
from moorage_postgres.poolers import PoolerMode

__all__ = ["Driver", "Report", "load_driver"]


@dataclass(frozen=True)
class Report:
    """
    What an exception of a driver says.

    Attributes:
        reason: The words, without the values of a row.
        state: The server's SQLSTATE; empty for what the driver said by itself.
        kind: What it is, where the driver knows and no code does.
        constraint: Name of the constraint that was broken, if the server told.
        table: Name of the table, likewise.
        column: Name of the column, likewise.
        detail: The server's DETAIL line; it quotes values.
    """

    reason: str
    state: str = ""
    kind: type[DatabaseError] | None = None
    constraint: str | None = None
    table: str | None = None
    column: str | None = None
    detail: str = ""


class Driver(ABC):
    """
    One driver; its connections are handed over as SQLAlchemy calls them, ``driver_connection``.

    Class attributes:
        name: What ``DB_POSTGRES_DRIVER`` says, and SQLAlchemy's name of it behind ``postgresql+``.
    """

    name: ClassVar[str]

    @abstractmethod
    def engine_arguments(
        self,
        settings: DatabaseSettings,
        options: PostgresOptions,
        pooler: PoolerMode,
        parameters: Mapping[str, str],
    ) -> dict[str, Any]:
        """
        Return arguments for ``create_async_engine``, ``connect_args`` among them.

        Run-time ``parameters`` are those of the session, told at the login, where there is no
        pooler; behind one in transaction mode each BEGIN sets them for its transaction, in the
        same message. Behind one in session mode they are left to :meth:`execute`.
        """

    @abstractmethod
    def attach(self, engine: Engine, settings: DatabaseSettings) -> None:
        """Add to a new engine what this driver lacks."""

    @abstractmethod
    def named_statements(self, arguments: Mapping[str, Any]) -> str:
        """Return by which of ``connect_args`` statements get a name; empty if they get none."""

    @abstractmethod
    async def set_up(
        self, driver_connection: Any, settings: DatabaseSettings, options: PostgresOptions
    ) -> None:
        """Set up a new connection, without a round trip."""

    @abstractmethod
    async def execute(self, driver_connection: Any, statement: str) -> None:
        """Run a statement outside of any transaction, in one round trip and under no name."""

    @abstractmethod
    def in_transaction(self, driver_connection: Any) -> bool | None:
        """
        Return whether the server said behind its last answer that one is open.

        ``None`` where none is, and SQLAlchemy's ROLLBACK has to be called all the same.
        """

    @abstractmethod
    def is_closed(self, driver_connection: Any) -> bool:
        """Return whether a connection has ended, as far as can be known without asking."""

    @abstractmethod
    def abandon(self, driver_connection: Any) -> None:
        """Let go of a connection without a word to the server."""

    @abstractmethod
    def log_in_plainly(self, arguments: dict[str, Any]) -> None:
        """Change ``connect_args`` so that any pooler takes them, and no statement gets a name."""

    @abstractmethod
    def process_of(self, driver_connection: Any) -> int:
        """Return the process of the server that serves a connection, as the login named it."""

    @abstractmethod
    def tls_of(self, driver_connection: Any) -> TLSState:
        """Return how a connection is encrypted, and what that proved."""

    @abstractmethod
    def read_error(self, error: BaseException, *, connecting: bool) -> Report | None:
        """Return what an exception says; ``None`` for one that is not this driver's."""

    @abstractmethod
    async def copy_rows(
        self, connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Send rows by COPY, in the transaction; an error is the one SQLAlchemy would hand on."""


_CLASSES: Final = {
    "asyncpg": "moorage_postgres.asyncpg_driver:AsyncpgDriver",
    "psycopg": "moorage_postgres.psycopg_driver:PsycopgDriver",
}


def load_driver(name: str, variable: str) -> Driver:
    """
    Return a driver.

    Raises:
        MissingExtraError: It is not installed; ``variable`` is where it was asked for.
    """
    module, _, attribute = _CLASSES[name].partition(":")
    try:
        found: type[Driver] = getattr(import_module(module), attribute)
    except ImportError as error:
        raise MissingExtraError(
            f"{variable}={name} asks for a driver that cannot be imported: {error}",
            hint=f"pip install 'moorage-postgres[{name}]'"
            if name != "asyncpg"
            else "pip install --force-reinstall moorage-postgres",
        ) from error
    return found()
