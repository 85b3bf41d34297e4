"""
Connectors with one realistic fault each, and the checks of the suite that must notice it.

Each is a first-party connector that works, with one thing gone wrong.
"""

import asyncio
import inspect
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from moorage import (
    CheckViolationError,
    ConnectionLostError,
    Database,
    DatabaseError,
    DBConnector,
    Diagnosis,
    ExclusionViolationError,
    ForeignKeyViolationError,
    SerializationError,
    StatementCancelledError,
    StatementSyntaxError,
    StatementTimeoutError,
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
        "test_hosts_are_tried_in_turn",
        "test_reads_go_to_the_read_host",
        "test_what_is_declared_is_checked",
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


class ClosesNothing(Broken, SQLiteConnector):
    """Keeps connections open when its engine is disposed."""

    noticed_by = frozenset(
        {
            "test_disposal_ends_everything",
            "test_disposal_without_patience_closes_what_comes_back",
        }
    )

    def get_engine_args(self) -> dict[str, Any]:
        return {**super().get_engine_args(), "poolclass": _Undying}


class LosesCommits(Broken, SQLiteConnector):
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


class CommitsOnClose(Broken, SQLiteConnector):
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
    noticed_by = frozenset(
        {
            "test_a_collision_is_named",
            "test_a_deferrable_unit_only_reads",
            "test_isolation_levels_are_set",
        }
    )

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


class WritesInReadSessions(Broken, PostgresConnector):
    """Declares connections that refuse writes, and does nothing to them."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_read_session_refuses_writes"})

    async def make_read_only(self, driver_connection: Any) -> None:
        """Make nothing of it."""


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
        {
            "test_a_missing_database_is_named",
            "test_a_server_without_proof_is_refused",
            "test_a_wrong_password_is_refused",
            "test_an_absent_server_is_unavailable",
        }
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


class SwallowsRollbacks(Broken, PostgresConnector):
    """Takes a transaction that failed for one that is over."""

    backend = "postgres"
    # The next user of the connection goes on in a transaction of somebody else.
    noticed_by = frozenset(
        {
            "test_a_long_statement_is_ended",
            "test_a_read_only_unit_refuses_writes",
            "test_a_session_that_is_closed_rolls_back",
            "test_an_exception_rolls_back",
            "test_errors_are_classified",
            "test_failures_are_errors_of_both_trees",
            "test_limits_of_a_unit_end_with_it",
            "test_many_rows_arrive_whole",
            "test_schema_changes_are_undone",
        }
    )

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.do_rollback = lambda connection: None
        return engine

    def in_transaction(self, driver_connection: Any) -> bool | None:
        return False


class SwallowsCancellation(Broken, SQLiteConnector):
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


class ForgetsDeferrable(Broken, PostgresConnector):
    """Knows two kinds of access, and declares three."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_deferrable_unit_only_reads"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return {"postgresql_readonly": True} if access == "read only" else {}


class KeepsLimits(Broken, SQLiteConnector):
    """Gives a connection back with the limits of the unit that had it."""

    noticed_by = frozenset({"test_limits_of_a_unit_end_with_it"})

    def _restore_limits(self, *arguments: Any) -> None:
        """Restore nothing."""


class PromisesLimits(Broken, SQLiteConnector):
    """Declares limits of units, and inherits the method that has none."""

    noticed_by = frozenset(
        {"test_what_is_declared_is_checked", "test_limits_of_a_unit_end_with_it"}
    )
    limit_transaction = DBConnector.limit_transaction


class TakesCollisionsForErrors(Broken, PostgresConnector):
    """Does not know the code of a collision, though it declares it."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_collision_is_named"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is SerializationError:
            return self.diagnose(DatabaseError, str(error), diagnosis.code)
        return diagnosis


class ClaimsOneWriter(Broken, PostgresConnector):
    """Declares that one transaction writes at a time, where several do."""

    backend = "postgres"
    noticed_by = frozenset({"test_there_is_one_writer_at_a_time"})
    capabilities = replace(PostgresConnector.capabilities, single_writer=True)


class LeavesIdleTransactions(Broken, PostgresConnector):
    """Declares that idle transactions are ended, and does not ask the server for it."""

    backend = "postgres"
    noticed_by = frozenset({"test_an_idle_transaction_is_ended"})

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        arguments["connect_args"]["server_settings"].pop("idle_in_transaction_session_timeout")
        return arguments


class MisjudgesItsOwn(Broken, PostgresConnector):
    """Has an error that only its backend knows, and takes it for another one."""

    backend = "postgres"
    noticed_by = frozenset({"test_own_provocations_are_classified"})

    @staticmethod
    async def overlap(database: Database) -> None:
        """Store two ranges that overlap."""
        async with database.unit_of_work() as session:
            await session.execute(
                text("CREATE TABLE stay (during int4range, EXCLUDE USING gist (during WITH &&))")
            )
            for _ in range(2):
                await session.execute(text("INSERT INTO stay VALUES (int4range(1, 5))"))

    provocations: ClassVar[Mapping[Any, Any]] = {ExclusionViolationError: overlap}

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is ExclusionViolationError:
            return self.diagnose(CheckViolationError, str(error), diagnosis.code)
        return diagnosis


class TakesTimeOutsForRequests(Broken, SQLiteConnector):
    """Says of a statement whose time was over that somebody had ended it."""

    noticed_by = frozenset({"test_a_long_statement_is_ended"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is StatementTimeoutError:
            return self.diagnose(StatementCancelledError, str(error), diagnosis.code)
        return diagnosis


class TakesLossForAnError(Broken, PostgresConnector):
    """Says of a connection that was lost that a statement failed."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_lost_connection_is_named", "test_an_idle_transaction_is_ended"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is ConnectionLostError:
            return self.diagnose(DatabaseError, str(error), diagnosis.code)
        return diagnosis


class SkipsTLS(Broken, PostgresConnector):
    """Takes the settings of TLS, and connects without."""

    backend = "postgres"
    noticed_by = frozenset({"test_a_server_without_proof_is_refused"})

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        arguments["connect_args"]["ssl"] = False
        return arguments


class ClaimsSeveralHosts(Broken, PostgresConnector):
    """Takes a list of hosts, and looks at the first one."""

    backend = "postgres"
    noticed_by = frozenset({"test_hosts_are_tried_in_turn"})
    capabilities = replace(PostgresConnector.capabilities, several_hosts=True)


class ClaimsReadHosts(Broken, PostgresConnector):
    """Takes a host for reads, and asks the other one."""

    backend = "postgres"
    noticed_by = frozenset({"test_reads_go_to_the_read_host"})
    capabilities = replace(PostgresConnector.capabilities, read_hosts=True)


class StreamsOnePage(Broken, SQLiteConnector):
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


class KeepsDatabases(Broken, SQLiteConnector):
    """Does nothing when it should drop a database."""

    noticed_by = frozenset({"test_databases_come_and_go"})

    async def drop_database(self) -> None:
        """Drop nothing."""


class CopiesNothing(Broken, SQLiteConnector):
    """Creates an empty database where a copy was asked for."""

    noticed_by = frozenset({"test_databases_are_copied"})

    async def create_database(self, *, template: str | None = None) -> None:
        await super().create_database()


class LocksForATransaction(Broken, PostgresConnector):
    """Takes a lock for migrations that ends with the first transaction."""

    backend = "postgres"
    noticed_by = frozenset({"test_one_at_a_time_migrates"})

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        async with connection.begin():
            return bool(await connection.scalar(text("SELECT pg_try_advisory_xact_lock(1)")))


class LeaksAConnection(Broken, SQLiteConnector):
    """Looks something up on a connection of its own, and does not give it back."""

    noticed_by = frozenset({"test_one_at_a_time_migrates"})

    async def unlock_migrations(self, connection: AsyncConnection) -> None:
        await super().unlock_migrations(connection)
        self.kept = await connection.engine.connect()


class LosesTheLastRow(Broken, PostgresConnector):
    """Loads all rows of a chunk but one."""

    backend = "postgres"
    noticed_by = frozenset({"test_many_rows_arrive_whole"})

    async def load_rows(self, connection: AsyncConnection, load: Any, rows: Any) -> None:
        await super().load_rows(connection, load, rows[:-1])


class SkipsForUpdate(Broken, SQLiteConnector):
    """Knows one answer to rows that are there."""

    noticed_by = frozenset({"test_rows_that_are_there_are_updated_or_skipped"})

    def insert_on_conflict(self, load: Any, key: Any, on_conflict: Any) -> Any:
        return super().insert_on_conflict(load, key, "skip")


class RestoresNothing(Broken, SQLiteConnector):
    """Leaves foreign keys off behind a migration."""

    noticed_by = frozenset({"test_foreign_keys_are_suspended_for_a_while"})

    async def restore_foreign_keys(self, connection: AsyncConnection) -> None:
        """Restore nothing."""


class TakesReadsForWrites(Broken, PostgresConnector):
    """Says that whatever has begun has written."""

    backend = "postgres"
    noticed_by = frozenset({"test_writes_are_told"})

    async def has_written(self, connection: AsyncConnection) -> bool:
        return connection.in_transaction()


BROKEN: list[type[Any]] = [
    kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Broken) and issubclass(kind, DBConnector)
]
