"""
A unit of work that is cancelled at every point where it waits.

One clean run counts the points; then the unit is cancelled at each of them, once, and twice in a
row. What the unit says became of it is compared with what is stored, connections and transactions
are counted by a client of its own.
"""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import async_sessionmaker

from moorage import Database, UnitOfWork
from moorage.testing import Stepper
from tests.chaos.conftest import no_open_transaction
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, create_tables


@pytest.fixture(autouse=True)
async def watcher(make_database: DatabaseFactory) -> Database:
    """Return a database for looking, with the tables and one account."""
    watcher = make_database()
    await create_tables(watcher, "ada")
    return watcher


async def representative(unit: UnitOfWork, owner: str) -> None:
    """Write, read, undo a part, stream, and commit."""
    async with unit as session:
        session.add(Account(owner=owner))
        await session.flush()
        try:
            async with unit.savepoint():
                await session.execute(update(Account).values(balance=Account.balance + 1))
                raise LookupError
        except LookupError:
            pass
        async for _ in await session.stream(select(Account).limit(2)):
            pass
        session.add(Account(owner=f"{owner} again"))


async def owners(watcher: Database) -> set[str]:
    """Return the owners of all accounts but the first."""
    async with watcher.session() as session:
        return set((await session.scalars(select(Account.owner).where(Account.id > 1))).all())


async def cancel_everywhere(
    make: DatabaseFactory, watcher: Database, *, keep_pool: bool
) -> Counter[str]:
    """Cancel the unit at each point, once and twice in a row; count the endings."""
    endings: Counter[str] = Counter()
    database = make(pool_size=1, max_overflow=0)

    async def run(name: str, *cancel_at: int) -> Stepper:
        nonlocal database
        if not keep_pool:
            await database.dispose()
            database = make(pool_size=1, max_overflow=0)
        unit = database.unit_of_work()
        stepper = Stepper(representative(unit, name), *cancel_at)

        async def work() -> None:
            await stepper

        try:
            await asyncio.create_task(work())
            assert not stepper.cancelled, f"a cancellation was swallowed at {cancel_at}"
        except asyncio.CancelledError:
            assert stepper.cancelled
        assert database.pool_statistics().in_use == 0, f"a connection leaked at {cancel_at}"
        stored = await owners(watcher)
        expected = {name, f"{name} again"}
        # Cancelled before it had begun, it says nothing; nothing may be there either.
        if unit.outcome == "committed":
            assert expected <= stored, f"committed at {cancel_at}, but not stored"
        else:
            assert unit.outcome in {None, "rolled_back"}, f"{unit.outcome} at {cancel_at}"
            assert not expected & stored, f"rolled back at {cancel_at}, but stored"
        endings[f"{unit.outcome}, cancelled {stepper.cancelled} times"] += 1
        return stepper

    if keep_pool:
        await run("warm-up")
    points = (await run("clean")).points
    assert points > 0
    for again in (False, True):
        for point in range(1, points + 1):
            cancel_at = (point, point + 1) if again else (point,)
            if keep_pool:
                await run(f"warm-up {point} {again}")  # the last one cost the connection
            await run(f"{point} {again}", *cancel_at)
    await database.dispose()
    await no_open_transaction(watcher)
    print(f"\n{points} points; " + "; ".join(f"{n} x {what}" for what, n in endings.items()))  # noqa: T201 (the count is part of the result)
    return endings


@pytest.mark.parametrize("keep_pool", [True, False], ids=["warm", "cold"])
async def test_cancellation_at_every_point(
    watcher: Database, make_database: DatabaseFactory, keep_pool: bool
) -> None:
    """Wherever a unit is cancelled, it leaves nothing behind and tells the truth."""
    endings = await cancel_everywhere(make_database, watcher, keep_pool=keep_pool)
    assert endings["rolled_back, cancelled 1 times"] > 0
    assert endings["committed, cancelled 1 times"] + endings["committed, cancelled 2 times"] > 0


async def test_the_counter_sees_a_leak(database: Database, watcher: Database) -> None:
    """The check can fail: a session that is closed at the end only leaks when cancelled before."""
    session = async_sessionmaker(database.engine)()

    async def naive() -> None:
        await session.execute(update(Account).values(balance=1))
        for _ in range(1000):
            await asyncio.sleep(0)
        await session.close()

    async def work() -> None:
        await Stepper(naive(), 500)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert database.pool_statistics().in_use == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await no_open_transaction(watcher)
    await session.close()
