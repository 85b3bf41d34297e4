"""A unit is run again as a whole after what passes, and never after anything else."""

import asyncio
import logging
import sys

import pytest
from sqlalchemy import event, select, update
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession
from stamina import instrumentation

from moorage import (
    CommitOutcomeUnknownError,
    Database,
    LockTimeoutError,
    MissingExtraError,
    SettingsError,
    as_unit,
    on_commit,
    on_rollback,
    run_unit,
)
from tests.matrix.schema import Account, balances, create_tables


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables with two accounts."""
    await create_tables(database, "ada", "bob")


async def add_one(session: AsyncSession, account: int = 1) -> None:
    """Add one to a balance."""
    await session.execute(
        update(Account).where(Account.id == account).values(balance=Account.balance + 1)
    )


async def test_a_passing_failure_is_run_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """After a lock that was not free, the unit succeeds on a new session, and the log says so."""
    holder = database.unit_of_work()
    await add_one(await holder.begin())
    sessions: list[AsyncSession] = []
    journal: list[str] = []

    async def note_commit() -> None:
        journal.append("committed")

    async def free_the_lock() -> None:
        journal.append("rolled back")
        await holder.end()

    async def work(session: AsyncSession) -> int:
        sessions.append(session)
        on_commit(session, note_commit)
        on_rollback(session, free_the_lock)
        await add_one(session)
        return len(sessions)

    with caplog.at_level(logging.WARNING):
        assert await run_unit(work, database.sessionmaker, lock_timeout_seconds=1) == 2
    assert sessions[0] is not sessions[1]
    assert journal == ["rolled back", "committed"]
    assert await balances(database) == [2, 0]
    assert "stamina.retry_scheduled" in caplog.text


async def test_each_retry_is_counted(database: Database) -> None:
    """Whoever counts stamina's retries, as its Prometheus hook does, counts each of ours once."""
    counted: list[tuple[str, int]] = []
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise LockTimeoutError("not free")

    instrumentation.set_on_retry_hooks(
        [lambda details: counted.append((type(details.caused_by).__name__, details.retry_num))]
    )
    try:
        await run_unit(work, database.sessionmaker)
    finally:
        instrumentation.set_on_retry_hooks(None)
    assert counted == [("LockTimeoutError", 1), ("LockTimeoutError", 2)]


async def test_without_a_second_attempt_the_failure_arrives(database: Database) -> None:
    """The same lock defeats a unit that is run once."""
    async with database.unit_of_work() as holder:
        await add_one(holder)
        with pytest.raises(LockTimeoutError):
            await run_unit(add_one, database.sessionmaker, attempts=1, lock_timeout_seconds=1)


async def test_deadlocked_units_all_succeed_in_the_end(database: Database) -> None:
    """Units that lock two rows in opposite order all get through when they are run again."""

    async def transfer(first: int, second: int) -> None:
        async def work(session: AsyncSession) -> None:
            await add_one(session, first)
            await session.execute(select(Account))
            await add_one(session, second)

        await run_unit(work, database.sessionmaker, attempts=30, deadline_seconds=60)

    await asyncio.gather(*(transfer(1, 2) if number % 2 else transfer(2, 1) for number in range(4)))
    assert await balances(database) == [4, 4]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(LookupError("ours"), id="not of the database"),
        pytest.param(CommitOutcomeUnknownError("cut"), id="an unknown outcome"),
        pytest.param(asyncio.CancelledError(), id="a cancellation"),
    ],
)
async def test_other_failures_are_not_repeated(database: Database, failure: BaseException) -> None:
    """What running again cannot cure, or would do twice, arrives at once and as it is."""
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        raise failure

    with pytest.raises(type(failure)) as caught:
        await run_unit(work, database.sessionmaker)
    assert caught.value is failure
    assert runs == 1


async def test_a_violated_constraint_is_not_repeated(database: Database) -> None:
    """A row that is there already is there at the second attempt as well."""
    runs = 0

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        session.add(Account(owner="ada"))

    with pytest.raises(sa_exc.IntegrityError):
        await run_unit(work, database.sessionmaker)
    assert runs == 1


async def test_a_failure_behind_the_commit_is_not_run_again(database: Database) -> None:
    """What fails once COMMIT was answered is told, and the work is stored once."""
    runs = 0

    def fail(_: object) -> None:
        raise LockTimeoutError("of another database")

    async def work(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        event.listen(session.sync_session, "after_commit", fail)
        on_commit(session, hook)
        await add_one(session)

    async def hook() -> None:
        hooks.append(await balances(database))

    hooks: list[list[int]] = []
    with pytest.raises(LockTimeoutError, match="of another database"):
        await run_unit(work, database.sessionmaker)
    assert runs == 1
    assert hooks == [[1, 0]]


async def test_as_a_decorator(database: Database) -> None:
    """A decorated function is called without its session, and begins and commits by itself."""

    @as_unit(database.sessionmaker, isolation_level="SERIALIZABLE")
    async def rename(session: AsyncSession, account: int, *, owner: str) -> str:
        found = await session.get_one(Account, account)
        found.owner = owner
        return found.owner

    assert await rename(1, owner="eve") == "eve"
    assert rename.__name__ == "rename"
    async with database.session() as session:
        assert (await session.get_one(Account, 1)).owner == "eve"


async def test_bounds_are_positive(database: Database) -> None:
    """No attempt at all, or no time, is refused."""
    for attempts, seconds in ((0, 1.0), (1, 0.0), (1, float("nan"))):
        with pytest.raises(SettingsError, match="write positive numbers"):
            await run_unit(
                add_one, database.sessionmaker, attempts=attempts, deadline_seconds=seconds
            )


async def test_the_extra_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stamina the error has the line that installs it, and is an ImportError."""
    monkeypatch.setitem(sys.modules, "stamina", None)
    with pytest.raises(MissingExtraError, match="needs stamina") as caught:
        await run_unit(add_one, database.sessionmaker)
    assert isinstance(caught.value, ImportError)
    assert caught.value.hint == "pip install 'moorage[retry]'"
