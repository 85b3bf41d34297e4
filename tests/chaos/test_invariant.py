"""Money is moved by many tasks that fail, collide and are cancelled; the sum never changes."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from moorage import Database, DatabaseError, DeadlockError, run_unit
from tests.chaos.conftest import no_open_transaction
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale
from tests.matrix.schema import Account, create_tables

OWNERS = [f"owner {number}" for number in range(8)]
TASKS = 32
FUNDS = 1000

Unit = Callable[[Callable[[AsyncSession], Awaitable[None]]], Awaitable[None]]


class Bankrupt(Exception):  # noqa: N818 (an event of the domain)
    """A transfer that the code itself refuses."""


async def fund(database: Database) -> None:
    """Create the accounts."""
    await create_tables(database, *OWNERS)
    async with database.unit_of_work() as session:
        for account in await session.scalars(select(Account)):
            account.balance = FUNDS


async def total(database: Database) -> int:
    """Return the sum of all balances."""
    async with database.session() as session:
        return int((await session.execute(select(func.sum(Account.balance)))).scalar_one())


def transfer(source: int, target: int, amount: int, fails: bool) -> Callable[..., Awaitable[None]]:
    """Return work that reads two balances, computes, and writes both."""

    async def work(session: AsyncSession) -> None:
        giver = await session.get_one(Account, source, with_for_update=True)
        giver.balance -= amount
        await session.flush()
        if fails:
            raise Bankrupt
        taker = await session.get_one(Account, target, with_for_update=True)
        taker.balance += amount

    return work


async def many_transfers(unit: Unit, count: int, seed: int) -> Counter[str]:
    """Make transfers from many tasks, cancel some of them, and count how they ended."""
    chance = random.Random(seed)
    endings: Counter[str] = Counter()

    async def one() -> None:
        source, target = chance.sample(range(1, len(OWNERS) + 1), 2)
        if source > target and chance.random() < 0.99:
            source, target = target, source  # one in a hundred may meet a deadlock
        work = transfer(source, target, chance.randint(1, 9), chance.random() < 0.1)
        task = asyncio.create_task(_ending(unit, work))
        if chance.random() < 0.1:
            for _ in range(chance.randint(0, 20)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            endings[await task] += 1
        except asyncio.CancelledError:
            endings["cancelled"] += 1

    async def many() -> None:
        nonlocal count
        while count > 0:
            count -= 1
            await one()

    await asyncio.gather(*(many() for _ in range(TASKS)))
    return endings


async def _ending(unit: Unit, work: Callable[[AsyncSession], Awaitable[None]]) -> str:
    try:
        await unit(work)
    except (Bankrupt, DatabaseError) as error:
        return type(error).__name__
    return "done"


@pytest.mark.scaled
@pytest.mark.timeout(150)
async def test_the_sum_holds(
    database: Database, make_database: DatabaseFactory, scale: Scale
) -> None:
    """Whatever happens to the units, no money is made or lost, and nothing is left behind."""
    await fund(database)
    busy = make_database(pool_size=16, max_overflow=0, lock_timeout_seconds=30)
    count = scale(small=200, full=10_000)

    deadlocks = 0

    async def unit(work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        async def counted(session: AsyncSession) -> None:
            nonlocal deadlocks
            try:
                await work(session)
            except DeadlockError:
                deadlocks += 1
                raise

        await run_unit(counted, busy.sessionmaker, attempts=10, deadline_seconds=60)

    endings = await many_transfers(unit, count, seed=7)
    assert sum(endings.values()) == count
    assert set(endings) == {"done", "cancelled", "Bankrupt"}
    if not database.connector.capabilities.single_writer:
        # Among few transfers there may be none that met another one the wrong way round.
        assert deadlocks >= scale(small=0, full=1)
    assert busy.pool_statistics().in_use == 0
    await no_open_transaction(database)
    assert await total(database) == FUNDS * len(OWNERS)


async def test_the_usual_unit_of_work_loses_money(database: Database) -> None:
    """The same transfers through what everybody writes on a plain engine change the sum."""
    if database.engine.dialect.name != "sqlite":
        return  # row locks save it on the servers
    await fund(database)
    url = database.engine.url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(url, connect_args={"timeout": 30}, pool_size=16)
    maker = async_sessionmaker(engine)

    @contextlib.asynccontextmanager
    async def usual() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            try:
                yield session
                await session.commit()
            except Exception:
                await session.rollback()
                raise

    async def unit(work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        async with usual() as session:
            await session.execute(select(Account))
            await work(session)

    # Without cancellations: what they do to the plain driver is another story.
    async def transfers(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            source, target = chance.sample(range(1, len(OWNERS) + 1), 2)
            with contextlib.suppress(Exception):
                await unit(transfer(source, target, chance.randint(1, 9), fails=False))

    await asyncio.gather(*(transfers(seed) for seed in range(TASKS)))
    await engine.dispose()
    assert await total(database) != FUNDS * len(OWNERS)
