"""
How many functions of Python a session calls, beside a session of plain SQLAlchemy.

Time on the processor is what a session costs once it waits no more than it must; calls are counted
without a clock, and come out the same on a machine that is busy.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from moorage import Database
from tests.matrix.schema import Account, create_tables

Unit = Callable[[], Awaitable[object]]

WARM_UP, ROUNDS = 5, 3


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that a test before has listened to all engines, as `assert_queries` does."""
    monkeypatch.setattr(Engine, "_has_events", False)  # SQLAlchemy never does


async def calls(unit: Unit) -> int:
    """Return the fewest calls of Python functions that a unit makes, once everything is cached."""
    for _ in range(WARM_UP):
        await unit()
    counts = []
    gc.collect()
    gc.disable()  # what it finalizes counts as calls
    try:
        for _ in range(ROUNDS):
            count = 0

            def note(frame: object, happened: str, argument: object) -> None:
                nonlocal count
                count += happened == "call"

            before = sys.getprofile()
            sys.setprofile(note)
            try:
                await unit()
            finally:
                sys.setprofile(before)
            counts.append(count)
    finally:
        gc.enable()
    return min(counts)


async def everybodys(database: Database, *, writes: bool) -> int:
    """Return the calls of everybody's session, whose pool asks before each use."""
    engine = create_async_engine(database.connector.get_url(), pool_pre_ping=True)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def unit() -> None:
        async with sessions() as session:
            account = await session.get_one(Account, 1)
            if writes:
                account.balance += 1
                await session.commit()

    try:
        return await calls(unit)
    finally:
        await engine.dispose()


async def read(database: Database) -> None:
    """Read a row by its key."""
    async with database.read_session() as session:
        await session.get_one(Account, 1)


async def test_a_read_session(database: Database) -> None:
    """A read session, guarded, limited and accounted for, calls a quarter less than everybody's."""
    await create_tables(database, "ada")
    assert await calls(lambda: read(database)) < 0.75 * await everybodys(database, writes=False)


async def test_a_unit_of_work(database: Database) -> None:
    """A unit of work, whose COMMIT nobody interrupts, calls hardly more than everybody does."""
    await create_tables(database, "ada")

    async def unit() -> None:
        async with database.unit_of_work() as session:
            account = await session.get_one(Account, 1)
            account.balance += 1

    assert await calls(unit) < 1.03 * await everybodys(database, writes=True)


async def test_listeners_are_paid_for_by_who_listens(database: Database) -> None:
    """Nothing here listens to connections, which every session would pay; others may, and do."""
    await create_tables(database, "ada")
    heard: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    quiet = await calls(lambda: read(database))
    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        loud = await calls(lambda: read(database))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert heard[-1].startswith("SELECT")
    assert loud > 1.05 * quiet


async def left_to_the_collector(unit: Unit) -> int:
    """Return the fewest objects of a unit that refer to each other in a ring when it is over."""
    for _ in range(WARM_UP):
        await unit()
    counts = []
    gc.disable()
    try:
        for _ in range(ROUNDS):
            gc.collect()
            await unit()
            counts.append(gc.collect())
    finally:
        gc.enable()
    return min(counts)


async def test_nothing_is_left_to_the_collector(database: Database) -> None:
    """A session that has ended is gone at once, and with it all that it had."""
    await create_tables(database, "ada")

    async def unit() -> None:
        async with database.unit_of_work() as session:
            account = await session.get_one(Account, 1)
            account.balance += 1

    async def ring() -> None:
        await read(database)
        something: list[object] = []
        something.append(something)

    assert await left_to_the_collector(lambda: read(database)) == 0
    assert await left_to_the_collector(unit) == 0
    assert await left_to_the_collector(ring) > 0


@pytest.fixture
async def tasks() -> AsyncIterator[list[str]]:
    """Note what becomes a task in the running loop; the list is to be cleared before it counts."""
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(factory)
    yield made
    loop.set_task_factory(None)


@pytest.mark.parametrize("begins", [False, True])
async def test_a_block_that_has_nothing_to_end(
    database: Database, tasks: list[str], begins: bool
) -> None:
    """The end of a session's block makes a task where a transaction is open, and only there."""
    await create_tables(database, "ada")
    async with database.session() as session:
        account = await session.get_one(Account, 1)
        await session.commit()
        if begins:
            await session.refresh(account)
        tasks.clear()
    assert len(tasks) == begins


@pytest.mark.parametrize("streams", [False, True])
async def test_a_block_of_a_read_session(
    database: Database, tasks: list[str], streams: bool
) -> None:
    """The end of a read session makes a task where rows have not been fetched, and only there."""
    await create_tables(database, "ada", "bob", "cleo")
    async with database.read_session() as session:
        await session.get_one(Account, 1)
        if streams:
            await session.stream(select(Account.owner))
        tasks.clear()
    assert len(tasks) == streams
