"""What the session of a unit of work refuses, and what a unit can be asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from moorage import (
    Database,
    DeadlockError,
    LockTimeoutError,
    SessionSharedError,
    SettingsError,
    StatementTimeoutError,
    TransactionAbortedError,
    UnitOfWork,
    UnitOfWorkError,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, balances, count_accounts, create_tables

# Runs until somebody ends it, on any backend.
FOREVER = {
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
    " SELECT count(*) FROM c",
    "postgresql": "SELECT pg_sleep(60)",
    "mysql": "SELECT SLEEP(60) FROM information_schema.schemata",
}


class StrangersSession(Session):
    """A session class that knows nothing of moorage."""


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables with two accounts."""
    await create_tables(database, "ada", "bob")


@pytest.fixture(params=["ours", "a stranger's"])
def sessionmaker(request: pytest.FixtureRequest, database: Database) -> Any:
    """Return our own sessionmaker, or one that was made without us."""
    if request.param == "ours":
        return database.sessionmaker
    return async_sessionmaker(database.engine, sync_session_class=StrangersSession)


@pytest.mark.parametrize("method", ["commit", "rollback", "close", "reset", "invalidate"])
async def test_only_the_unit_ends_the_transaction(sessionmaker: Any, method: str) -> None:
    """Ending the transaction inside a unit is refused, and the unit goes on as if nothing was."""
    async with UnitOfWork(sessionmaker) as session:
        session.add(Account(owner="eve"))
        with pytest.raises(UnitOfWorkError, match=rf"session\.{method}\(\) was called inside"):
            await getattr(session, method)()
        with pytest.raises(UnitOfWorkError, match=rf"session\.{method}\(\) was called inside"):
            await session.run_sync(lambda sync_session: getattr(sync_session, method)())
        assert len((await session.scalars(select(Account))).all()) == 3


async def test_a_unit_is_not_begun_twice_by_its_session(sessionmaker: Any) -> None:
    """``begin()`` inside a unit is refused, with the savepoint named as the way out."""
    async with UnitOfWork(sessionmaker) as session:
        with pytest.raises(UnitOfWorkError, match=r"session\.begin\(\)") as caught:
            async with session.begin():
                pass
        assert "unit.savepoint()" in caught.value.hint


USES: dict[str, Callable[[AsyncSession], Any]] = {
    "execute": lambda session: session.execute(select(Account)),
    "scalars": lambda session: session.scalars(select(Account)),
    "stream": lambda session: session.stream(select(Account)),
    "get": lambda session: session.get(Account, 1),
    "begin": lambda session: session.begin().start(),
    "begin_nested": lambda session: session.begin_nested().start(),
    "commit": lambda session: session.commit(),
    "connection": lambda session: session.connection(),
    "run_sync": lambda session: session.run_sync(lambda below: below.scalar(select(1))),
}


@pytest.mark.parametrize("use", USES)
async def test_the_session_of_an_ended_unit_is_refused(sessionmaker: Any, use: str) -> None:
    """Whatever would begin a transaction that nobody commits is an error after the unit."""
    unit = UnitOfWork(sessionmaker)
    async with unit as session:
        await session.execute(select(1))
    with pytest.raises(UnitOfWorkError, match="this unit of work was committed; what is done"):
        await USES[use](session)
    with pytest.raises(UnitOfWorkError):
        session.add(Account(owner="eve"))
    await session.close()


async def test_a_plain_session_would_lose_that_work(database: Database) -> None:
    """SQLAlchemy's own session begins again after its end, and what is added is lost."""
    plain = async_sessionmaker(database.engine)()
    await plain.close()
    plain.add(Account(owner="eve"))
    await plain.close()
    assert await count_accounts(database) == 2


async def _use_at_once(session: AsyncSession) -> list[BaseException | None]:
    async def read() -> None:
        await session.execute(select(Account))

    return await asyncio.gather(*(read() for _ in range(5)), return_exceptions=True)


