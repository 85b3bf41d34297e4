"""Checks of units of work: what is stored, what is undone, and under which rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update

from moorage.database import Database
from moorage.errors import DatabaseError, ReadOnlyError
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Owner, drop_tables, has_owner, make_tables, names, owners
from moorage.testing.check import check
from moorage.testing.stepper import Stepper
from moorage.unit_of_work import UnitOfWork

__all__ = ["TransactionChecks"]


class TransactionChecks:
    """Commit, rollback, cancellation, savepoints, isolation, read-only, schema changes."""

    @check("the dialect's COMMIT, and whether another connection sees the same database")
    async def test_a_unit_commits(self, database: Database) -> None:
        """What a unit stored is there for another connection."""
        async with database.unit_of_work() as session:
            session.add(Owner(id=3, name="eve"))
        assert await names(database) == ["ada", "bob", "eve"]

    @check("the dialect's ROLLBACK: is a transaction open at all when the first statement runs?")
    async def test_an_exception_rolls_back(self, database: Database) -> None:
        """A unit that fails stores nothing."""
        with pytest.raises(LookupError):
            async with database.unit_of_work() as session:
                session.add(Owner(id=3, name="eve"))
                await session.flush()
                raise LookupError
        assert await names(database) == ["ada", "bob"]

    @check("autocommit of the driver, and what it does when a connection is closed")
    async def test_a_session_that_is_closed_rolls_back(self, database: Database) -> None:
        """A session that ends without a commit stores nothing."""
        async with database.session() as session:
            await session.execute(insert(Owner).values(id=3, name="eve", balance=0))
        assert await names(database) == ["ada", "bob"]

    @check("what the driver leaves behind when a task is cancelled while it waits for it")
    async def test_cancellation_anywhere_leaves_nothing(self, settings: DatabaseSettings) -> None:
        """A unit that is cancelled anywhere leaves nothing behind, and says truly so."""
        small = settings.model_copy(update={"pool_size": 1, "max_overflow": 0})
        async with Database(small) as database, Database(settings) as watcher:
            await make_tables(watcher, "ada")
            point = 0
            while True:
                point += 1
                unit = database.unit_of_work()
                stepper = Stepper(_insert_one(unit, 100 + point), point)
                task = asyncio.create_task(_finish(stepper))
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert database.pool_statistics().in_use == 0, f"leaked at point {point}"
                stored = await has_owner(watcher, 100 + point)
                assert stored == (unit.outcome == "committed"), f"untrue at point {point}"
                if not stepper.cancelled:
                    assert outcome is None
                    break
                assert isinstance(outcome, asyncio.CancelledError), f"swallowed at point {point}"
            assert point > 1, "the driver never waits: it blocks the event loop"
            await drop_tables(watcher)

    @check("Capabilities.savepoints, and the dialect's SAVEPOINT", capability="savepoints")
    async def test_a_savepoint_undoes_a_part(self, database: Database) -> None:
        """What failed inside a savepoint is undone, and the rest is stored."""
        unit = database.unit_of_work()
        async with unit as session:
            session.add(Owner(id=3, name="eve"))
            with pytest.raises(LookupError):
                async with unit.savepoint():
                    session.add(Owner(id=4, name="zoe"))
                    await session.flush()
                    raise LookupError
        assert await names(database) == ["ada", "bob", "eve"]

    @check(
        "Capabilities.isolation_levels: each must be one that the dialect can set and read",
        capability="isolation_levels",
    )
    async def test_isolation_levels_are_set(self, database: Database) -> None:
        """A unit runs in the level it asks for, and the next one on the connection does not."""
        async with database.unit_of_work() as session:
            usual = await (await session.connection()).get_isolation_level()
        for level in sorted(database.connector.capabilities.isolation_levels):
            async with database.unit_of_work(isolation_level=level) as session:
                assert await (await session.connection()).get_isolation_level() == level
            async with database.unit_of_work() as session:
                assert await (await session.connection()).get_isolation_level() == usual

    @check(
        "get_execution_options('read only'), and Capabilities.read_only_transactions",
        capability="read_only_transactions",
        brings=(ReadOnlyError,),
    )
    async def test_a_read_only_unit_refuses_writes(self, database: Database) -> None:
        """The database refuses a write in a unit that only reads, and stores nothing."""
        with pytest.raises(_refusal(database)):
            async with database.unit_of_work(read_only=True) as session:
                assert len(await owners(session)) == 2
                await session.execute(update(Owner).values(balance=1))
        async with database.session() as session:
            assert [owner.balance for owner in await owners(session)] == [0, 0]

    @check(
        "make_read_only: the backend itself has to refuse, whatever the statement looks like",
        capability="read_only_connections",
        brings=(ReadOnlyError,),
    )
    async def test_a_read_session_refuses_writes(self, database: Database) -> None:
        """The database refuses a write in a read session, and other sessions still write."""
        with pytest.raises(_refusal(database)):
            async with database.read_session() as session:
                assert len(await owners(session)) == 2
                await session.execute(update(Owner).values(balance=1))
        async with database.unit_of_work() as session:
            assert [owner.balance for owner in await owners(session)] == [0, 0]
            await session.execute(update(Owner).values(balance=2))

    @check(
        "get_execution_options('read only deferrable'), and Capabilities.deferrable_transactions",
        capability="deferrable_transactions",
    )
    async def test_a_deferrable_unit_only_reads(self, database: Database) -> None:
        """A deferrable unit is SERIALIZABLE, reads, and refuses writes."""
        with pytest.raises(DatabaseError):
            async with database.unit_of_work(read_only=True, deferrable=True) as session:
                level = await (await session.connection()).get_isolation_level()
                assert level == "SERIALIZABLE"
                assert len(await owners(session)) == 2
                await session.execute(update(Owner).values(balance=1))
        async with database.session() as session:
            assert [owner.balance for owner in await owners(session)] == [0, 0]

    @check("Capabilities.transactional_ddl", capability="transactional_ddl")
    async def test_schema_changes_are_undone(self, database: Database) -> None:
        """A table that was made in a transaction that rolled back is not there."""
        table = Table("moorage_ddl", MetaData(), Column("id", Integer))
        with pytest.raises(LookupError):
            async with database.engine.begin() as connection:
                await connection.run_sync(table.create)
                raise LookupError
        async with database.engine.begin() as connection:
            await connection.run_sync(table.create)
            await connection.run_sync(table.drop)


def _refusal(database: Database) -> type[DatabaseError]:
    declared = ReadOnlyError in database.connector.capabilities.errors
    return ReadOnlyError if declared else DatabaseError


async def _insert_one(unit: UnitOfWork, number: int) -> None:
    async with unit as session:
        session.add(Owner(id=number, name=f"owner {number}"))
        await session.flush()
        await session.execute(select(Owner).where(Owner.id == number))


async def _finish(work: Awaitable[Any]) -> None:
    await work
