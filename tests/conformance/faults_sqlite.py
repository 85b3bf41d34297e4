"""Faults of a connector that need no server to be noticed."""

import asyncio
import inspect
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from moorage import (
    DBConnector,
    Diagnosis,
    ForeignKeyViolationError,
    PermissionDeniedError,
    StatementCancelledError,
    StatementTimeoutError,
    UniqueViolationError,
)
from moorage.pool import LoopPool
from moorage_sqlite import SQLiteConnector
from tests.conformance.fault import Fault, faults_of


class OpensWhileBuilding(Fault, SQLiteConnector):
    """Connects to find out about the database, while it should only compute."""

    noticed_by = frozenset({"test_building_does_no_input_or_output"})

    def get_url(self) -> URL:
        sqlite3.connect(":memory:").close()
        return super().get_url()


class HasNoPool(Fault, SQLiteConnector):
    """Replaces the engine's arguments instead of extending them."""

    noticed_by = frozenset(
        {
            "test_a_dry_pool_says_so",
            "test_disposal_ends_everything",
            "test_disposal_waits_for_what_is_in_use",
        }
    )

    def get_engine_args(self) -> dict[str, Any]:
        ours = {*inspect.signature(LoopPool).parameters, "pool_timeout"}
        arguments = {k: v for k, v in super().get_engine_args().items() if k not in ours}
        return {**arguments, "poolclass": NullPool}


class _Undying(LoopPool):
    def dispose(self) -> None:
        """Close nothing."""


class ClosesNothing(Fault, SQLiteConnector):
    """Keeps connections open when its engine is disposed."""

    noticed_by = frozenset(
        {
            "test_disposal_ends_everything",
            "test_disposal_without_patience_closes_what_comes_back",
            "test_what_was_closed_is_known",
        }
    )

    def get_engine_args(self) -> dict[str, Any]:
        return {**super().get_engine_args(), "poolclass": _Undying}


