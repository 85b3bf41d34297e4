"""A unit of work is one transaction, whole or not at all, on every backend."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from moorage import Database, ReadOnlyError, SettingsError, UnitOfWork, UnitOfWorkError
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale
from tests.matrix.schema import Account, balances, count_accounts, create_tables


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables with one account."""
    await create_tables(database, "ada")


async def test_success_commits(database: Database) -> None:
    """What was done in a unit that ends well is there for others."""
    async with database.unit_of_work() as session:
        session.add(Account(owner="bob"))
    assert await count_accounts(database) == 2


async def test_objects_stay_usable_after_the_commit(database: Database) -> None:
    """Attributes of an object can be read after its unit has committed."""
    async with database.unit_of_work() as session:
        bob = Account(owner="bob", balance=5)
        session.add(bob)
    assert (bob.owner, bob.balance) == ("bob", 5)


async def test_exception_rolls_back(database: Database) -> None:
    """An exception leaves nothing behind and arrives unchanged."""
    failure = LookupError("half-way")
    with pytest.raises(LookupError) as caught:
        async with database.unit_of_work() as session:
            session.add(Account(owner="bob"))
            await session.flush()
            raise failure
    assert caught.value is failure
    assert await count_accounts(database) == 1


async def test_cancellation_rolls_back(database: Database) -> None:
    """A cancelled unit leaves nothing behind and no connection checked out."""
    inside = asyncio.Event()

    async def work() -> None:
        async with database.unit_of_work() as session:
            session.add(Account(owner="bob"))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.pool_statistics().in_use == 0
    assert await count_accounts(database) == 1


async def test_failing_commit_leaves_nothing(database: Database) -> None:
    """A unit whose commit fails raises the error and stores nothing."""
    with pytest.raises(sa_exc.IntegrityError):
        async with database.unit_of_work() as session:
            session.add(Account(owner="bob"))
            session.add(Account(owner="ada"))
    assert await count_accounts(database) == 1


async def test_begin_and_end_are_the_same_without_a_with(database: Database) -> None:
    """``begin`` and ``end`` commit as the block form does, and roll back given an exception."""
    unit = UnitOfWork(database.sessionmaker)
    session = await unit.begin()
    assert unit.session is session
    session.add(Account(owner="bob"))
    await unit.end()
    assert await count_accounts(database) == 2

    unit = UnitOfWork(database.sessionmaker)
    (await unit.begin()).add(Account(owner="eve"))
    await unit.end(ValueError("no"))
    assert await count_accounts(database) == 2


async def test_a_unit_is_used_once(database: Database) -> None:
    """A unit that was begun cannot be begun again, neither while it runs nor afterwards."""
    unit = database.unit_of_work()
    async with unit:
        with pytest.raises(UnitOfWorkError, match="is active; a unit is used once"):
            await unit.begin()
    with pytest.raises(UnitOfWorkError, match="is ended; a unit is used once"):
        await unit.begin()


async def test_a_unit_ends_once_and_after_its_begin(database: Database) -> None:
    """Ending before the beginning, ending twice, and using the session outside are errors."""
    unit = database.unit_of_work()
    with pytest.raises(UnitOfWorkError, match="is not begun and has no session"):
        await unit.end()
    async with unit:
        pass
    with pytest.raises(UnitOfWorkError, match="is ended and has no session"):
        await unit.end()
    with pytest.raises(UnitOfWorkError, match="is ended and has no session"):
        _ = unit.session


