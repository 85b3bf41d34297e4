"""
The tests that every connector has to pass, whoever wrote it and whatever its backend is.

A connector's own test file is a subclass with one fixture::

    class TestDuckConnector(ConnectorSuite):
        @pytest.fixture
        def settings(self) -> DatabaseSettings:
            return DatabaseSettings(type="duck", name="an empty database", _env_file=None)

What a backend cannot do is declared in its ``Capabilities``, and the checks for it are skipped;
what it declares, it must do. A check that fails for a reason that is understood goes into
:attr:`ConnectorSuite.expected_failures`; overriding or deleting one is refused.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.abilities import LocksMigrations, ManagesStorage
from moorage.connector import Capabilities, DBConnector
from moorage.database import Database
from moorage.errors import (
    AuthenticationError,
    CheckViolationError,
    DatabaseDisposedError,
    DatabaseError,
    DatabaseUnavailableError,
    DeadlockError,
    ForeignKeyViolationError,
    LockTimeoutError,
    NotNullViolationError,
    PoolExhaustedError,
    StatementSyntaxError,
    UndefinedObjectError,
    UniqueViolationError,
)
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings
from moorage.testing._tables import VALUES, Item, Owner, create, drop
from moorage.testing.stepper import Stepper
from moorage.unit_of_work import UnitOfWork

__all__ = ["ConnectorSuite"]

_PATIENCE_SECONDS = 30.0

_F = TypeVar("_F", bound=Callable[..., Any])


def _check(advice: str) -> Callable[[_F], _F]:
    """Add to a failure what to look at, and a deadline to the test."""

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        async def checked(self: ConnectorSuite, *args: Any, **kwargs: Any) -> None:
            reason = self.expected_failures.get(function.__name__)
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await function(self, *args, **kwargs)
            except (Exception, pytest.fail.Exception) as failure:
                if reason is not None:
                    pytest.xfail(reason)
                failure.add_note(f"What to look at: {advice}")
                raise
            if reason is not None:
                pytest.fail(f"expected_failures names {function.__name__}, which passes")

        return checked  # type: ignore[return-value]

    return decorate


class ConnectorSuite:
    """
    What every connector has to do.

    Subclass it in a test module and give it a fixture ``settings``. pytest-asyncio is needed; its
    mode does not matter.

    Class attributes:
        expected_failures: Names of checks that fail for a known reason, and the reason.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        changed = [
            name
            for name, value in vars(cls).items()
            if name.startswith("test_") and getattr(ConnectorSuite, name, value) is not value
        ]
        unknown = [name for name in cls.expected_failures if not hasattr(ConnectorSuite, name)]
        if changed or unknown:
            raise TypeError(
                f"{cls.__name__} overrides or names checks in a way that would hide failures:"
                f" {', '.join([*changed, *unknown])}; put a check that cannot pass into"
                " expected_failures, with the reason, or declare less in Capabilities"
            )

    @pytest.fixture
    def settings(self) -> DatabaseSettings:
        """Return the settings of an empty database; every subclass gives its own."""
        raise NotImplementedError("give your suite a fixture `settings`; see ConnectorSuite")

    @pytest_asyncio.fixture
    async def database(self, settings: DatabaseSettings) -> AsyncIterator[Database]:
        """Return the database with the suite's tables; nothing may be checked out at the end."""
        database = Database(settings)
        async with database.engine.begin() as connection:
            await drop(connection)
            await create(connection)
        async with database.unit_of_work() as session:
            session.add_all([Owner(id=1, name="ada"), Owner(id=2, name="bob")])
        yield database
        if database.state != "disposed":
            in_use = database.pool_statistics().in_use
            async with database.engine.begin() as connection:
                await drop(connection)
            await database.dispose(drain_seconds=0)
            assert in_use == 0, "a connection was not given back to the pool"

    # Settings, URL, engine

    @_check("get_url and get_engine_args: they are called before any loop runs, and only compute")
    async def test_building_does_no_input_or_output(self, settings: DatabaseSettings) -> None:
        """Building a connector, its URL and its arguments opens nothing."""
        with _watch_connects() as connects:
            connector = get_connector(settings)
            connector.get_url()
            connector.get_engine_args()
        assert connects == []

    @_check("build_url: it hands the password over in the clear, to SQLAlchemy and nobody else")
    async def test_the_password_is_used_and_not_shown(self, settings: DatabaseSettings) -> None:
        """The driver gets the real password, and nothing that can be printed has it."""
        if not _capabilities(settings).networked:
            pytest.skip("Capabilities.networked is false: there is no password")
        secret = "s3cret-and-long"  # noqa: S105
        connector = get_connector(settings.model_copy(update={"password": _secret(secret)}))
        assert connector.get_url().password == secret
        database = Database(connector=connector)
        shown = f"{database!r} {database.engine!r} {connector!r} {connector.get_url()!r}"
        assert secret not in shown
        await database.dispose()

    # Life

    @_check("create_engine: return the engine of super(), and add listeners to that")
    async def test_disposal_ends_everything(self, database: Database) -> None:
        """A disposed database has no connection left, and refuses to open one."""
        ended: list[object] = []
        event.listen(database.engine.sync_engine, "close", lambda *_: ended.append(_))
        idle = database.pool_statistics().idle
        await database.dispose()
        assert len(ended) == idle > 0
        with pytest.raises(DatabaseDisposedError):
            await database.ping()

    @_check("get_engine_args: extend the result of super(), which has the pool")
    async def test_a_dry_pool_says_so(self, settings: DatabaseSettings) -> None:
        """Running out of connections is moorage's own error, within its deadline."""
        small = settings.model_copy(
            update={"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.05}
        )
        async with Database(small) as database, database.engine.connect():
            with pytest.raises(PoolExhaustedError):
                await database.ping()

    # Transactions

    @_check("the dialect's COMMIT, and whether another connection sees the same database")
    async def test_a_unit_commits(self, database: Database) -> None:
        """What a unit stored is there for another connection."""
        async with database.unit_of_work() as session:
            session.add(Owner(id=3, name="eve"))
        assert await _names(database) == ["ada", "bob", "eve"]

    @_check("the dialect's ROLLBACK: is a transaction open at all when the first statement runs?")
    async def test_an_exception_rolls_back(self, database: Database) -> None:
        """A unit that fails stores nothing."""
        with pytest.raises(LookupError):
            async with database.unit_of_work() as session:
                session.add(Owner(id=3, name="eve"))
                await session.flush()
                raise LookupError
        assert await _names(database) == ["ada", "bob"]

    @_check("autocommit of the driver, and what it does when a connection is closed")
    async def test_a_session_that_is_closed_rolls_back(self, database: Database) -> None:
        """A session that ends without a commit stores nothing."""
        async with database.session() as session:
            await session.execute(insert(Owner).values(id=3, name="eve", balance=0))
        assert await _names(database) == ["ada", "bob"]

    @_check("what the driver leaves behind when a task is cancelled while it waits for it")
    async def test_cancellation_anywhere_leaves_nothing(self, settings: DatabaseSettings) -> None:
        """A unit that is cancelled anywhere leaves nothing behind, and says truly so."""
        small = settings.model_copy(update={"pool_size": 1, "max_overflow": 0})
        async with Database(small) as database, Database(settings) as watcher:
            await self._prepare(watcher)
            point = 0
            while True:
                point += 1
                unit = database.unit_of_work()
                stepper = Stepper(_insert_one(unit, 100 + point), point)
                task = asyncio.create_task(_finish(stepper))
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert database.pool_statistics().in_use == 0, f"leaked at point {point}"
                stored = await _has_owner(watcher, 100 + point)
                assert stored == (unit.outcome == "committed"), f"untrue at point {point}"
                if not stepper.cancelled:
                    assert outcome is None
                    break
                assert isinstance(outcome, asyncio.CancelledError), f"swallowed at point {point}"
            assert point > 1, "the driver never waits: it blocks the event loop"
            async with watcher.engine.begin() as connection:
                await drop(connection)

    @_check("Capabilities.savepoints, and the dialect's SAVEPOINT")
    async def test_a_savepoint_undoes_a_part(self, database: Database) -> None:
        """What failed inside a savepoint is undone, and the rest is stored."""
        if not database.connector.capabilities.savepoints:
            pytest.skip("Capabilities.savepoints is false")
        unit = database.unit_of_work()
        async with unit as session:
            session.add(Owner(id=3, name="eve"))
            with pytest.raises(LookupError):
                async with unit.savepoint():
                    session.add(Owner(id=4, name="zoe"))
                    await session.flush()
                    raise LookupError
        assert await _names(database) == ["ada", "bob", "eve"]

    @_check("Capabilities.isolation_levels: each must be one that the dialect can set and read")
    async def test_isolation_levels_are_set(self, database: Database) -> None:
        """A unit runs in the level it asks for, and the next one on the connection does not."""
        levels = sorted(database.connector.capabilities.isolation_levels)
        if not levels:
            pytest.skip("Capabilities.isolation_levels is empty")
        async with database.unit_of_work() as session:
            usual = await (await session.connection()).get_isolation_level()
        for level in levels:
            async with database.unit_of_work(isolation_level=level) as session:
                assert await (await session.connection()).get_isolation_level() == level
            async with database.unit_of_work() as session:
                assert await (await session.connection()).get_isolation_level() == usual

    @_check("get_execution_options('read only'), and Capabilities.read_only_transactions")
    async def test_a_read_only_unit_refuses_writes(self, database: Database) -> None:
        """The database refuses a write in a unit that only reads, and stores nothing."""
        if not database.connector.capabilities.read_only_transactions:
            pytest.skip("Capabilities.read_only_transactions is false")
        with pytest.raises(DatabaseError):
            async with database.unit_of_work(read_only=True) as session:
                assert len(await _owners(session)) == 2
                await session.execute(update(Owner).values(balance=1))
        async with database.session() as session:
            assert [owner.balance for owner in await _owners(session)] == [0, 0]

    @_check("Capabilities.transactional_ddl")
    async def test_schema_changes_are_undone(self, database: Database) -> None:
        """A table that was made in a transaction that rolled back is not there."""
        if not database.connector.capabilities.transactional_ddl:
            pytest.skip("Capabilities.transactional_ddl is false")
        table = Table("moorage_ddl", MetaData(), Column("id", Integer))
        with pytest.raises(LookupError):
            async with database.engine.begin() as connection:
                await connection.run_sync(table.create)
                raise LookupError
        async with database.engine.begin() as connection:
            await connection.run_sync(table.create)
            await connection.run_sync(table.drop)

    # Concurrency

    @_check("the isolation of the backend; a single writer must lock before it reads")
    async def test_concurrent_units_lose_no_update(self, database: Database) -> None:
        """Units that read, add one and write at the same time are all counted."""

        connected = 0
        start = asyncio.Event()

        async def add_one() -> None:
            nonlocal connected
            async with database.unit_of_work() as session:
                await session.connection()
                connected += 1
                if connected == units:
                    start.set()
                await start.wait()  # none may be done before the last one is there
                owner = await session.get_one(Owner, 1, with_for_update=True)
                owner.balance += 1

        units = min(10, database.pool_statistics().capacity)
        await asyncio.gather(*(add_one() for _ in range(units)))
        async with database.session() as session:
            assert (await session.get_one(Owner, 1)).balance == units

    @_check("the driver: does it wait inside of the event loop's thread?")
    async def test_waiting_for_a_lock_blocks_nobody(self, database: Database) -> None:
        """While one task waits for a lock, the others go on, the one that holds it included."""

        async def second() -> None:
            async with database.unit_of_work() as session:
                await session.execute(update(Owner).where(Owner.id == 1).values(balance=2))

        async with database.unit_of_work() as session:
            await session.execute(update(Owner).where(Owner.id == 1).values(balance=1))
            sent = _next_statement(database)
            task = asyncio.create_task(second())
            await sent.wait()
            # It has gone to the driver: this task goes on because the other one waits, or never.
        await task
        async with database.session() as session:
            assert (await session.get_one(Owner, 1)).balance == 2

    # Errors

    @_check("classify_error, and what SQLAlchemy raises for a failing statement of this dialect")
    async def test_failures_are_errors_of_both_trees(self, database: Database) -> None:
        """Whatever fails is moorage's error and SQLAlchemy's at once, and says its next step."""
        for statement in ("SELECT * FROM moorage_nowhere", "SELEC 1"):
            with pytest.raises(DatabaseError) as caught:
                async with database.session() as session:
                    await session.execute(text(statement))
            assert isinstance(caught.value, sa_exc.SQLAlchemyError)

    @_check("classify_error: the code of this violation; or declare less in Capabilities.errors")
    @pytest.mark.parametrize(
        "kind",
        [
            UniqueViolationError,
            ForeignKeyViolationError,
            NotNullViolationError,
            CheckViolationError,
            UndefinedObjectError,
            StatementSyntaxError,
        ],
    )
    async def test_errors_are_classified(
        self, database: Database, kind: type[DatabaseError]
    ) -> None:
        """Each error that the connector declares is raised as its class, and stores nothing."""
        _skip_unless_declared(database, kind)
        statements: dict[type[DatabaseError], Any] = {
            UniqueViolationError: insert(Owner).values(id=3, name="ada", balance=0),
            ForeignKeyViolationError: insert(Item).values(id=1, owner_id=99),
            NotNullViolationError: text(
                "INSERT INTO moorage_owner (id, name, balance) VALUES (3, NULL, 0)"
            ),
            CheckViolationError: update(Owner).values(balance=-5000),
            UndefinedObjectError: text("SELECT * FROM moorage_nowhere"),
            StatementSyntaxError: text("SELEC 1"),
        }
        with pytest.raises(kind):
            async with database.unit_of_work() as session:
                await session.execute(delete(Item))
                await session.execute(statements[kind])
        assert await _names(database) == ["ada", "bob"]

    @_check("lock_timeout_seconds: who enforces it; or declare less in Capabilities.errors")
    async def test_waiting_for_a_lock_has_an_end(self, settings: DatabaseSettings) -> None:
        """A lock that is not free in time is a LockTimeoutError."""
        impatient = settings.model_copy(update={"lock_timeout_seconds": 1.0})
        async with Database(impatient) as database:
            _skip_unless_declared(database, LockTimeoutError)
            await self._prepare(database)
            async with database.unit_of_work() as session:
                await session.execute(update(Owner).values(balance=1))
                with pytest.raises(LockTimeoutError):
                    async with database.unit_of_work() as other:
                        await other.execute(update(Owner).values(balance=2))
            async with database.engine.begin() as connection:
                await drop(connection)

    @_check("classify_error: the code of a deadlock; or declare less in Capabilities.errors")
    async def test_a_deadlock_is_named(self, database: Database) -> None:
        """Of two units that wait for each other one is undone with a DeadlockError."""
        _skip_unless_declared(database, DeadlockError)
        both_hold_one = asyncio.Barrier(2)

        async def take(first: int, second: int) -> None:
            async with database.unit_of_work() as session:
                await session.execute(update(Owner).where(Owner.id == first).values(balance=1))
                await both_hold_one.wait()
                await session.execute(update(Owner).where(Owner.id == second).values(balance=1))

        outcomes = await asyncio.gather(take(1, 2), take(2, 1), return_exceptions=True)
        raised = [outcome for outcome in outcomes if outcome is not None]
        assert len(raised) == 1
        assert isinstance(raised[0], DeadlockError)

    @_check("connecting: what the driver raises there must be an OSError or be classified")
    async def test_an_absent_server_is_unavailable(self, settings: DatabaseSettings) -> None:
        """A port on which nobody listens is a DatabaseUnavailableError, within the deadline."""
        if not _capabilities(settings).networked:
            pytest.skip("Capabilities.networked is false")
        async with Database(settings.model_copy(update={"port": 1})) as database:
            with pytest.raises(DatabaseUnavailableError):
                await database.ping()

    @_check("classify_error while connecting; or declare less in Capabilities.errors")
    async def test_a_wrong_password_is_refused(self, settings: DatabaseSettings) -> None:
        """A wrong password is an AuthenticationError, which is not worth trying again."""
        if not _capabilities(settings).networked:
            pytest.skip("Capabilities.networked is false")
        wrong = settings.model_copy(update={"password": _secret("certainly wrong")})
        async with Database(wrong) as database:
            _skip_unless_declared(database, AuthenticationError)
            with pytest.raises(AuthenticationError) as caught:
                await database.ping()
            assert not caught.value.is_transient

    # Values and rows

    @_check("the dialect's types, and the session's time zone and character set")
    @pytest.mark.parametrize("kind", VALUES)
    async def test_values_come_back_as_they_went(self, database: Database, kind: str) -> None:
        """A value that is stored is read back equal, by another connection."""
        type_, value = VALUES[kind]
        table = Table("moorage_value", MetaData(), Column("value", type_))
        async with database.engine.begin() as connection:
            await connection.run_sync(lambda below: table.drop(below, checkfirst=True))
            await connection.run_sync(table.create)
        try:
            async with database.unit_of_work() as session:
                await session.execute(insert(table).values(value=value))
            async with database.session() as session:
                found = (await session.execute(select(table.c.value))).scalar_one()
        finally:
            async with database.engine.begin() as connection:
                await connection.run_sync(table.drop)
        if kind == "aware datetime" and found.tzinfo is None:
            found = found.replace(tzinfo=value.tzinfo)  # the column type forgets it: UTC is read
        assert found == value
        assert isinstance(found, type(value))

    @_check("server-side cursors of the driver (execution option stream_results)")
    async def test_rows_are_streamed(self, database: Database) -> None:
        """Rows that are read a few at a time come in order, and a stream may be left half-way."""
        async with database.unit_of_work() as session:
            rows = [{"id": n, "name": f"n{n}", "balance": n} for n in range(10, 510)]
            await session.execute(insert(Owner), rows)
        statement = select(Owner.balance).where(Owner.id >= 10).order_by(Owner.id)
        for limit in (500, 20):
            seen = []
            async with database.unit_of_work() as session:
                stream = await session.stream_scalars(statement.execution_options(yield_per=50))
                async for balance in stream:
                    seen.append(balance)
                    if len(seen) == limit:
                        break
            assert seen == list(range(10, 10 + limit))

    # Abilities

    @_check("create_database and drop_database; Capabilities.template_databases")
    async def test_databases_come_and_go(self, settings: DatabaseSettings) -> None:
        """A database is created once, dropped with or without being there, and can be copied."""
        connector = get_connector(settings)
        copies = connector.capabilities.template_databases
        if not isinstance(connector, ManagesStorage):
            assert not copies, "Capabilities.template_databases needs ManagesStorage"
            pytest.skip("the connector has no create_database: it does not manage storage")
        new = _storage(settings, f"{settings.name}_new")
        copy = _storage(settings, f"{settings.name}_copy")
        await new.drop_database()
        try:
            assert not await new.database_exists()
            await new.create_database()
            assert await new.database_exists()
            with pytest.raises(DatabaseError):
                await new.create_database()
            async with Database(_named(settings, f"{settings.name}_new")) as database:
                await self._prepare(database)
            if copies:
                await copy.create_database(template=f"{settings.name}_new")
                async with Database(_named(settings, f"{settings.name}_copy")) as database:
                    assert await _names(database) == ["ada"]
            await new.drop_database()
            assert not await new.database_exists()
        finally:
            await new.drop_database()
            await copy.drop_database()

    @_check("try_lock_migrations: the lock belongs to a connection, and ends with it")
    async def test_one_at_a_time_migrates(self, database: Database) -> None:
        """One connection has the lock for migrations, until it unlocks or is closed."""
        connector = database.connector
        if not isinstance(connector, LocksMigrations):
            pytest.skip("the connector has no try_lock_migrations")
        async with database.engine.connect() as first, database.engine.connect() as second:
            assert await connector.try_lock_migrations(first)
            assert not first.in_transaction()
            assert not await connector.try_lock_migrations(second)
            async with first.begin():
                await first.execute(select(1))
            assert not await connector.try_lock_migrations(second), "it ended with a transaction"
            await connector.unlock_migrations(first)
            assert await connector.try_lock_migrations(second)
            await second.invalidate()
            while not await connector.try_lock_migrations(first):  # the server has to notice
                await asyncio.sleep(0.01)
            await connector.unlock_migrations(first)

    async def _prepare(self, database: Database) -> None:
        async with database.engine.begin() as connection:
            await drop(connection)
            await create(connection)
        async with database.unit_of_work() as session:
            session.add(Owner(id=1, name="ada"))


_watchers: list[list[str]] = []


def _audit(event: str, arguments: object) -> None:
    if _watchers and event.endswith(".connect"):
        _watchers[-1].append(event)


@contextmanager
def _watch_connects() -> Iterator[list[str]]:
    """Collect what Python's auditing calls connecting: of sockets, and of databases in files."""
    if _audit not in _installed:
        sys.addaudithook(_audit)  # for the rest of the process; it does nothing outside of here
        _installed.append(_audit)
    _watchers.append([])
    try:
        yield _watchers[-1]
    finally:
        _watchers.pop()


_installed: list[Callable[[str, object], None]] = []


def _capabilities(settings: DatabaseSettings) -> Capabilities:
    connector: DBConnector = get_connector(settings)
    return connector.capabilities


def _skip_unless_declared(database: Database, kind: type[DatabaseError]) -> None:
    if kind not in database.connector.capabilities.errors:
        pytest.skip(f"Capabilities.errors does not have {kind.__name__}")


def _named(settings: DatabaseSettings, name: str) -> DatabaseSettings:
    return settings.replaced("the suite", name=name)


def _storage(settings: DatabaseSettings, name: str) -> ManagesStorage:
    connector = get_connector(_named(settings, name))
    assert isinstance(connector, ManagesStorage)
    return connector


def _next_statement(database: Database) -> asyncio.Event:
    """Return an event that is set in the moment before a statement goes to the driver."""
    sent = asyncio.Event()
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *_: sent.set(), once=True
    )
    return sent


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


async def _owners(session: AsyncSession) -> list[Owner]:
    return list(await session.scalars(select(Owner).order_by(Owner.id)))


async def _names(database: Database) -> list[str]:
    async with database.session() as session:
        return [owner.name for owner in await _owners(session)]


async def _has_owner(database: Database, key: int) -> bool:
    async with database.session() as session:
        count = select(func.count()).select_from(Owner).where(Owner.id == key)
        return bool((await session.execute(count)).scalar_one())


async def _insert_one(unit: UnitOfWork, key: int) -> None:
    async with unit as session:
        session.add(Owner(id=key, name=f"owner {key}"))
        await session.flush()
        await session.execute(select(Owner).where(Owner.id == key))


async def _finish(work: Awaitable[Any]) -> None:
    await work