async def test_two_tasks_on_one_session_are_named(database: Database) -> None:
    """A session that several tasks use at once says which two, whether or not it has begun."""
    for warm in (False, True):
        async with database.session() as session:
            if warm:
                await session.execute(select(1))
            failures = [failure for failure in await _use_at_once(session) if failure]
            assert {type(failure) for failure in failures} == {SessionSharedError}
            assert "used a session while task" in str(failures[0])
            # One after the other is allowed, whatever the task.
            await asyncio.create_task(_count(session))


async def _count(session: AsyncSession) -> None:
    assert len((await session.scalars(select(Account))).all()) == 2


@pytest.mark.parametrize("kind", ["unit", "session"])
async def test_a_session_that_is_ended_under_a_task_comes_back(
    make_database: DatabaseFactory, kind: str
) -> None:
    """When one of two tasks fails and the block ends, the other one gives the connection back."""
    database = make_database(pool_size=1, max_overflow=0)
    block = database.unit_of_work() if kind == "unit" else database.session()
    statement = select(Account)
    with pytest.raises(SessionSharedError):
        async with block as session:
            session.add(Account(owner="eve"))
            tasks = [asyncio.ensure_future(session.execute(statement)) for _ in range(2)]
            await asyncio.gather(*tasks)
    await asyncio.wait(tasks)
    assert database.pool_statistics().in_use == 0
    assert await count_accounts(database) == 2


async def test_a_plain_session_lets_tasks_mix(database: Database) -> None:
    """SQLAlchemy notices nothing once the connection is there."""
    async with async_sessionmaker(database.engine)() as session:
        await session.execute(select(1))
        assert await _use_at_once(session) == [None] * 5


async def test_savepoint_of_the_unit(database: Database) -> None:
    """A savepoint undoes its part, and the rest is committed."""
    unit = database.unit_of_work()
    async with unit as session:
        session.add(Account(owner="eve"))
        with pytest.raises(LookupError):
            async with unit.savepoint():
                session.add(Account(owner="zoe"))
                await session.flush()
                raise LookupError
    assert await count_accounts(database) == 3


async def test_rollback_only(database: Database) -> None:
    """A unit that is told to roll back does so, though nothing is raised."""
    unit = database.unit_of_work()
    async with unit as session:
        session.add(Account(owner="eve"))
        await session.flush()
        unit.rollback_only()
    assert unit.outcome == "rolled_back"
    assert await count_accounts(database) == 2


async def test_joining_a_unit(database: Database) -> None:
    """Code that joins a unit works in its transaction, and ends nothing."""
    unit = database.unit_of_work()
    async with unit as session:
        async with UnitOfWork.of(session).join() as joined:
            assert joined is session
            joined.add(Account(owner="eve"))
        assert unit.outcome is None
    assert unit.outcome == "committed"
    assert await count_accounts(database) == 3


async def test_a_failure_of_a_joined_block_cannot_be_swallowed(database: Database) -> None:
    """The unit rolls back if a block that had joined it failed, and says why."""
    unit = database.unit_of_work()
    failure = LookupError("no such author")
    with pytest.raises(UnitOfWorkError, match="a block that had joined") as caught:
        async with unit as session:
            session.add(Account(owner="eve"))
            with contextlib.suppress(LookupError):
                async with unit.join():
                    raise failure
    assert caught.value.__cause__ is failure
    assert unit.outcome == "rolled_back"
    assert await count_accounts(database) == 2


async def test_a_session_belongs_to_one_unit(database: Database) -> None:
    """A second unit on the session of a running one is refused, and the first is not harmed."""
    async with database.unit_of_work() as session:
        with pytest.raises(UnitOfWorkError, match="belongs to another unit"):
            await UnitOfWork(lambda: session).begin()
        session.add(Account(owner="eve"))
    assert await count_accounts(database) == 3
    with pytest.raises(UnitOfWorkError, match="does not belong to a running unit"):
        UnitOfWork.of(session)


