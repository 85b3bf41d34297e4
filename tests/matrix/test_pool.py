"""One engine serves every loop and thread; waiting is fair, and running dry says who holds what."""

import asyncio
import contextlib
import gc
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from moorage import (
    Database,
    DatabaseDisposedError,
    DatabaseSettings,
    PoolExhaustedError,
    work_name,
)
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale

CONNECTIONS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid()",
    "mysql": "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id()",
}


# What one that waits for a connection may take.
MOST_BYTES = 12_000


def count_connects(engine: AsyncEngine) -> list[int]:
    """Return a list that grows with each connection that the engine opens."""
    opened: list[int] = []
    event.listen(engine.sync_engine, "connect", lambda *_: opened.append(1))
    return opened


async def connections_on_the_server(watcher: Database, expected: int) -> None:
    """Return when the server has as many connections to this database, besides the watcher's."""
    question = CONNECTIONS.get(watcher.engine.dialect.name)
    if question is None:
        return
    async with asyncio.timeout(10):
        while True:
            async with watcher.session() as session:
                if (await session.execute(text(question))).scalar_one() == expected:
                    return


async def work(database: Database, tasks: int = 5) -> None:
    """Use the database from several tasks of the running loop."""
    await asyncio.gather(*(database.ping() for _ in range(tasks)))


async def backend_ids(database: Database, tasks: int = 5) -> set[object]:
    """Use the database as `work` does, and return the server's numbers of its connections."""
    words = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}
    word = words.get(database.engine.dialect.name, "NULL")

    async def ask() -> object:
        async with database.session() as session:
            return (await session.execute(text(f"SELECT {word}"))).scalar_one()

    return set(await asyncio.gather(*(ask() for _ in range(tasks)))) - {None}


def test_successive_loops_share_one_engine(fresh_database: dict[str, Any]) -> None:
    """A database that is made without a loop works in one after the other, and leaves nothing."""
    database = Database(DatabaseSettings(**fresh_database, _env_file=None))
    for _ in range(3):
        asyncio.run(work(database))
        gc.collect()
    watcher = Database(DatabaseSettings(**fresh_database, pool_size=1, _env_file=None))

    async def look() -> None:
        await connections_on_the_server(watcher, 0)
        await watcher.dispose()

    asyncio.run(look())
    assert database.pool_statistics().idle == 0


def test_loops_in_threads_share_one_engine(fresh_database: dict[str, Any]) -> None:
    """Three loops in three threads use one engine at once, each on connections of its own."""
    database = Database(DatabaseSettings(**fresh_database, _env_file=None))
    together = threading.Barrier(3)
    failures: list[BaseException] = []
    owned: list[set[object]] = []

    async def many() -> None:
        mine = await backend_ids(database)
        together.wait(20)
        for _ in range(10):
            mine |= await backend_ids(database)
        owned.append(mine)

    def run() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:  # noqa: BLE001 (reported below)
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sum(map(len, owned)) == len(set[object]().union(*owned))
    assert database.pool_statistics().idle == 0
    watcher = Database(DatabaseSettings(**fresh_database, pool_size=1, _env_file=None))

    async def look() -> None:
        await connections_on_the_server(watcher, 0)
        await watcher.dispose()

    asyncio.run(look())


def test_a_plain_engine_fails_in_its_second_loop(fresh_database: dict[str, Any]) -> None:
    """SQLAlchemy's own pool hands connections of a loop that is gone to the next one."""
    url = Database(DatabaseSettings(**fresh_database, _env_file=None)).engine.url
    if url.get_driver_name() != "asyncpg":
        return  # the other drivers fail in their own ways, some by hanging; psycopg gets along

    def fails_in_its_second_loop() -> bool:
        engine = create_async_engine(url)

        async def once() -> None:
            async with engine.connect() as connection:
                await connection.execute(select(1))

        asyncio.run(once())
        try:
            asyncio.run(once())
        except (RuntimeError, sa_exc.SQLAlchemyError):
            return True
        return False

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what it leaves behind is its own story
        assert fails_in_its_second_loop()
        gc.collect()


@pytest.mark.scaled
async def test_waiters_are_served_in_order(make_database: DatabaseFactory, scale: Scale) -> None:
    """Whoever asked first gets a connection first, however many wait."""
    database = make_database(pool_size=5, max_overflow=0)
    served: list[int] = []

    async def one(number: int) -> None:
        async with database.engine.connect():
            served.append(number)
            await asyncio.sleep(0)

    held = [await database.engine.connect() for _ in range(5)]
    tasks = [asyncio.create_task(one(number)) for number in range(scale(small=200, full=1000))]
    while database.pool_statistics().waiting < len(tasks):
        await asyncio.sleep(0)
    for connection in held:
        await connection.close()
    await asyncio.gather(*tasks)
    # Five are served at once, and may overtake each other behind the pool's door.
    assert all(abs(place - number) < 5 for place, number in enumerate(served))
    assert database.pool_statistics().waiting == 0


