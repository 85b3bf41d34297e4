"""A COMMIT that takes its time, on a server that is slow to answer on purpose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import CommitOutcomeUnknownError, Database, UnitOfWork
from tests.fix_database import DatabaseFactory

# A deferred trigger runs inside of COMMIT, where it waits for a lock that the test holds.
SLOW = (
    "CREATE TABLE boat (name text)",
    "CREATE FUNCTION wait_for_the_tide() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER tide AFTER INSERT ON boat DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION wait_for_the_tide()",
)
INSERT = text("INSERT INTO boat VALUES ('Fram')")
WAITING = text(
    "SELECT min(pid) FROM pg_stat_activity WHERE query ILIKE 'COMMIT%' AND wait_event = 'advisory'"
    " AND datname = current_database()"
)


@pytest.fixture
async def watcher(make_database: DatabaseFactory) -> Database:
    """Return a database for looking at the server, where the slow table was made."""
    watcher = make_database()
    async with watcher.engine.begin() as connection:
        for statement in SLOW:
            await connection.exec_driver_sql(statement)
    return watcher


@asynccontextmanager
async def low_tide(watcher: Database) -> AsyncIterator[None]:
    """Hold the lock that every COMMIT of a boat waits for."""
    async with watcher.session() as holder:
        await holder.execute(text("SELECT pg_advisory_xact_lock(1)"))
        yield


async def waiting_commit(watcher: Database) -> int:
    """Return the process of the COMMIT that waits for the lock, as soon as there is one."""
    while True:
        async with watcher.session() as session:
            if (pid := (await session.execute(WAITING)).scalar_one()) is not None:
                return int(pid)


async def boats(watcher: Database) -> int:
    """Return how many boats are stored."""
    async with watcher.session() as session:
        return int((await session.execute(text("SELECT count(*) FROM boat"))).scalar_one())


async def launch(unit: UnitOfWork) -> None:
    """Insert a boat in a unit."""
    async with unit as session:
        await session.execute(INSERT)


async def test_cancelled_commit_is_waited_for(database: Database, watcher: Database) -> None:
    """A unit that is cancelled during its COMMIT, twice, is stored and then cancelled."""
    unit = database.unit_of_work()
    async with low_tide(watcher):
        task = asyncio.create_task(launch(unit))
        await waiting_commit(watcher)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unit.outcome == "committed"
    assert await boats(watcher) == 1


async def test_timeout_around_a_unit_still_ends_as_a_timeout(
    database: Database, watcher: Database
) -> None:
    """A timeout that fires during COMMIT raises its TimeoutError, with the work stored."""
    unit = database.unit_of_work()

    async def with_timeout() -> None:
        async with asyncio.timeout(None) as timeout:
            async with unit as session:
                await session.execute(INSERT)
                timeouts.append(timeout)

    timeouts: list[asyncio.Timeout] = []
    async with low_tide(watcher):
        task = asyncio.create_task(with_timeout())
        await waiting_commit(watcher)
        timeouts[0].reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await task
    assert unit.outcome == "committed"
    assert await boats(watcher) == 1


async def test_no_answer_is_an_unknown_outcome(
    make_database: DatabaseFactory, watcher: Database
) -> None:
    """A COMMIT that is not answered within its deadline is an unknown outcome, and not retried."""
    database = make_database(commit_timeout_seconds=0.05)
    unit = database.unit_of_work()
    async with low_tide(watcher):
        with pytest.raises(CommitOutcomeUnknownError, match=r"within 0\.05 s \(DB_COMMIT_TIMEOUT"):
            await launch(unit)
    assert unit.outcome == "unknown"
    assert not CommitOutcomeUnknownError.is_transient
    assert database.pool_statistics().in_use == 0


async def test_lost_connection_during_commit_is_an_unknown_outcome(
    database: Database, watcher: Database
) -> None:
    """A COMMIT whose connection is lost is an unknown outcome, and SQLAlchemy's error too."""
    unit = database.unit_of_work()
    async with low_tide(watcher):
        task = asyncio.create_task(launch(unit))
        pid = await waiting_commit(watcher)
        async with watcher.session() as session:
            await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(CommitOutcomeUnknownError, match="connection was lost") as caught:
            await task
    assert isinstance(caught.value, sa_exc.DBAPIError)
    assert unit.outcome == "unknown"


async def test_plain_session_says_nothing_of_the_commit(
    database: Database, watcher: Database
) -> None:
    """Negative control: a plain session cancelled in COMMIT loses it and says nothing of it."""
    async with low_tide(watcher):

        async def plain() -> None:
            async with AsyncSession(database.engine) as session, session.begin():
                await session.execute(INSERT)

        task = asyncio.create_task(plain())
        await waiting_commit(watcher)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await boats(watcher) == 0
