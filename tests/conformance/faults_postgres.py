"""Faults of a connector that need a server to be noticed, and two connectors that are right."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import DateTime, TypeDecorator

from moorage import (
    Admin,
    CheckViolationError,
    ConnectionLostError,
    DatabaseError,
    Diagnosis,
    ExclusionViolationError,
    Identity,
    MigrationFinding,
    SerializationError,
    ServerFacts,
    StatementSyntaxError,
    TransactionAbortedError,
)
from moorage_postgres import PostgresConnector
from tests.conformance.fault import CHECKS, Fault, faults_of


class LogsInWithAsterisks(Fault, PostgresConnector):
    """Hands the masked password to the driver, as whoever prints a SecretStr does."""

    # Nothing that needs a connection works.
    noticed_by = CHECKS - {
        "test_building_does_no_input_or_output",
        "test_each_declared_error_is_brought_about",
        "test_hosts_are_tried_in_turn",
        "test_reads_go_to_the_read_host",
        "test_what_is_declared_is_checked",
        "test_a_wrong_password_is_refused",
        "test_an_absent_server_is_unavailable",
        "test_dangerous_migrations_are_found",
    }

    def get_url(self) -> URL:
        return super().get_url().set(password=str(self.settings.password))


class ShowsThePassword(Fault, PostgresConnector):
    """Prints its settings, password included, and tells them whoever examines the server."""

    noticed_by = frozenset(
        {"test_the_password_is_used_and_not_shown", "test_the_server_is_examined"}
    )

    def __repr__(self) -> str:
        password = self.settings.password
        return f"<connector {'' if password is None else password.get_secret_value()}>"

    async def examine_server(self, engine: AsyncEngine) -> ServerFacts:
        return replace(await super().examine_server(engine), details={"connector": repr(self)})


class IgnoresIsolation(Fault, PostgresConnector):
    """Declares levels and does not set them."""

    noticed_by = frozenset(
        {
            "test_a_collision_is_named",
            "test_a_deferrable_unit_only_reads",
            "test_an_identity_that_cannot_be_bound_is_refused",
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


class WritesInReadSessions(Fault, PostgresConnector):
    """Declares connections that refuse writes, and does nothing to them."""

    noticed_by = frozenset({"test_a_read_session_refuses_writes"})

    async def make_read_only(self, driver_connection: Any) -> None:
        """Make nothing of it."""


class TakesDeadlocksForCollisions(Fault, PostgresConnector):
    """Knows neither deadlocks nor locks that are not free, though it declares them."""

    noticed_by = frozenset({"test_a_deadlock_is_named", "test_waiting_for_a_lock_has_an_end"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.code in {"40P01", "55P03"}:
            return self.diagnose(SerializationError, str(error), diagnosis.code)
        return diagnosis


class TakesAbsenceForSyntax(Fault, PostgresConnector):
    """Judges failures of connecting as if a statement had failed."""

    noticed_by = frozenset(
        {
            "test_a_missing_database_is_named",
            "test_a_server_without_proof_is_refused",
            "test_a_wrong_password_is_refused",
            "test_an_absent_server_is_unavailable",
            "test_own_provocations_are_classified",
        }
    )

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        if statement is None:
            return self.diagnose(StatementSyntaxError, str(error))
        return super().classify_error(error, statement=statement)


class SwallowsRollbacks(Fault, PostgresConnector):
    """Takes a transaction that failed for one that is over."""

    # The next user of the connection goes on in a transaction of somebody else.
    noticed_by = frozenset(
        {
            "test_a_long_statement_is_ended",
            "test_a_read_only_unit_refuses_writes",
            "test_a_session_that_is_closed_rolls_back",
            "test_a_transaction_that_is_over_is_named",
            "test_an_exception_rolls_back",
            "test_an_identity_ends_with_its_transaction",
            "test_an_identity_that_cannot_be_bound_is_refused",
            "test_errors_are_classified",
            "test_failures_are_errors_of_both_trees",
            "test_limits_of_a_unit_end_with_it",
            "test_many_rows_arrive_whole",
            "test_open_transactions_are_known",
            "test_own_provocations_are_classified",
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


class ForgetsDeferrable(Fault, PostgresConnector):
    """Knows two kinds of access, and declares three."""

    noticed_by = frozenset({"test_a_deferrable_unit_only_reads"})

    def get_execution_options(self, access: Any) -> Mapping[str, Any]:
        return {"postgresql_readonly": True} if access == "read only" else {}


class TakesCollisionsForErrors(Fault, PostgresConnector):
    """Does not know the code of a collision, though it declares it."""

    noticed_by = frozenset({"test_a_collision_is_named"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is SerializationError:
            return self.diagnose(DatabaseError, str(error), diagnosis.code)
        return diagnosis


class ClaimsOneWriter(Fault, PostgresConnector):
    """Declares that one transaction writes at a time, where several do."""

    noticed_by = frozenset({"test_there_is_one_writer_at_a_time"})
    capabilities = replace(PostgresConnector.capabilities, single_writer=True)


class LeavesIdleTransactions(Fault, PostgresConnector):
    """Declares that idle transactions are ended, and does not ask the server for it."""

    noticed_by = frozenset({"test_an_idle_transaction_is_ended"})

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        arguments["connect_args"]["server_settings"].pop("idle_in_transaction_session_timeout")
        return arguments


class MisjudgesItsOwn(Fault, PostgresConnector):
    """Has an error that only its backend knows, and takes it for another one."""

    noticed_by = frozenset({"test_own_provocations_are_classified"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is ExclusionViolationError:
            return self.diagnose(CheckViolationError, str(error), diagnosis.code)
        return diagnosis


class TakesLossForAnError(Fault, PostgresConnector):
    """Says of a connection that was lost that a statement failed."""

    noticed_by = frozenset({"test_a_lost_connection_is_named", "test_an_idle_transaction_is_ended"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is ConnectionLostError:
            return self.diagnose(DatabaseError, str(error), diagnosis.code)
        return diagnosis


class SkipsTLS(Fault, PostgresConnector):
    """Takes the settings of TLS, and connects without."""

    noticed_by = frozenset({"test_a_server_without_proof_is_refused"})

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        arguments["connect_args"]["ssl"] = False
        return arguments


class ClaimsSeveralHosts(Fault, PostgresConnector):
    """Takes a list of hosts, and looks at the first one."""

    noticed_by = frozenset({"test_hosts_are_tried_in_turn"})
    capabilities = replace(PostgresConnector.capabilities, several_hosts=True)


class ClaimsReadHosts(Fault, PostgresConnector):
    """Takes a host for reads, and asks the other one."""

    noticed_by = frozenset({"test_reads_go_to_the_read_host"})
    capabilities = replace(PostgresConnector.capabilities, read_hosts=True)

    def get_read_connect_args(self) -> Mapping[str, Any]:
        return {}


class LocksForATransaction(Fault, PostgresConnector):
    """Takes a lock for migrations that ends with the first transaction."""

    noticed_by = frozenset({"test_one_at_a_time_migrates"})

    async def try_lock_migrations(self, connection: AsyncConnection) -> bool:
        async with connection.begin():
            return bool(await connection.scalar(text("SELECT pg_try_advisory_xact_lock(1)")))


class LosesTheLastRow(Fault, PostgresConnector):
    """Loads all rows of a chunk but one."""

    noticed_by = frozenset({"test_many_rows_arrive_whole"})

    async def load_rows(self, connection: AsyncConnection, load: Any, rows: Any) -> None:
        await super().load_rows(connection, load, rows[:-1])


class TakesReadsForWrites(Fault, PostgresConnector):
    """Says that whatever has begun has written."""

    noticed_by = frozenset({"test_writes_are_told"})

    async def has_written(self, connection: AsyncConnection) -> bool:
        return connection.in_transaction()


class PingsNobody(Fault, PostgresConnector):
    """Says of every connection that its server answers."""

    noticed_by = frozenset({"test_a_ping_asks_the_server"})

    async def ping(self, driver_connection: Any) -> None:
        """Ask nobody."""


class TakesAllForDone(Fault, PostgresConnector):
    """Finds no transaction on any connection."""

    # Identities are bound to transactions alone.
    noticed_by = frozenset(
        {
            "test_an_identity_ends_with_its_transaction",
            "test_an_identity_that_cannot_be_bound_is_refused",
            "test_open_transactions_are_known",
        }
    )

    def in_transaction(self, driver_connection: Any) -> bool | None:
        return False


class SaysGoodbye(Fault, PostgresConnector):
    """Tells the server, also for the parent's connections, that they are over."""

    noticed_by = frozenset({"test_connections_of_a_dead_loop_are_let_go"})

    def abandon(self, driver_connection: Any) -> None:
        driver_connection._transport.write(b"X\x00\x00\x00\x04")
        super().abandon(driver_connection)


