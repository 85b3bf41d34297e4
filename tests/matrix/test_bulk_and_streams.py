"""Streams, bulk work and synchronous code inside a unit keep its promises."""

import asyncio

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from moorage import Database, UnitOfWorkError
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables

ROWS = [{"owner": f"owner {number}", "balance": number} for number in range(2000)]


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables with many accounts."""
    await create_tables(database)
    async with database.unit_of_work() as session:
        await session.execute(insert(Account), ROWS)


async def test_bulk_work_is_whole_or_not_at_all(database: Database) -> None:
    """One bad row among thousands undoes them all."""
    more = [{"owner": f"new {number}", "balance": 0} for number in range(500)]
    with pytest.raises(sa_exc.IntegrityError):
        async with database.unit_of_work() as session:
            await session.execute(insert(Account), [*more, {"owner": "owner 7", "balance": 0}])
    assert await count_accounts(database) == len(ROWS)


async def test_cancelled_bulk_work_leaves_nothing(database: Database) -> None:
    """A bulk insert that is cancelled on its way is undone."""
    more = [{"owner": f"new {number}", "balance": 0} for number in range(20_000)]

    async def work() -> None:
        async with database.unit_of_work() as session:
            await session.execute(insert(Account), more)

    task = asyncio.create_task(work())
    while not database.pool_statistics().in_use:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.pool_statistics().in_use == 0
    assert await count_accounts(database) == len(ROWS)


async def test_a_stream_is_read_inside_its_unit(database: Database) -> None:
    """A stream gives all rows in order, a few at a time, while the unit writes beside it."""
    seen = 0
    async with database.unit_of_work() as session:
        stream = await session.stream_scalars(
            select(Account.balance).order_by(Account.balance).execution_options(yield_per=100)
        )
        async for balance in stream:
            assert balance == seen
            seen += 1
    assert seen == len(ROWS)


@pytest.mark.parametrize("ending", ["commit", "error", "cancel"])
async def test_a_stream_left_in_the_middle(make_database: DatabaseFactory, ending: str) -> None:
    """A unit that ends with a stream half read ends as it should, and its connection is usable."""
    database = make_database(pool_size=1, max_overflow=0)
    unit = database.unit_of_work()
    halfway = asyncio.Event()

    async def work() -> None:
        async with unit as session:
            session.add(Account(owner="last"))
            await session.flush()
            stream = await session.stream(select(Account).execution_options(yield_per=10))
            await anext(stream)
            halfway.set()
            if ending == "error":
                raise LookupError
            if ending == "cancel":
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await halfway.wait()
    if ending == "cancel":
        task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    kinds = {"commit": type(None), "error": LookupError, "cancel": asyncio.CancelledError}
    assert type(outcome) is kinds[ending]
    assert not getattr(outcome, "__notes__", [])
    assert unit.outcome == ("committed" if ending == "commit" else "rolled_back")
    assert database.pool_statistics().in_use == 0
    assert await count_accounts(database) == len(ROWS) + (ending == "commit")


async def test_a_stream_ends_with_its_unit(database: Database) -> None:
    """Rows of a stream cannot be had after the unit: there is no connection to fetch them from."""
    async with database.unit_of_work() as session:
        stream = await session.stream(select(Account).execution_options(yield_per=10))
        await anext(stream)
    with pytest.raises((sa_exc.SQLAlchemyError, UnitOfWorkError)):
        async for _ in stream:
            pass


async def test_synchronous_code_in_a_unit(database: Database) -> None:
    """Code that is written for a plain session works in the unit's transaction."""

    def strangers_code(session: Session) -> int:
        session.add(Account(owner="from below"))
        session.flush()
        return len(session.scalars(select(Account)).all())

    with pytest.raises(LookupError):
        async with database.unit_of_work() as session:
            assert await session.run_sync(strangers_code) == len(ROWS) + 1
            raise LookupError
    assert await count_accounts(database) == len(ROWS)
