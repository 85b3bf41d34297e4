"""Hooks run once, in order, after the outcome of their unit is certain, and never change it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import exc as sa_exc

from moorage import Database, UnitOfWork, UnitOfWorkError, on_commit, on_rollback
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables with one account."""
    await create_tables(database, "ada")


def noting(journal: list[str], word: str) -> Callable[[], Awaitable[None]]:
    """Return a hook that writes a word into a journal."""

    async def hook() -> None:
        journal.append(word)

    return hook


async def test_hooks_run_after_the_commit_in_order(database: Database) -> None:
    """When a hook runs, the work is stored, the connection returned, and the session closed."""
    journal: list[str] = []
    unit = database.unit_of_work()

    async def look() -> None:
        assert unit.outcome == "committed"
        assert database.pool_statistics().in_use == 0
        journal.append(f"{await count_accounts(database)} accounts")

    async with unit as session:
        session.add(Account(owner="bob"))
        on_commit(session, noting(journal, "first"))
        on_commit(session, look)
        on_rollback(session, noting(journal, "never"))
        await session.run_sync(lambda below: on_commit(below, noting(journal, "last")))
        assert journal == []
    assert journal == ["first", "2 accounts", "last"]


async def test_hooks_of_a_rollback(database: Database) -> None:
    """After a rollback, by an error or on purpose, the other hooks run."""
    journal: list[str] = []
    with pytest.raises(LookupError):
        async with database.unit_of_work() as session:
            on_commit(session, noting(journal, "never"))
            on_rollback(session, noting(journal, "an error"))
            raise LookupError
    with pytest.raises(sa_exc.IntegrityError):
        async with database.unit_of_work() as session:
            session.add(Account(owner="ada"))
            on_commit(session, noting(journal, "never"))
            on_rollback(session, noting(journal, "a commit that failed"))
    unit = database.unit_of_work()
    async with unit as session:
        on_rollback(session, noting(journal, "on purpose"))
        unit.rollback_only()
    assert journal == ["an error", "a commit that failed", "on purpose"]


async def test_hooks_of_savepoints(database: Database) -> None:
    """A hook belongs to the savepoint it was registered in, however deep the rollback cuts."""
    journal: list[str] = []
    unit = database.unit_of_work()
    async with unit as session:
        with pytest.raises(LookupError):
            async with unit.savepoint():
                async with unit.savepoint():
                    session.add(Account(owner="bob"))
                    on_commit(session, noting(journal, "undone with the outer savepoint"))
                    on_rollback(session, noting(journal, "undone"))
                raise LookupError
        async with unit.savepoint():
            session.add(Account(owner="eve"))
            on_commit(session, noting(journal, "kept"))
    assert journal == ["undone", "kept"]
    assert await count_accounts(database) == 2


async def test_a_failing_hook_changes_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What a hook raises is logged, the next hook runs, and the unit stays committed."""
    journal: list[str] = []

    async def fail() -> None:
        raise LookupError("the mail server is gone")

    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    unit = database.unit_of_work()
    with caplog.at_level(logging.ERROR, logger="moorage.hooks"):
        async with unit as session:
            on_commit(session, fail)
            on_commit(session, cancel_itself)
            on_commit(session, noting(journal, "next"))
    assert unit.outcome == "committed"
    assert journal == ["next"]
    assert "the mail server is gone" in caplog.text
    assert caplog.text.count("failed; its unit of work had ended before") == 2


async def test_a_hook_has_a_deadline(
    make_database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that hangs is given up, and the next one runs."""
    database = make_database(hook_timeout_seconds=0.05)
    journal: list[str] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async with database.unit_of_work() as session:
        on_commit(session, hang)
        on_commit(session, noting(journal, "next"))
    assert journal == ["next"]
    assert "was given up after 0.05 s (DB_HOOK_TIMEOUT_SECONDS)" in caplog.text


async def test_hooks_are_not_interrupted(database: Database) -> None:
    """A cancelled task finishes its hooks; the cancellation arrives afterwards."""
    journal: list[str] = []
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        inside.set()
        await go_on.wait()
        journal.append("done")

    async def work() -> None:
        async with database.unit_of_work() as session:
            session.add(Account(owner="bob"))
            on_commit(session, slow)
        journal.append("never")

    task = asyncio.create_task(work())
    await inside.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal == ["done"]
    assert await count_accounts(database) == 2


async def test_hooks_need_a_unit(database: Database) -> None:
    """A hook on a session without a unit would never run, and is refused."""
    async with database.session() as session:
        with pytest.raises(UnitOfWorkError, match="does not belong to a running unit"):
            on_commit(session, noting([], "never"))
    unit = UnitOfWork(database.sessionmaker)
    async with unit as session:
        pass
    with pytest.raises(UnitOfWorkError):
        on_rollback(session, noting([], "never"))