async def test_inner_commits_become_savepoints(database: Database) -> None:
    """Code that commits and rolls back by itself does so inside the unit, which has the say."""

    async def strangers_code(session: AsyncSession) -> None:
        session.add(Account(owner="eve"))
        await session.commit()
        session.add(Account(owner="zoe"))
        await session.flush()
        await session.rollback()
        async with session.begin():
            session.add(Account(owner="kim"))
        session.add(Account(owner="max"))
        await session.close()

    async with database.unit_of_work(inner_commits="savepoint") as session:
        await strangers_code(session)
    async with database.session() as session:
        owners = (await session.scalars(select(Account.owner).order_by(Account.id))).all()
    assert owners == ["ada", "bob", "eve", "kim"]

    with pytest.raises(LookupError):
        async with database.unit_of_work(inner_commits="savepoint") as session:
            session.add(Account(owner="una"))
            await session.commit()
            raise LookupError
    assert await count_accounts(database) == 4


@contextlib.asynccontextmanager
async def _locked(database: Database) -> AsyncIterator[None]:
    async with database.unit_of_work() as session:
        await session.execute(update(Account).where(Account.id == 1).values(balance=1))
        yield


async def test_statement_limit_of_one_unit(make_database: DatabaseFactory) -> None:
    """A unit's own limit ends its statement, is named, and is gone with the unit."""
    database = make_database(
        pool_size=1, max_overflow=0, statement_timeout_seconds=50, lock_timeout_seconds=40
    )
    before = await _server_limits(database)
    statement = text(FOREVER[database.engine.dialect.name])
    with pytest.raises(StatementTimeoutError, match=r"longer than 0\.3 s \(statement_timeout"):
        async with database.unit_of_work(statement_timeout_seconds=0.3) as session:
            await session.execute(statement)
    async with database.unit_of_work(statement_timeout_seconds=3, lock_timeout_seconds=7):
        pass
    assert await _server_limits(database) == before


async def _server_limits(database: Database) -> object:
    questions = {
        "sqlite": "PRAGMA busy_timeout",
        "postgresql": "SELECT current_setting('statement_timeout'),"
        " current_setting('lock_timeout')",
        "mysql": "SELECT @@innodb_lock_wait_timeout /*M!100301 , @@max_statement_time */"
        " /*!80000 , @@max_execution_time */",
    }
    async with database.session() as session:
        return (await session.execute(text(questions[database.engine.dialect.name]))).one()


async def test_lock_limit_of_one_unit(database: Database) -> None:
    """A unit's own limit ends its wait for a lock, and is named."""
    async with _locked(database):
        with pytest.raises(LockTimeoutError, match=r"longer than 1 s \(lock_timeout_seconds of"):
            async with database.unit_of_work(lock_timeout_seconds=1) as session:
                await session.execute(update(Account).where(Account.id == 1).values(balance=2))


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_limits_are_numbers_of_seconds(database: Database, seconds: float) -> None:
    """A limit that is no number of seconds is refused before anything begins."""
    with pytest.raises(SettingsError, match="statement_timeout_seconds is"):
        database.unit_of_work(statement_timeout_seconds=seconds)


async def test_deferrable(database: Database) -> None:
    """A deferrable unit is SERIALIZABLE and READ ONLY, or refused where there is no such thing."""
    with pytest.raises(SettingsError, match="deferrable has a meaning"):
        database.unit_of_work(deferrable=True)
    unit = database.unit_of_work(read_only=True, deferrable=True)
    if not database.connector.capabilities.deferrable_transactions:
        with pytest.raises(SettingsError, match="has no deferrable transactions"):
            await unit.begin()
        return
    async with unit as session:
        modes = text("SELECT current_setting('transaction_deferrable')")
        assert (await session.execute(modes)).scalar_one() == "on"
        connection = await session.connection()
        assert await connection.get_isolation_level() == "SERIALIZABLE"


async def test_a_swallowed_error_is_no_silent_rollback(database: Database) -> None:
    """After an error that was swallowed, a unit commits all of the rest or raises."""
    unit = database.unit_of_work()
    with contextlib.suppress(TransactionAbortedError):
        async with unit as session:
            await session.execute(text("INSERT INTO account (owner, balance) VALUES ('eve', 0)"))
            with pytest.raises(sa_exc.IntegrityError):
                await session.execute(
                    text("INSERT INTO account (owner, balance) VALUES ('ada', 0)")
                )
    stored = await count_accounts(database) == 3
    assert unit.outcome == ("committed" if stored else "rolled_back")


