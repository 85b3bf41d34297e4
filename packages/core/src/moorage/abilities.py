"""
What a connector may be able to do besides connecting: small protocols, one per ability.

A connector has an ability by having the methods; there is nothing to declare and nothing to derive
from. Who wants to use one asks ``isinstance(connector, ManagesStorage)``. A backend that has no
such thing leaves the methods out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from moorage.identity import Admin, Identity
from moorage.server_facts import ServerFacts

__all__ = [
    "BindsIdentities",
    "ExaminesServer",
    "LintsMigrations",
    "LocksMigrations",
    "ManagesStorage",
    "MigrationFinding",
    "ShapesMigrations",
    "SuspendsForeignKeys",
    "TellsWrites",
]


@runtime_checkable
class ManagesStorage(Protocol):
    """
    Makes and drops whole databases: the one that ``settings.name`` names, on its server.

    The methods connect by themselves, for a moment, and not to the database in question. What
    fails is a ``DatabaseError``, as everywhere.
    """

    async def database_exists(self) -> bool:
        """Return whether the database is there."""
        ...

    async def create_database(self, *, template: str | None = None) -> None:
        """
        Create the database.

        Args:
            template: Name of a database to copy, structure and rows; nobody may be connected to
                it. Given only where ``capabilities.template_databases`` says so.

        Raises:
            DatabaseError: It is there already, or the user may not create it.
        """
        ...

    async def drop_database(self) -> None:
        """
        Drop the database, also with others connected where the backend can.

        Does nothing where it is not there.
        """
        ...


@runtime_checkable
class LocksMigrations(Protocol):
    """
    Lets one process at a time change the schema, whichever machine it runs on.

    The lock is held by the connection that took it, between transactions too, and ends with it:
    nobody has to clean up behind a process that was killed. A connection that goes back to the
    pool is not closed: unlock first, or invalidate it.
    """

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        """
        Take the lock of this database and return whether that succeeded; never waits.

        A transaction that is open stays open, and none is left open behind it. Ask once: what a
        second question on the connection that holds the lock does is not said.
        """
        ...

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        """Give the lock back, on the connection that took it."""
        ...


@dataclass(frozen=True)
class MigrationFinding:
    """
    A statement of a migration that is better not run like this.

    Attributes:
        script: The name of the script that it is in.
        rule: The name of the rule, under which it may be allowed.
        statement: The statement.
        problem: What would happen.
        safe_way: How to come to the same without that.
        is_dangerous: Whether it may stop or break a service that runs; else it is advice.
    """

    script: str
    rule: str
    statement: str
    problem: str
    safe_way: str
    is_dangerous: bool = True


@runtime_checkable
class LintsMigrations(Protocol):
    """Knows which statements of a migration stop, or break, a service that runs meanwhile."""

    def lint_migrations(self, scripts: Mapping[str, str]) -> Sequence[MigrationFinding]:
        """
        Return what is wrong in scripts of SQL, by their names.

        That a table is dropped is a danger: what runs meanwhile still reads it. Nothing is
        connected to. Called in a thread; a program may be run.

        Raises:
            MissingExtraError: What looks at them is not installed.
        """
        ...


@runtime_checkable
class SuspendsForeignKeys(Protocol):
    """
    Can alter a table only by making it anew, which foreign keys must not notice.

    Dropping the old table would delete, or refuse to delete, the rows that refer to it. Foreign
    keys are off while migrations run, and what they would have refused is looked for afterwards.
    """

    async def suspend_foreign_keys(self, connection: AsyncConnection) -> None:
        """Switch foreign keys off for a connection without a transaction; none is left open."""
        ...

    async def restore_foreign_keys(self, connection: AsyncConnection) -> None:
        """Switch them on again, when no transaction is open."""
        ...

    def find_orphans(self, connection: Connection) -> Sequence[str]:
        """Return the references to rows that are not there, in words; called before COMMIT."""
        ...


@runtime_checkable
class ShapesMigrations(Protocol):
    """
    Has a say in migrations: operations of its own, and things that are not the user's.

    Alembic is an optional package. Whoever has operations or comparators of their own import them
    in the method, which is called only where it is installed.
    """

    def get_migration_options(
        self, given: Mapping[str, Any], connection: Connection | None
    ) -> Mapping[str, Any]:
        """
        Return arguments of Alembic's ``context.configure`` that this backend needs.

        Called before Alembic looks at anything, and perhaps several times for one command. What
        ``env.py`` gives counts more; only ``include_name`` and ``include_object`` are asked
        together with those of ``env.py``, and either can leave a thing out. A schema for the
        version table (``version_table_schema``) is made where it is not there.

        Args:
            given: What ``env.py`` gives.
            connection: To look where things are; what is begun on it is rolled back afterwards.
                ``None`` where SQL is only written.
        """
        ...


@runtime_checkable
class BindsIdentities(Protocol):
    """Tells the database on whose behalf a transaction works, for its row level security."""

    def requires_identity(self) -> bool:
        """Return whether a session without an identity is refused."""
        ...

    def check_identity(self, identity: Identity | Admin) -> None:
        """
        Refuse an identity that may not be bound; must do no I/O.

        Raises:
            IdentityError: Its role is not among those that the settings allow.
        """
        ...

    def bind_identity(self, connection: Connection, identity: Identity | Admin | None) -> None:
        """
        Tell the transaction that was just opened on ``connection`` on whose behalf it works.

        Called at the beginning of each transaction; statements may be executed. What was told must
        be gone when the transaction ends, however it does. ``None`` takes back what was told.

        Raises:
            IdentityError: There is no transaction, so that it would not end.
        """
        ...


@runtime_checkable
class TellsWrites(Protocol):
    """
    Knows whether a transaction has written, also by what the driver was given directly.

    Asked at the end of a session that nobody committed, and only if it ran SQL that was written by
    hand or gave its connection away: what SQLAlchemy has compiled says by itself that it writes.
    """

    async def has_written(self, connection: AsyncConnection) -> bool:
        """
        Return whether the open transaction has changed something, in one round trip at most.

        A backend that cannot tell a change from a row lock counts the lock as a change.
        """
        ...


@runtime_checkable
class ExaminesServer(Protocol):
    """Knows what to ask a server, so that ``moorage doctor`` can say what is wrong with it."""

    async def examine_server(self, engine: AsyncEngine) -> ServerFacts:
        """
        Ask the server for what matters to whoever works on it with these settings.

        Nothing may be changed, and nothing be left open. ``engine`` is that of the application:
        what its connections are is what is to be told. It may be left alone where a connection in
        its way could do harm, and others be made beside it.

        Raises:
            DatabaseError: The server cannot be reached, or does not answer.
        """
        ...