def least_growth(sizes: Sequence[int]) -> int:
    """Return what has been added from one round to the next in the round that added least."""
    return min(later - earlier for earlier, later in pairwise(sizes))


@pytest.mark.scaled(small=["sqlite"])  # no driver has a part in it
async def test_memory_of_those_who_wait_is_flat(
    make_database: DatabaseFactory, scale: Scale
) -> None:
    """Who waits costs a few kilobytes meanwhile, and nothing once it has been served."""
    database = make_database(pool_size=5, max_overflow=0)
    count = scale(small=100, full=1000)

    async def take_one() -> None:
        async with database.engine.connect():
            pass

    async def wait_and_be_served() -> tuple[int, int]:
        held = [await database.engine.connect() for _ in range(5)]
        tasks = [asyncio.create_task(take_one()) for _ in range(count)]
        while database.pool_statistics().waiting < count:
            await asyncio.sleep(0)
        gc.collect()
        waiting = tracemalloc.get_traced_memory()[0]
        for connection in held:
            await connection.close()
        await asyncio.gather(*tasks)
        del held, tasks
        gc.collect()
        return waiting, tracemalloc.get_traced_memory()[0]

    async with asyncio.timeout(100):
        tracemalloc.start()
        try:
            for _ in range(3):
                await wait_and_be_served()  # caches are filled
            rounds = [await wait_and_be_served() for _ in range(scale(small=3, full=5))]
        finally:
            tracemalloc.stop()
    waiting, afterwards = zip(*rounds, strict=True)
    # A task, the greenlet below it and the future between them, with the frames that wait.
    assert max(waiting) - afterwards[0] < MOST_BYTES * count
    # What they leave behind would be more than this in each round again; now and then a round
    # fills some cache.
    assert least_growth(waiting) < 300 * count
    assert least_growth(afterwards) < 300 * count


@pytest.mark.scaled(small=["sqlite"])
async def test_waiting_in_vain_leaves_nothing(make_database: DatabaseFactory, scale: Scale) -> None:
    """However many wait in vain, all are told so, and nothing of them stays in memory."""
    database = make_database(pool_size=5, max_overflow=0, pool_timeout_seconds=0.05)
    held = [await database.engine.connect() for _ in range(5)]
    tasks = scale(small=100, full=1000)

    async def wait_in_vain() -> int:
        outcomes = await asyncio.gather(
            *(database.engine.connect() for _ in range(tasks)), return_exceptions=True
        )
        assert all(isinstance(outcome, PoolExhaustedError) for outcome in outcomes)
        assert database.pool_statistics().waiting == 0
        del outcomes
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async with asyncio.timeout(100):
        await wait_in_vain()  # caches are filled
        tracemalloc.start()
        sizes = [await wait_in_vain() for _ in range(4)]
        tracemalloc.stop()
    # A future, a task and an exception take more than 3 kB.
    assert least_growth(sizes) < 300 * tasks
    for connection in held:
        await connection.close()
    assert database.pool_statistics().timeouts == 5 * tasks


async def test_exhaustion_says_who_holds_what(make_database: DatabaseFactory) -> None:
    """When no connection comes free in time, the error lists the holders and the settings."""
    database = make_database(pool_size=1, max_overflow=1, pool_timeout_seconds=0.05)

    async def hold() -> None:
        async with database.engine.connect(), database.engine.connect():
            with pytest.raises(PoolExhaustedError) as caught:
                await database.ping()
            error = caught.value
            assert isinstance(error, sa_exc.TimeoutError)
            assert not error.is_transient
            assert "all 2 connections of the pool (DB_POOL_SIZE and DB_MAX_OVERFLOW)" in str(error)
            assert str(error).count("s by the culprit") == 2
            assert "0.05 s (DB_POOL_TIMEOUT_SECONDS)" in str(error)

    await asyncio.create_task(hold(), name="the culprit")
    await database.ping()


async def test_exhaustion_names_the_work_and_the_line(make_database: DatabaseFactory) -> None:
    """A holder is told by what it works on and, in asyncio's debug mode, by where it took it."""
    asyncio.get_running_loop().set_debug(True)
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=0.05)
    assert database.pool_statistics().timeouts == 0

    async def the_nightly_report() -> None:
        work_name.set("the nightly report")
        async with database.engine.connect():
            with pytest.raises(PoolExhaustedError) as caught:
                await asyncio.create_task(database.ping())
        assert "s by the nightly report, taken at" in str(caught.value)
        assert "in the_nightly_report\n" in str(caught.value)
        assert "site-packages" not in str(caught.value)

    await asyncio.create_task(the_nightly_report())
    assert database.pool_statistics().timeouts == 1


