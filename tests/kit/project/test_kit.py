"""The fixtures, used as an application's tests use them."""

import asyncio
import datetime as dt

import pytest
from kit_boats import Boat, Trip, launch, names
from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from moorage import (
    ADMIN,
    Database,
    LifecycleError,
    UniqueViolationError,
    UnitOfWork,
    find_uncommitted_changes,
    get_database,
    on_commit,
    uncommitted_changes,
)
from moorage.testing import (
    MigrationSuite,
    RolledBackDatabase,
    assert_queries,
    no_lazy_loads,
    no_leaks,
)

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_what_is_committed_is_gone_after_the_test(db_database, turn) -> None:
    """The application commits, later sessions see it, the next test does not."""
    assert get_database() is db_database
    assert await names() == []
    await launch("Fram")
    await launch("Gjøa")
    assert await names() == ["Fram", "Gjøa"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_the_session_may_commit(db_session, turn) -> None:
    """A session of the test commits and goes on; the application sees it in between."""
    db_session.add(Boat(name="Fram"))
    await db_session.commit()
    assert await names() == ["Fram"]
    db_session.add(Boat(name="Maud"))
    await db_session.rollback()
    assert await names() == ["Fram"]
    db_session.add(Boat(name="left open on purpose"))
    await db_session.flush()


async def test_units_and_hooks(db_unit_of_work) -> None:
    """A unit that fails leaves what was committed before; hooks run when a unit has committed."""
    told = []

    async def tell() -> None:
        told.append("launched")

    async with db_unit_of_work() as session:
        session.add(Boat(name="Fram"))
        on_commit(session, tell)
        assert told == []
    assert told == ["launched"]
    with pytest.raises(UniqueViolationError):
        await launch("Fram")
    assert await names() == ["Fram"]
    async with db_unit_of_work(read_only=False) as session:
        assert not uncommitted_changes(session)
        await session.execute(text("SELECT 1"))
        assert not uncommitted_changes(session)
        assert not await find_uncommitted_changes(session)


async def test_identities_are_refused(db_session) -> None:
    """A session on somebody's behalf would leave its identity to the sessions after it."""
    db_session.sync_session.identity = ADMIN
    with pytest.raises(LifecycleError, match="on somebody's behalf"):
        await db_session.scalars(select(Boat))


async def test_sessions_take_turns(db_database) -> None:
    """Units of several tasks are served one after the other, and none is lost."""

    async def slowly(name: str) -> None:
        async with UnitOfWork() as session:
            await session.scalars(select(Boat))
            await asyncio.sleep(0)
            session.add(Boat(name=name))

    await asyncio.gather(*(slowly(str(number)) for number in range(8)))
    assert await names() == [str(number) for number in range(8)]


async def test_waiting_for_oneself_is_an_error_at_once(db_session) -> None:
    """A session that would wait for another one of its own task names both."""
    db_session.add(Boat(name="Fram"))
    await db_session.flush()
    with pytest.raises(LifecycleError, match=r"kit_boats\.py:\d+ would wait for .* of \w+\.py:\d+"):
        await launch("Gjøa")
    await db_session.commit()
    await launch("Gjøa")


async def test_waiting_is_bounded(db_database) -> None:
    """A session that waits for another task in vain says for whom."""
    database = RolledBackDatabase(db_database.settings, wait_seconds=0.05)
    release = asyncio.Event()
    opened = asyncio.Event()

    async def hold() -> None:
        async with database.unit_of_work() as session:
            await session.scalars(select(Boat))
            opened.set()
            await release.wait()

    task = asyncio.create_task(hold())
    await opened.wait()
    with pytest.raises(LifecycleError, match=r"has waited 0\.05 s for the session of test_kit"):
        async with database.unit_of_work() as session:
            await session.scalars(select(Boat))
    release.set()
    await task
    async with database.unit_of_work() as session:
        await session.scalars(select(Boat))
    await database.roll_back()
    await database.dispose()


async def test_a_cancelled_wait_lets_the_next_one_in(db_database) -> None:
    """Who is cancelled while it waits does not keep the others from their turn."""
    async with db_database.unit_of_work() as session:
        await session.scalars(select(Boat))
        tasks = [asyncio.create_task(launch(name)) for name in ("a", "b")]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
    await asyncio.wait(tasks)
    assert await names() == ["b"]


async def test_another_loop_is_refused(db_database) -> None:
    """A session in the loop of another thread says what to do."""
    await launch("Fram")
    with pytest.raises(LifecycleError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, launch("Gjøa"))


LOOPS: dict[str, asyncio.AbstractEventLoop] = {}


class TestLoopScopes:
    """The fixtures work in loops that live for longer than a test."""

    @pytest.mark.asyncio(loop_scope="class")
    async def test_first(self, db_database) -> None:
        """The first test of a loop."""
        await launch("Fram")
        assert await names() == ["Fram"]

    @pytest.mark.asyncio(loop_scope="class")
    async def test_second(self, db_session) -> None:
        """The second one in the same loop finds nothing of the first."""
        assert (await db_session.scalars(select(Boat))).all() == []
        await launch_after(db_session)

    @pytest.mark.parametrize(
        "scope",
        [
            pytest.param(scope, marks=pytest.mark.asyncio(loop_scope=scope))
            for scope in ("module", "package", "session")
            for _ in ("first", "second in the same loop")
        ],
    )
    async def test_third(self, db_database, scope) -> None:
        """One in the loop of the module, the package or the whole run."""
        LOOPS.setdefault(scope, asyncio.get_running_loop())
        assert LOOPS[scope] is asyncio.get_running_loop()
        await launch("Fram")
        assert await names() == ["Fram"]


async def launch_after(session) -> None:
    """End a session, then let the application store a boat."""
    await session.rollback()
    await launch("Fram")


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_committed_database(db_committed, turn) -> None:
    """Sessions of a database of the test's own run at once; the next test has a new one."""
    assert isinstance(db_committed, Database)
    assert await names() == []
    async with db_committed.session() as reading:
        assert (await reading.scalars(select(Boat))).all() == []
        await reading.rollback()
        await launch("Fram")
        assert (await reading.scalars(select(Boat.name))).all() == ["Fram"]
    async with db_committed.engine.connect() as connection:
        assert (await connection.execute(text("SELECT name FROM boats"))).all() == [("Fram",)]


async def test_assertions(db_session) -> None:
    """Statements are counted, lazy loads and leaks are refused."""
    boat = Boat(name="Fram")
    boat.trips.append(Trip(left_at=dt.datetime.now(dt.UTC)))
    db_session.add(boat)
    await db_session.commit()
    db_session.expunge_all()
    with assert_queries(2) as statements:
        query = select(Boat).options(selectinload(Boat.trips))
        boat = (await db_session.scalars(query)).one()
    assert len(statements) == 2
    with (
        pytest.raises(AssertionError, match="2 statements were sent, exactly 1 expected"),
        assert_queries(1),
    ):
        await db_session.scalars(select(Boat))
        await db_session.scalars(select(Boat))
    with no_lazy_loads():
        db_session.expunge_all()
        boat = (await db_session.scalars(query)).one()
        assert len(boat.trips) == 1
    db_session.expunge_all()
    boat = (await db_session.scalars(select(Boat))).one()
    with no_lazy_loads(), pytest.raises(AssertionError, match=r"loaded lazily: .*trips"):
        await boat.awaitable_attrs.trips
    db_session.expire(boat)
    with no_lazy_loads(), pytest.raises(AssertionError, match="columns are loaded again"):
        await db_session.run_sync(lambda _: boat.name)


async def test_leaks_are_found(db_committed) -> None:
    """A connection that is not given back, or a task that goes on, fails the block."""
    with no_leaks(db_committed):
        await launch("Fram")
    with (
        pytest.raises(AssertionError, match=r"1 connection\(s\) were not given back"),
        no_leaks(db_committed),
    ):
        connection = await db_committed.engine.connect()
    await connection.close()
    with (
        pytest.raises(AssertionError, match="tasks are still running: forgotten"),
        no_leaks(db_committed),
    ):
        task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    task.cancel()


class TestMigrations(MigrationSuite):
    """The migrations of this project, with a row on their way."""

    async def fill(self, database: Database, revision: str) -> None:
        """Store a boat."""
        async with database.unit_of_work() as session:
            session.add(Boat(name=revision))