async def test_a_plain_session_reports_success_and_stores_nothing(database: Database) -> None:
    """PostgreSQL's ROLLBACK for a COMMIT looks like success to a session without moorage."""
    url = database.engine.url
    if url.get_backend_name() != "postgresql":
        return  # the others commit what did not fail
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        await session.execute(text("INSERT INTO account (owner, balance) VALUES ('eve', 0)"))
        with pytest.raises(sa_exc.IntegrityError):
            await session.execute(text("INSERT INTO account (owner, balance) VALUES ('ada', 0)"))
        await session.commit()
    await engine.dispose()
    assert await count_accounts(database) == 2


async def test_a_plain_session_stores_half_behind_a_deadlock(database: Database) -> None:
    """On MySQL, who swallows a deadlock without moorage commits the second half alone."""
    url = database.engine.url
    if url.get_backend_name() != "mysql":
        return
    engine = create_async_engine(url)
    both_hold_one = asyncio.Barrier(2)
    undone = []

    async def work(first: int, second: int, owner: str) -> None:
        async with AsyncSession(engine) as session:
            session.add(Account(owner=f"{owner}, first half"))
            await session.flush()
            await session.execute(update(Account).where(Account.id == first).values(balance=1))
            await both_hold_one.wait()
            try:
                await session.execute(update(Account).where(Account.id == second).values(balance=1))
            except sa_exc.OperationalError:
                undone.append(owner)
            await session.execute(
                text("INSERT INTO account (owner, balance) VALUES (:owner, 0)"),
                {"owner": f"{owner}, second half"},
            )
            await session.commit()

    await asyncio.gather(work(1, 2, "eve"), work(2, 1, "zoe"))
    await engine.dispose()
    async with database.session() as session:
        stored = set(await session.scalars(select(Account.owner)))
    assert len(undone) == 1
    assert f"{undone[0]}, second half" in stored
    assert f"{undone[0]}, first half" not in stored


async def test_an_error_inside_a_savepoint_may_be_swallowed(database: Database) -> None:
    """A savepoint confines an error, on every backend."""
    unit = database.unit_of_work()
    async with unit as session:
        session.add(Account(owner="eve"))
        with pytest.raises(sa_exc.IntegrityError):
            async with unit.savepoint():
                session.add(Account(owner="ada"))
    assert await count_accounts(database) == 3


async def test_a_swallowed_deadlock_stores_no_half(database: Database) -> None:
    """Who swallows a deadlock and goes on gets an error, not the second half committed."""
    if database.connector.capabilities.single_writer:
        return  # nobody waits for anybody
    both_hold_one = asyncio.Barrier(2)
    units = [database.unit_of_work(), database.unit_of_work()]
    deadlocks = []

    async def work(unit: UnitOfWork, first: int, second: int) -> None:
        async with unit as session:
            await session.execute(update(Account).where(Account.id == first).values(balance=first))
            await both_hold_one.wait()
            try:
                async with unit.savepoint():
                    await session.execute(
                        update(Account)
                        .where(Account.id == second)
                        .values(balance=Account.balance + 10)
                    )
            except DeadlockError as error:
                deadlocks.append(error)
            await session.execute(update(Account).values(balance=Account.balance + 100))

    outcomes = await asyncio.gather(
        work(units[0], 1, 2), work(units[1], 2, 1), return_exceptions=True
    )
    assert deadlocks
    # PostgreSQL goes on behind the savepoint, where it meets the next deadlock; MySQL must not.
    raised = [type(outcome) for outcome in outcomes if outcome is not None]
    assert len(raised) == 1
    assert issubclass(raised[0], (TransactionAbortedError, DeadlockError))
    assert issubclass(raised[0], sa_exc.SQLAlchemyError)
    assert sorted(str(unit.outcome) for unit in units) == ["committed", "rolled_back"]
    # Where both have lost a savepoint before one gives in, nobody has added the ten.
    whole = ([101, 110], [102, 110], [100, 101], [100, 102])
    assert sorted(await balances(database)) in whole