class LosesCommits(Fault, SQLiteConnector):
    """Rolls back where it should commit."""

    noticed_by = frozenset(
        {
            "test_a_long_statement_is_ended",
            "test_a_savepoint_undoes_a_part",
            "test_a_unit_commits",
            "test_concurrent_units_lose_no_update",
            "test_disposal_waits_for_what_is_in_use",
            "test_many_rows_arrive_whole",
            "test_rows_are_streamed",
            "test_rows_that_are_there_are_updated_or_skipped",
            "test_values_come_back_as_they_went",
            "test_waiting_for_a_lock_blocks_nobody",
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


class CommitsOnClose(Fault, SQLiteConnector):
    """Commits what is open when a connection goes back to the pool, or rolls back."""

    noticed_by = frozenset(
        {
            "test_a_session_that_is_closed_rolls_back",
            "test_an_exception_rolls_back",
            "test_foreign_keys_are_suspended_for_a_while",
            "test_many_rows_arrive_whole",
            "test_schema_changes_are_undone",
        }
    )

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.do_rollback = dialect.do_commit
        return engine


class IgnoresSavepoints(Fault, SQLiteConnector):
    """Does nothing when it should go back to a savepoint."""

    noticed_by = frozenset({"test_a_savepoint_undoes_a_part"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.do_rollback_to_savepoint = lambda connection, name: None
        return engine


class WritesInReadOnlyUnits(Fault, SQLiteConnector):
    """Declares read-only transactions and does nothing for them."""

    noticed_by = frozenset({"test_a_read_only_unit_refuses_writes"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return super().get_execution_options("read write")


class LocksTooLate(Fault, SQLiteConnector):
    """Reads first and asks for the write lock afterwards."""

    noticed_by = frozenset({"test_concurrent_units_lose_no_update"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return {} if access == "read write" else super().get_execution_options(access)


class BlocksTheLoop(Fault, SQLiteConnector):
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


class Misjudges(Fault, SQLiteConnector):
    """Takes every violation for one of a foreign key."""

    noticed_by = frozenset({"test_errors_are_classified"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is UniqueViolationError:
            return self.diagnose(ForeignKeyViolationError, str(error))
        return diagnosis


class ExcusesItself(Misjudges):
    """Takes them for one, declares to tell them apart, and expects the check to fail."""

    noticed_by = frozenset({"test_what_is_declared_is_checked"})
    expected_failures: ClassVar[Mapping[str, str]] = {
        "test_errors_are_classified[UniqueViolationError]": "nobody asks"
    }


class ExcusesWhatWorks(Fault, SQLiteConnector):
    """Expects a failure that has been mended long ago."""

    noticed_by = frozenset({"test_rows_are_streamed"})
    expected_failures: ClassVar[Mapping[str, str]] = {"test_rows_are_streamed": "an old driver"}


class FailsWhileJudging(Fault, SQLiteConnector):
    """Has a bug in its own classification."""

    noticed_by = frozenset(
        {
            "test_a_collision_is_named",
            "test_a_long_statement_is_ended",
            "test_a_read_only_unit_refuses_writes",
            "test_a_read_session_refuses_writes",
            "test_cancellation_anywhere_leaves_nothing",
            "test_errors_are_classified",
            "test_failures_are_errors_of_both_trees",
            "test_foreign_keys_are_suspended_for_a_while",
            "test_limits_of_a_unit_end_with_it",
            "test_many_rows_arrive_whole",
            "test_there_is_one_writer_at_a_time",
            "test_waiting_for_a_lock_has_an_end",
        }
    )

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        raise KeyError(type(error))


class SpoilsJSON(Fault, SQLiteConnector):
    """Stores JSON in a way of its own."""

    noticed_by = frozenset({"test_values_come_back_as_they_went"})

    def get_engine_args(self) -> dict[str, Any]:
        return {**super().get_engine_args(), "json_serializer": lambda value: '{"a": 1}'}


class SwallowsCancellation(Fault, SQLiteConnector):
    """Sends a statement again when its task is cancelled, as after any other interruption."""

    noticed_by = frozenset({"test_cancellation_anywhere_leaves_nothing"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        execute = dialect.do_execute

        def insist(*arguments: Any) -> None:
            try:
                execute(*arguments)
            except asyncio.CancelledError:
                execute(*arguments)

        dialect.do_execute = insist
        return engine


class KeepsLimits(Fault, SQLiteConnector):
    """Gives a connection back with the limits of the unit that had it."""

    noticed_by = frozenset({"test_limits_of_a_unit_end_with_it"})

    def _restore_limits(self, *arguments: Any) -> None:
        """Restore nothing."""


class PromisesLimits(Fault, SQLiteConnector):
    """Declares limits of units, and inherits the method that has none."""

    noticed_by = frozenset(
        {"test_what_is_declared_is_checked", "test_limits_of_a_unit_end_with_it"}
    )
    limit_transaction = DBConnector.limit_transaction


class TakesTimeOutsForRequests(Fault, SQLiteConnector):
    """Says of a statement whose time was over that somebody had ended it."""

    noticed_by = frozenset({"test_a_long_statement_is_ended"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is StatementTimeoutError:
            return self.diagnose(StatementCancelledError, str(error), diagnosis.code)
        return diagnosis


class StreamsOnePage(Fault, SQLiteConnector):
    """Hands out the first rows of a result, and calls it the whole."""

    noticed_by = frozenset({"test_rows_are_streamed"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()

        @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
        def cut(
            connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> tuple[str, Any]:
            options = getattr(context, "execution_options", {})
            page = options.get("yield_per")
            return (f"{statement} LIMIT {page}" if page else statement), parameters

        return engine


class KeepsDatabases(Fault, SQLiteConnector):
    """Does nothing when it should drop a database."""

    noticed_by = frozenset({"test_databases_come_and_go"})

    async def drop_database(self) -> None:
        """Drop nothing."""


class CopiesNothing(Fault, SQLiteConnector):
    """Creates an empty database where a copy was asked for."""

    noticed_by = frozenset({"test_databases_are_copied"})

    async def create_database(self, *, template: str | None = None) -> None:
        await super().create_database()


class LeaksAConnection(Fault, SQLiteConnector):
    """Looks something up on a connection of its own, and does not give it back."""

    noticed_by = frozenset({"test_one_at_a_time_migrates"})

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        await super().unlock_migrations(connection)
        self.kept = await connection.engine.connect()


class SkipsForUpdate(Fault, SQLiteConnector):
    """Knows one answer to rows that are there."""

    noticed_by = frozenset({"test_rows_that_are_there_are_updated_or_skipped"})

    def insert_on_conflict(self, load: Any, key: Any, on_conflict: Any) -> Any:
        return super().insert_on_conflict(load, key, "skip")


class RestoresNothing(Fault, SQLiteConnector):
    """Leaves foreign keys off behind a migration."""

    noticed_by = frozenset({"test_foreign_keys_are_suspended_for_a_while"})

    async def restore_foreign_keys(self, connection: AsyncConnection) -> None:
        """Restore nothing."""


class DeclaresTooMuch(Fault, SQLiteConnector):
    """Declares an error that nobody can bring about."""

    noticed_by = frozenset({"test_each_declared_error_is_brought_about"})
    capabilities = replace(
        SQLiteConnector.capabilities,
        errors=SQLiteConnector.capabilities.errors | {PermissionDeniedError},
    )


class SeesNoEnd(Fault, SQLiteConnector):
    """Takes connections that were closed for open ones."""

    noticed_by = frozenset({"test_what_was_closed_is_known"})

    def is_closed(self, driver_connection: Any) -> bool:
        return False


FAULTS = faults_of(globals())
