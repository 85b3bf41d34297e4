"""
Connectors with one realistic fault each, and the checks of the suite that must notice it.

Each is a first-party connector that works, with one thing gone wrong.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from moorage import (
    DBConnector,
    Diagnosis,
    ForeignKeyViolationError,
    SerializationError,
    StatementSyntaxError,
    UniqueViolationError,
)
from moorage.pool import LoopPool
from moorage.testing import ConnectorSuite
from moorage_postgres import PostgresConnector
from moorage_sqlite import SQLiteConnector

CHECKS = frozenset(name for name in dir(ConnectorSuite) if name.startswith("test_"))


class Broken:
    """What the matrix needs to know of a broken connector."""

    backend: ClassVar[str] = "sqlite"
    noticed_by: ClassVar[frozenset[str]]


class OpensWhileBuilding(Broken, SQLiteConnector):
    """Connects to find out about the database, while it should only compute."""

    noticed_by = frozenset({"test_building_does_no_input_or_output"})

    def get_url(self) -> URL:
        sqlite3.connect(":memory:").close()
        return super().get_url()


class LogsInWithAsterisks(Broken, PostgresConnector):
    """Hands the masked password to the driver, as whoever prints a SecretStr does."""

    backend = "postgres"
    # Nothing that needs a connection works.
    noticed_by = CHECKS - {
        "test_building_does_no_input_or_output",
        "test_a_wrong_password_is_refused",
        "test_an_absent_server_is_unavailable",
    }

    def get_url(self) -> URL:
        return super().get_url().set(password=str(self.settings.password))


class ShowsThePassword(Broken, PostgresConnector):
    """Prints its settings, password included."""

    backend = "postgres"
    noticed_by = frozenset({"test_the_password_is_used_and_not_shown"})

    def __repr__(self) -> str:
        password = self.settings.password
        return f"<connector {'' if password is None else password.get_secret_value()}>"


class HasNoPool(Broken, SQLiteConnector):
    """Replaces the engine's arguments instead of extending them."""

    noticed_by = frozenset({"test_a_dry_pool_says_so", "test_disposal_ends_everything"})

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        for name in ("pool_settings", "pool_size", "max_overflow", "pool_timeout"):
            arguments.pop(name)
        arguments.pop("surplus_seconds")
        return {**arguments, "poolclass": NullPool}


class _Undying(LoopPool):
    def dispose(self) -> None:
        """Close nothing."""


class ClosesNothing(Broken, SQLiteConnector):
    """Keeps connections open when its engine is disposed."""

    noticed_by = frozenset({"test_disposal_ends_everything"})

    def get_engine_args(self) -> dict[str, Any]:
        return {**super().get_engine_args(), "poolclass": _Undying}


class LosesCommits(Broken, SQLiteConnector):
    """Rolls back where it should commit."""

    noticed_by = frozenset(
        {
            "test_a_savepoint_undoes_a_part",
            "test_a_unit_commits",
            "test_concurrent_units_lose_no_update",
            "test_waiting_for_a_lock_blocks_nobody",
            "test_rows_are_streamed",
            "test_values_come_back_as_they_went",
        }
    )

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        commits = iter(range(1_000_000))
        commit, rollback = dialect.do_commit, dialect.do_rollback
        # The first ones are the tables and rows of the suite itself.
        dialect.do_commit = lambda connection: (
            commit(connection) if next(commits) < 2 else rollback(connection)
        )
        return engine


class CommitsOnClose(Broken, SQLiteConnector):
    """Commits what is open when a connection goes back to the pool, or rolls back."""

    noticed_by = frozenset(
        {
            "test_a_session_that_is_closed_rolls_back",
            "test_an_exception_rolls_back",
            "test_schema_changes_are_undone",
        }
    )

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.do_rollback = dialect.do_commit
        return engine