async def test_a_second_connection_of_one_task_is_warned_of(
    make_database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that takes a second connection while it holds one is told once, by its name."""
    database = make_database()

    async def one_after_the_other() -> None:
        for _ in range(3):
            await database.ping()

    async def one_in_the_other() -> None:
        work_name.set(f"work {id(database)}")
        for _ in range(3):
            async with database.engine.connect():
                await database.ping()

    await asyncio.create_task(one_after_the_other())
    assert caplog.messages == []
    await asyncio.create_task(one_in_the_other())
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"work {id(database)} takes a second connection")


async def test_a_connection_held_for_long_is_warned_of(
    make_database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Who holds a connection for too long is logged once, with the line at which it waits."""
    database = make_database(pool_hold_warning_seconds=0.05)
    enough = asyncio.Event()

    async def slow_work() -> None:
        async with database.engine.connect():
            await enough.wait()

    working = asyncio.create_task(slow_work())
    async with asyncio.timeout(30):
        while not caplog.messages:
            await asyncio.sleep(0.01)
    await database.ping()
    enough.set()
    await working
    told = [message for message in caplog.messages if "slow_work" in message]
    assert len(told) == 1
    assert "has been held" in told[0]
    assert "DB_POOL_HOLD_WARNING_SECONDS" in told[0]
    assert "test_pool.py:" in told[0]


async def test_the_connection_used_last_is_used_next(make_database: DatabaseFactory) -> None:
    """Little work keeps few connections busy, so that the others can grow idle."""
    database = make_database(pool_size=3)
    used: list[object] = []
    event.listen(
        database.engine.sync_engine, "checkout", lambda connection, *_: used.append(connection)
    )
    held = [await database.engine.connect() for _ in range(3)]
    for connection in held:
        await connection.close()
    first_three, used[:] = list(used), []
    for _ in range(4):
        await database.ping()
    assert used == [first_three[-1]] * 4


async def test_connections_grow_old_at_different_times(make_database: DatabaseFactory) -> None:
    """Connections that were opened together are not replaced together, and none too late."""
    database = make_database(pool_size=10, pool_recycle_seconds=1000)
    lives = set()

    @event.listens_for(database.engine.sync_engine, "checkin")
    def note(_: object, record: Any) -> None:
        lives.add(record.record_info["moorage_life_seconds"])

    held = [await database.engine.connect() for _ in range(10)]
    for connection in held:
        await connection.close()
    assert len(lives) == 10
    assert all(750 <= life <= 1000 for life in lives)


async def test_an_old_connection_is_replaced(
    make_database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that has reached its age is replaced when it is used next, again and again."""
    # SQLAlchemy's own limit, which is the longest age, is far away.
    monkeypatch.setattr("moorage.pool.place._SHORTEST_LIFE", 1e-6)
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    database = make_database(pool_size=1, max_overflow=0, pool_recycle_seconds=100_000)
    await database.ping()
    opened = count_connects(database.engine)
    async with asyncio.timeout(60):
        while len(opened) < 3:
            await database.ping()
    assert database.pool_statistics().idle == 1


async def test_a_cancelled_waiter_gives_its_turn_away(make_database: DatabaseFactory) -> None:
    """A task that is cancelled while it waits, even when its turn has come, blocks nobody."""
    database = make_database(pool_size=1, max_overflow=0)
    connection = await database.engine.connect()
    waiting = [asyncio.create_task(database.ping()) for _ in range(4)]
    while database.pool_statistics().waiting < len(waiting):
        await asyncio.sleep(0)
    waiting[0].cancel()
    await connection.close()  # the turn of the second, which is cancelled before it notices
    waiting[1].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2 + [
        type(None)
    ] * 2
    assert database.pool_statistics().in_use == 0


async def bursts(engine: AsyncEngine) -> int:
    """Return how many connections bursts of 30 tasks open after the first burst."""

    async def one() -> None:
        async with engine.connect() as connection:
            await connection.execute(select(1))

    async def burst() -> None:
        await asyncio.gather(*(one() for _ in range(30)))

    await burst()
    opened = count_connects(engine)
    for _ in range(5):
        await burst()
    return len(opened)


async def test_bursts_open_nothing_after_the_first(make_database: DatabaseFactory) -> None:
    """Connections beyond the pool's size are kept while they are used."""
    assert await bursts(make_database(pool_size=10, max_overflow=20).engine) == 0


async def test_the_plain_pool_churns(database: Database) -> None:
    """SQLAlchemy's own pool closes and opens connections in every burst."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(url, pool_size=10, max_overflow=20)
    assert await bursts(engine) > 0
    await engine.dispose()


async def test_the_surplus_is_closed_after_idling(make_database: DatabaseFactory) -> None:
    """Without any traffic the pool shrinks to its size, as the server sees it."""
    watcher = make_database(pool_size=1)
    database = make_database(pool_size=2, max_overflow=8, pool_shrink_seconds=0.05)
    held = [await database.engine.connect() for _ in range(10)]
    for connection in held:
        await connection.close()
    async with asyncio.timeout(10):
        while database.pool_statistics().idle > 2:
            await asyncio.sleep(0.01)
    assert database.pool_statistics().idle == 2
    await connections_on_the_server(watcher, 2)
    await work(database)


async def test_a_forgotten_connection_comes_back(make_database: DatabaseFactory) -> None:
    """What nobody closed is taken back when it is collected, and the pool does not shrink."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=5)

    async def forget() -> None:
        connection = await database.engine.connect()
        await connection.execute(select(1))

    await forget()
    with pytest.warns(sa_exc.SAWarning, match="garbage collector"):
        gc.collect()
    await database.ping()
    assert database.pool_statistics().in_use == 0


async def test_disposal_refuses_who_waits(make_database: DatabaseFactory) -> None:
    """Who waits for a connection of a database that is disposed is told so at once."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=60)
    connection = await database.engine.connect()
    waiting = asyncio.create_task(database.ping())
    while not database.pool_statistics().waiting:
        await asyncio.sleep(0)
    await database.dispose(drain_seconds=0)
    with pytest.raises(DatabaseDisposedError, match="disposed while this one waited"):
        await waiting
    await connection.close()


async def test_a_drained_database_cancels_who_holds_on(make_database: DatabaseFactory) -> None:
    """Tasks that still hold a connection when the drain is over are cancelled, and clean up."""
    watcher = make_database(pool_size=1)
    database = make_database(pool_size=3)
    holding = asyncio.Event()
    ended = []

    async def hold(statement: str) -> None:
        try:
            async with database.session() as session:
                await session.execute(text(statement))
                holding.set()
                await asyncio.Event().wait()
        finally:
            ended.append(statement)

    tasks = [asyncio.create_task(hold(f"SELECT {number}")) for number in range(3)]
    while database.pool_statistics().in_use < len(tasks):
        await holding.wait()
        await asyncio.sleep(0)
    sessions = database.sessionmaker
    async with asyncio.timeout(60):
        await asyncio.gather(*(database.dispose(drain_seconds=0.05) for _ in range(3)))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
    assert len(ended) == 3
    with pytest.raises(DatabaseDisposedError, match="after its database had been disposed"):
        async with sessions() as session:
            await session.execute(text("SELECT 1"))
    await connections_on_the_server(watcher, 0)


async def test_disposal_ends_whatever_hangs(make_database: DatabaseFactory) -> None:
    """A task that does not mind being cancelled keeps no connection of a disposed database."""
    watcher = make_database(pool_size=1)
    database = make_database(pool_size=2)
    holding, enough = asyncio.Event(), asyncio.Event()

    async def hold_on() -> None:
        connection = await database.engine.connect()
        await connection.execute(text("SELECT 1"))
        holding.set()
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        with contextlib.suppress(sa_exc.DBAPIError):
            await connection.close()

    stubborn = asyncio.create_task(hold_on())
    await holding.wait()
    async with asyncio.timeout(60):
        await database.dispose(drain_seconds=0.05)
    await connections_on_the_server(watcher, 0)
    enough.set()
    await stubborn
    assert database.pool_statistics().in_use == 0


@pytest.mark.parametrize("broken", [True, False])
async def test_room_of_a_connection_that_failed_is_given_back(
    make_database: DatabaseFactory, broken: bool
) -> None:
    """Connecting may fail as often as it likes; the pool's capacity stays what it is."""
    database = make_database(pool_size=2, max_overflow=0, pool_timeout_seconds=5)
    refuse: Callable[..., None] | None = None

    def fail(*_: object) -> None:
        raise OSError("no route to host")

    if broken:
        refuse = fail
        event.listen(database.engine.sync_engine, "connect", refuse)
        for _ in range(5):
            with pytest.raises(Exception, match="no route to host"):
                await database.ping()
        event.remove(database.engine.sync_engine, "connect", refuse)
    await work(database, tasks=8)
    assert database.pool_statistics().idle == 2