class KeepsDescriptors(Fault, PostgresConnector):
    """Forgets the connections of a loop that is gone, and leaves them open."""

    noticed_by = frozenset({"test_connections_of_a_dead_loop_are_let_go"})

    def abandon(self, driver_connection: Any) -> None:
        driver_connection._aborted = True


class KeepsIdentities(Fault, PostgresConnector):
    """Tells the session of the server, and not the transaction, for whom it works."""

    noticed_by = frozenset({"test_an_identity_ends_with_its_transaction"})

    def bind_identity(self, connection: Connection, identity: Identity | Admin | None) -> None:
        super().bind_identity(connection, identity)
        if isinstance(identity, Identity):
            connection.execute(text(f"SET ROLE {identity.role}"))


class WorksForAnybody(Fault, PostgresConnector):
    """Looks at no list of roles."""

    noticed_by = frozenset({"test_an_identity_that_cannot_be_bound_is_refused"})

    def check_identity(self, identity: Identity | Admin) -> None:
        """Allow it."""


class TakesTheEndForAnError(Fault, PostgresConnector):
    """Does not know the code of a transaction that is over, though it declares it."""

    noticed_by = frozenset({"test_a_transaction_that_is_over_is_named"})

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        diagnosis = super().classify_error(error, statement=statement)
        if diagnosis is not None and diagnosis.kind is TransactionAbortedError:
            return self.diagnose(DatabaseError, str(error), diagnosis.code)
        return diagnosis