class IgnoresSavepoints(Broken, SQLiteConnector):
    """Does nothing when it should go back to a savepoint."""

    noticed_by = frozenset({"test_a_savepoint_undoes_a_part"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.do_rollback_to_savepoint = lambda connection, name: None
        return engine


class IgnoresIsolation(Broken, PostgresConnector):
    """Declares levels and does not set them."""

    backend = "postgres"
    noticed_by = frozenset({"test_isolation_levels_are_set"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        set_level = dialect.set_isolation_level
        dialect.set_isolation_level = lambda connection, level: (
            set_level(connection, level) if level == "AUTOCOMMIT" else None
        )
        return engine


class WritesInReadOnlyUnits(Broken, SQLiteConnector):
    """Declares read-only transactions and does nothing for them."""

    noticed_by = frozenset({"test_a_read_only_unit_refuses_writes"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return super().get_execution_options("read write")


class LocksTooLate(Broken, SQLiteConnector):
    """Reads first and asks for the write lock afterwards."""

    noticed_by = frozenset({"test_concurrent_units_lose_no_update"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return {} if access == "read write" else super().get_execution_options(access)


class BlocksTheLoop(Broken, SQLiteConnector):
    """Waits for the write lock inside of the event loop's thread."""

    noticed_by = frozenset(
        {
            "test_concurrent_units_lose_no_update",
            "test_waiting_for_a_lock_blocks_nobody",
            "test_waiting_for_a_lock_has_an_end",
        }
    )

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect

        def wait(cursor: Any) -> None:
            # Who holds the place needs this thread to give it back: a real one would wait for ever.
            if dialect.write_queue._owner is not None:
                raise TimeoutError("nobody gave the lock back")
            queue_up(cursor)

        queue_up = dialect._queue_up
        dialect._queue_up = wait
        return engine


class Misjudges(Broken, SQLiteConnector):
    """Takes every violation for one of a foreign key."""

    noticed_by = frozenset({"test_errors_are_classified"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is UniqueViolationError:
            return self.diagnose(ForeignKeyViolationError, str(error))
        return diagnosis


class FailsWhileJudging(Broken, SQLiteConnector):
    """Has a bug in its own classification."""

    noticed_by = frozenset(
        {
            "test_a_read_only_unit_refuses_writes",
            "test_cancellation_anywhere_leaves_nothing",
            "test_errors_are_classified",
            "test_failures_are_errors_of_both_trees",
            "test_waiting_for_a_lock_has_an_end",
        }
    )

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        raise KeyError(type(error))


class TakesDeadlocksForCollisions(Broken, PostgresConnector):
    """Knows neither deadlocks nor locks that are not free, though it declares them."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_deadlock_is_named", "test_waiting_for_a_lock_has_an_end"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.code in {"40P01", "55P03"}:
            return self.diagnose(SerializationError, str(error), diagnosis.code)
        return diagnosis


class TakesAbsenceForSyntax(Broken, PostgresConnector):
    """Judges failures of connecting as if a statement had failed."""

    backend = "postgres"
    noticed_by = frozenset(
        {"test_a_wrong_password_is_refused", "test_an_absent_server_is_unavailable"}
    )

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        if statement is None:
            return self.diagnose(StatementSyntaxError, str(error))
        return super().classify_error(error, statement=statement)


class SpoilsJSON(Broken, SQLiteConnector):
    """Stores JSON in a way of its own."""

    noticed_by = frozenset({"test_values_come_back_as_they_went"})

    def get_engine_args(self) -> dict[str, Any]:
        return {**super().get_engine_args(), "json_serializer": lambda value: '{"a": 1}'}


class LocksForATransaction(Broken, PostgresConnector):
    """Takes a lock for migrations that ends with the first transaction."""

    backend = "postgres"
    noticed_by = frozenset({"test_one_at_a_time_migrates"})

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        statement = text("SELECT pg_try_advisory_xact_lock(1)")
        return bool(await connection.scalar(statement))


class CopiesNothing(Broken, SQLiteConnector):
    """Creates an empty database where a copy was asked for."""

    noticed_by = frozenset({"test_databases_come_and_go"})

    async def create_database(self, *, template: str | None = None) -> None:
        await super().create_database()


BROKEN: list[type[Any]] = [
    kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Broken) and issubclass(kind, DBConnector)
]