async def test_failure_while_closing_does_not_hide_the_cause(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When closing fails too, the first error arrives, with a note about the second."""
    unit = database.unit_of_work()
    session = await unit.begin()
    close = session.close

    async def failing_close() -> None:
        await close()
        raise OSError("the socket is gone")

    monkeypatch.setattr(session, "close", failing_close)
    cause = ValueError("the cause")
    await unit.end(cause)
    assert cause.__notes__ == [
        "moorage: closing the session failed as well: OSError('the socket is gone')"
    ]


async def test_a_strangers_sessionmaker_will_do(database: Database) -> None:
    """A unit works on any sessionmaker, also one that knows nothing of moorage."""
    maker = async_sessionmaker(database.engine, class_=AsyncSession)
    async with UnitOfWork(maker) as session:
        session.add(Account(owner="bob"))
    assert await count_accounts(database) == 2


async def test_isolation_level_holds_for_one_unit(
    database: Database, make_database: DatabaseFactory
) -> None:
    """An isolation level is that of its unit, and the connection is returned without it."""
    single = make_database(pool_size=1, max_overflow=0)
    async with single.unit_of_work(isolation_level="SERIALIZABLE") as session:
        connection = await session.connection()
        assert await connection.get_isolation_level() == "SERIALIZABLE"
    async with single.session() as session:
        connection = await session.connection()
        expected = (
            "SERIALIZABLE" if single.connector.capabilities.single_writer else "READ COMMITTED"
        )
        assert await connection.get_isolation_level() == expected


async def test_unknown_isolation_level_is_refused(database: Database) -> None:
    """A level that the backend does not have is an error that lists the ones it has."""
    with pytest.raises(SettingsError, match=r"has no isolation level 'CHAOS'") as caught:
        await database.unit_of_work(isolation_level="CHAOS").begin()
    assert "SERIALIZABLE" in caught.value.hint


async def test_read_only_unit_refuses_writes(database: Database) -> None:
    """A write in a read-only unit is refused by the backend, and reading works."""
    with pytest.raises(ReadOnlyError):
        async with database.unit_of_work(read_only=True) as session:
            assert (await session.scalars(select(Account.owner))).all() == ["ada"]
            await session.execute(text("UPDATE account SET balance = 1"))
    assert await balances(database) == [0]


async def test_outcome(database: Database) -> None:
    """A unit says what became of it: nothing yet, committed, or rolled back."""
    unit = database.unit_of_work()
    assert unit.outcome is None
    async with unit as session:
        session.add(Account(owner="bob"))
        assert unit.outcome is None
    assert unit.outcome == "committed"

    failed = database.unit_of_work()
    with pytest.raises(LookupError):
        async with failed:
            raise LookupError
    assert failed.outcome == "rolled_back"

    refused = database.unit_of_work()
    with pytest.raises(sa_exc.IntegrityError):
        async with refused as session:
            session.add(Account(owner="ada"))
    assert refused.outcome == "rolled_back"


async def test_cancellation_during_the_flush_rolls_back(database: Database) -> None:
    """A unit that is cancelled before its COMMIT was sent is rolled back, and says so."""
    unit = database.unit_of_work()

    async def work() -> None:
        async with unit as session:
            session.add(Account(owner="bob"))
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert unit.outcome == "rolled_back"
    assert await count_accounts(database) == 1


async def test_the_flush_is_done_by_the_units_own_task(database: Database) -> None:
    """What listens to the flush at the end of a unit runs in its task, and in its context."""
    seen: list[object] = []
    said = ContextVar("said", default="nothing")

    def listen(session: Session, context: object, instances: object) -> None:
        seen.append(asyncio.current_task())
        said.set("flushed")

    async with database.unit_of_work() as session:
        event.listen(session.sync_session, "before_flush", listen)
        session.add(Account(owner="bob"))
    assert seen == [asyncio.current_task()]
    assert said.get() == "flushed"
    assert await count_accounts(database) == 2


async def test_a_strangers_flush_and_commit_are_called(database: Database) -> None:
    """A session class that does more when it flushes and commits still does it."""
    called: list[str] = []

    class Theirs(AsyncSession):
        async def flush(self, objects: Sequence[Any] | None = None) -> None:
            called.append("flush")
            await super().flush(objects)

        async def commit(self) -> None:
            called.append("commit")
            await super().commit()

    async with UnitOfWork(async_sessionmaker(database.engine, class_=Theirs)) as session:
        session.add(Account(owner="bob"))
    assert called == ["flush", "commit"]
    assert await count_accounts(database) == 2


async def test_savepoint_undoes_a_part(database: Database) -> None:
    """A savepoint that fails undoes its part alone."""
    async with database.unit_of_work() as session:
        session.add(Account(owner="bob"))
        with pytest.raises(sa_exc.IntegrityError):
            async with session.begin_nested():
                session.add(Account(owner="ada"))
    assert await count_accounts(database) == 2


@pytest.mark.scaled
async def test_transfers_keep_the_sum(database: Database, scale: Scale) -> None:
    """Concurrent transfers, a third of which fail half-way, never change the sum of balances."""
    async with database.unit_of_work() as session:
        await session.execute(update(Account).values(balance=1000))
        session.add_all([Account(owner="bob", balance=1000), Account(owner="eve", balance=1000)])
    slots = asyncio.Semaphore(16)

    async def transfer(number: int) -> None:
        source, target = 1 + number % 3, 1 + (number + 1 + number // 3 % 2) % 3
        first, second = sorted((source, target))
        async with slots, database.unit_of_work() as session:
            for account in (first, second):
                change = -7 if account == source else 7
                await session.execute(
                    update(Account)
                    .where(Account.id == account)
                    .values(balance=Account.balance + change)
                )
                if number % 3 == 0:
                    raise InterruptedError

    count = scale(small=30, full=600)
    results = await asyncio.gather(
        *(transfer(number) for number in range(count)), return_exceptions=True
    )
    assert {type(result) for result in results} == {type(None), InterruptedError}
    assert sum(await balances(database)) == 3000
