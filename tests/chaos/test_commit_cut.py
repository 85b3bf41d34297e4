"""A link that breaks around COMMIT: the caller is told what is known, and nothing else."""

import asyncio

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    Database,
    DatabaseError,
    run_unit,
)
from tests.chaos.conftest import no_open_transaction
from tests.chaos.proxy import Fault, Proxy
from tests.fix_backend import chosen_backends
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale
from tests.matrix.schema import Account, balances, count_accounts, create_tables

SERVERS = [name for name in chosen_backends() if name != "sqlite"]

pytestmark = [
    pytest.mark.parametrize("backend", SERVERS),
    pytest.mark.skipif(not SERVERS, reason="SQLite is not reached over a link"),
]


@pytest.fixture(autouse=True)
async def watcher(make_database: DatabaseFactory) -> Database:
    """Return a database beside the proxy, with the tables."""
    watcher = make_database()
    await create_tables(watcher)
    return watcher


@pytest.mark.scaled
@pytest.mark.parametrize(
    ("fault", "stored"),
    [("cut before", False), ("cut after", True), ("half-close", True)],
)
async def test_commit_cut(
    watcher: Database,
    proxy: Proxy,
    through_proxy: DatabaseFactory,
    scale: Scale,
    fault: Fault,
    stored: bool,
) -> None:
    """A COMMIT whose link is cut has an unknown outcome, whether or not it arrived."""
    database = through_proxy()
    count = scale(small=5, full=100)
    for number in range(count):
        unit = database.unit_of_work()
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            async with unit as session:
                session.add(Account(owner=f"account {number}"))
                await session.flush()
                proxy.arm(b"COMMIT", fault)
        assert unit.outcome == "unknown"
        assert not isinstance(caught.value, ConnectionLostError)
        assert not caught.value.is_transient
        assert isinstance(caught.value, sa_exc.SQLAlchemyError)
        assert database.pool_statistics().in_use == 0
    assert proxy.happened == count
    await no_open_transaction(watcher)
    assert await count_accounts(watcher) == (count if stored else 0)


@pytest.mark.scaled
async def test_commit_never_answered(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory, scale: Scale
) -> None:
    """A COMMIT that nobody answers has an unknown outcome when its deadline is over."""
    # At once: closing a link that does not answer takes SQLAlchemy two seconds of politeness.
    database = through_proxy(commit_timeout_seconds=0.05, pool_size=20, max_overflow=0)
    count = scale(small=5, full=100)
    outcomes = []

    async def work(number: int) -> None:
        unit = database.unit_of_work()
        with pytest.raises(CommitOutcomeUnknownError, match=r"within 0\.05 s") as caught:
            async with unit as session:
                session.add(Account(owner=f"account {number}"))
                await session.flush()
        assert isinstance(caught.value, sa_exc.SQLAlchemyError)
        assert not caught.value.is_transient
        outcomes.append(unit.outcome)

    proxy.arm(b"COMMIT", "stall", times=count)
    await asyncio.gather(*(work(number) for number in range(count)))
    assert outcomes == ["unknown"] * count
    assert proxy.happened == count
    await no_open_transaction(watcher)
    assert await count_accounts(watcher) == count


@pytest.mark.parametrize("fault", ["cut before", "cut after", "half-close"])
async def test_a_plain_session_is_told_the_same(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory, fault: Fault
) -> None:
    """A session that commits by itself hears that the outcome is unknown, too."""
    async with through_proxy().session() as session:
        session.add(Account(owner="ada"))
        await session.flush()
        proxy.arm(b"COMMIT", fault)
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            await session.commit()
    assert not isinstance(caught.value, ConnectionLostError)
    assert not caught.value.is_transient
    assert caught.value.connection_invalidated
    assert await count_accounts(watcher) == (fault != "cut before")


async def test_a_write_that_commits_itself_is_told_the_same(
    proxy: Proxy, through_proxy: DatabaseFactory
) -> None:
    """In AUTOCOMMIT the answer to a write is the answer to its COMMIT; a read is only lost."""
    engine = through_proxy().engine.execution_options(isolation_level="AUTOCOMMIT")
    statements = {
        "INSERT": text("INSERT INTO account (owner, balance) VALUES ('ada', 0)"),
        "UPDATE": update(Account).values(balance=5),
        "SELECT": select(Account.id),
    }
    raised = {}
    for word, statement in statements.items():
        async with engine.connect() as connection:
            await connection.execute(text("/* connected */ SELECT 1"))
            proxy.arm(word.encode(), "cut after")
            with pytest.raises(DatabaseError) as caught:
                await connection.execute(statement)
            raised[word] = type(caught.value).__name__
    assert raised == {
        "INSERT": "CommitOutcomeUnknownError",
        "UPDATE": "CommitOutcomeUnknownError",
        "SELECT": "ConnectionLostError",
    }


async def test_commit_delayed_while_the_task_is_cancelled(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory
) -> None:
    """A cancelled task waits for a late answer, is told "committed", and then cancelled."""
    unit = through_proxy().unit_of_work()

    async def work() -> None:
        async with unit as session:
            session.add(Account(owner="ada"))
            await session.flush()
            proxy.arm(b"COMMIT", "delay")

    task = asyncio.create_task(work())
    async with asyncio.timeout(10):
        while not proxy.happened:
            await asyncio.sleep(0)
    task.cancel()
    proxy.delay.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unit.outcome == "committed"
    assert await count_accounts(watcher) == 1


async def test_commit_never_answered_to_a_cancelled_task(
    proxy: Proxy, through_proxy: DatabaseFactory
) -> None:
    """An unknown outcome outweighs the cancellation, which is its cause."""
    unit = through_proxy(commit_timeout_seconds=0.2).unit_of_work()

    async def work() -> None:
        async with unit as session:
            session.add(Account(owner="ada"))
            await session.flush()
            proxy.arm(b"COMMIT", "stall")

    task = asyncio.create_task(work())
    async with asyncio.timeout(10):
        while not proxy.happened:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(CommitOutcomeUnknownError) as caught:
        await task
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert unit.outcome == "unknown"


@pytest.mark.parametrize("fault", ["cut before", "cut after", "half-close"])
async def test_a_link_cut_before_the_commit_is_run_again(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory, fault: Fault
) -> None:
    """A link that breaks in a statement has undone the unit for certain; it is run again."""
    database = through_proxy()
    sessions: list[AsyncSession] = []

    async def work(session: AsyncSession) -> None:
        sessions.append(session)
        session.add(Account(owner="ada"))
        await session.flush()
        if len(sessions) == 1:
            proxy.arm(b"UPDATE", fault)
        await session.execute(text("UPDATE account SET balance = 5"))

    await run_unit(work, database.sessionmaker)
    assert len(sessions) == 2
    await no_open_transaction(watcher)
    assert await balances(watcher) == [5]