class _WallClock(TypeDecorator[Any]):
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value.replace(tzinfo=UTC) if value.tzinfo else value


class LosesOffsets(Fault, PostgresConnector):
    """Takes the clock of any zone for that of UTC."""

    noticed_by = frozenset({"test_values_come_back_as_they_went"})

    def create_engine(self) -> AsyncEngine:
        engine = super().create_engine()
        dialect: Any = engine.sync_engine.dialect
        dialect.colspecs = {**dialect.colspecs, DateTime: _WallClock}
        return engine


class MakesOtherKeys(Fault, PostgresConnector):
    """Takes any UUID of the server's for one that is ordered in time."""

    noticed_by = frozenset({"test_keys_of_the_server_are_uuid7"})

    def get_uuid7_function(self, dialect: Any) -> str:
        return "gen_random_uuid()"


class LintsTheFirstScript(Fault, PostgresConnector):
    """Looks at one script of several, as whoever knows one revision at a time does."""

    noticed_by = frozenset({"test_dangerous_migrations_are_found"})

    def lint_migrations(self, scripts: Mapping[str, str]) -> Sequence[MigrationFinding]:
        return super().lint_migrations(dict(list(scripts.items())[:1]))


class KnowsItsOwnTablesOnly(Fault, PostgresConnector):
    """Takes a table that it has not seen in the database yet for one of somebody else's."""

    noticed_by = frozenset({"test_migrations_see_the_users_tables"})

    def get_migration_options(
        self, given: Mapping[str, Any], connection: Connection | None
    ) -> Mapping[str, Any]:
        options = super().get_migration_options(given, connection)
        return {**options, "include_object": lambda _item, _name, _kind, is_there, _other: is_there}


class MigratesConnectedOnly(Fault, PostgresConnector):
    """Looks for the version table also where SQL is only written."""

    noticed_by = frozenset({"test_migrations_see_the_users_tables"})

    def get_migration_options(
        self, given: Mapping[str, Any], connection: Connection | None
    ) -> Mapping[str, Any]:
        connection.scalar(text("SELECT to_regclass('alembic_version')"))  # type: ignore[union-attr]  # the fault
        return super().get_migration_options(given, connection)


class FailsOver(Fault, PostgresConnector):
    """Is right: hands the driver all hosts, of which it takes the first one that answers."""

    noticed_by = frozenset()
    passes = frozenset({"test_hosts_are_tried_in_turn"})
    capabilities = replace(PostgresConnector.capabilities, several_hosts=True)

    def get_url(self) -> URL:
        return self.build_url("postgresql+asyncpg", host=None, port=None)

    def get_engine_args(self) -> dict[str, Any]:
        arguments = super().get_engine_args()
        places = self.settings.hosts
        arguments["connect_args"]["host"] = [place.host for place in places]
        arguments["connect_args"]["port"] = [place.port or self.default_port for place in places]
        return arguments


class ReadsElsewhere(Fault, PostgresConnector):
    """Is right: connects read sessions to the host for reads."""

    noticed_by = frozenset()
    passes = frozenset({"test_reads_go_to_the_read_host"})
    capabilities = replace(PostgresConnector.capabilities, read_hosts=True)

    def get_read_connect_args(self) -> Mapping[str, Any]:
        place = self.settings.read_hosts[0]
        return {"host": place.host, "port": place.port or self.default_port}


FAULTS = faults_of(globals())
