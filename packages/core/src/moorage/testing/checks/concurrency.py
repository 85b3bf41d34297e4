"""Checks of several tasks at once: who waits for whom, how long, and what that does to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.database import Database
from moorage.errors import (
    ConnectionLostError,
    DatabaseError,
    DeadlockError,
    IdleInTransactionTimeoutError,
    LockTimeoutError,
    SerializationError,
)
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Owner
from moorage.testing.check import check

__all__ = ["ConcurrencyChecks"]

# Short enough to be waited for, and the shortest that some backends know is one second anyway.
_SHORT_SECONDS = 0.2
_IDLE_SECONDS = 1.0
_NOTICE_SECONDS = 10.0
_SNAPSHOTS = ("REPEATABLE READ", "SERIALIZABLE")


class ConcurrencyChecks:
    """Lost updates, locks, deadlocks, collisions, and the limits of waiting."""

    provocations: ClassVar[Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]]

    @check("the isolation of the backend; a single writer must lock before it reads")
    async def test_concurrent_units_lose_no_update(self, database: Database) -> None:
        """Units that read, add one and write at the same time are all counted."""
        units = min(10, database.pool_statistics().capacity or 10)
        connected = 0
        start = asyncio.Event()

        async def add_one() -> None:
            nonlocal connected
            async with database.unit_of_work() as session:
                await session.connection()
                connected += 1
                if connected == units:
                    start.set()
                await start.wait()  # none may be done before the last one is there
                owner = await session.get_one(Owner, 1, with_for_update=True)
                owner.balance += 1

        await asyncio.gather(*(add_one() for _ in range(units)))
        assert await _balance(database) == units

    @check("the driver: does it wait inside of the event loop's thread?")
    async def test_waiting_for_a_lock_blocks_nobody(self, database: Database) -> None:
        """While one task waits for a lock, the others go on, the one that holds it included."""
        async with database.unit_of_work() as session:
            await _write(session, 1)
            sent = _next_statement(database)
            task = asyncio.create_task(_unit_that_writes(database, 2))
            await sent.wait()
            # It has gone to the driver: this task goes on because the other one waits, or never.
        await task
        assert await _balance(database) == 2

    @check("lock_timeout_seconds: who enforces it?", error=LockTimeoutError)
    async def test_waiting_for_a_lock_has_an_end(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """A lock that is not free in time is a LockTimeoutError."""
        async with (
            Database(_changed(settings, lock_timeout_seconds=_SHORT_SECONDS)) as impatient,
            impatient.unit_of_work() as session,
        ):
            await _write(session, 1)
            with pytest.raises(LockTimeoutError):
                await _unit_that_writes(impatient, 2)

    @check(
        "limit_transaction: the limits must be gone when the connection is back in the pool",
        capability="transaction_limits",
    )
    async def test_limits_of_a_unit_end_with_it(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """A unit's own limit ends its wait for a lock, and the next unit has the usual one."""
        async with Database(_changed(settings, pool_size=1, max_overflow=0)) as other:
            async with database.unit_of_work() as session:
                await _write(session, 1)
                with pytest.raises(DatabaseError):
                    async with other.unit_of_work(lock_timeout_seconds=_SHORT_SECONDS) as hasty:
                        await _write(hasty, 2)
                sent = _next_statement(other)
                patient = asyncio.create_task(_unit_that_writes(other, 3))
                await sent.wait()
                for _ in range(2):  # by then it would be over, if its limit was theirs
                    with pytest.raises(DatabaseError):
                        async with database.unit_of_work(lock_timeout_seconds=_SHORT_SECONDS) as it:
                            await _write(it, 4)
                assert not patient.done(), "the limit of the unit before is still there"
            await patient
        assert await _balance(database) == 3

    @check("classify_error: the code of a deadlock", error=DeadlockError)
    async def test_a_deadlock_is_named(self, database: Database) -> None:
        """Of two units that wait for each other one is undone with a DeadlockError."""
        both_hold_one = asyncio.Barrier(2)

        async def take(first: int, second: int) -> None:
            async with database.unit_of_work() as session:
                await _write(session, 1, owner=first)
                await both_hold_one.wait()
                await _write(session, 1, owner=second)

        outcomes = await asyncio.gather(take(1, 2), take(2, 1), return_exceptions=True)
        raised = [outcome for outcome in outcomes if outcome is not None]
        assert len(raised) == 1
        assert isinstance(raised[0], DeadlockError)

    @check(
        "classify_error: the code of a transaction that collided with another one",
        error=SerializationError,
    )
    async def test_a_collision_is_named(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """
        Who read what another one changed since cannot change it, in some way to ask for it.

        Where only ``provocations`` know how to ask, it must be stopped all the same.
        """
        levels = database.connector.capabilities.isolation_levels
        raised: list[DatabaseError] = []
        async with Database(_changed(settings, lock_timeout_seconds=_SHORT_SECONDS)) as other:
            for level in (None, *(level for level in _SNAPSHOTS if level in levels)):
                session = (
                    database.session()
                    if level is None
                    else database.unit_of_work(isolation_level=level)
                )
                try:
                    async with session as reader:
                        await reader.scalar(select(Owner.balance).where(Owner.id == 1))
                        await _unit_that_writes(other, 1)
                        await _write(reader, 2)
                except DatabaseError as error:
                    raised.append(error)
        # A backend that locks what it reads has no collisions, but something must stop the other.
        locks = (SerializationError, DeadlockError, LockTimeoutError)
        wanted = locks if SerializationError in self.provocations else SerializationError
        assert any(isinstance(error, wanted) for error in raised), f"raised instead: {raised}"

    @check("Capabilities.single_writer: is it so?", capability="single_writer")
    async def test_there_is_one_writer_at_a_time(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """While a unit writes, no other one can, whatever it is about."""
        async with (
            Database(_changed(settings, lock_timeout_seconds=_SHORT_SECONDS)) as impatient,
            database.unit_of_work() as session,
        ):
            await _write(session, 1, owner=1)
            with pytest.raises(DatabaseError):
                async with impatient.unit_of_work() as other:
                    await _write(other, 1, owner=2)

    @check(
        "idle_in_transaction_timeout_seconds: who enforces it?",
        capability="ends_idle_transactions",
        brings=(IdleInTransactionTimeoutError,),
    )
    async def test_an_idle_transaction_is_ended(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """A transaction that sits idle for too long is ended, and gives its locks back."""
        forgetful = _changed(settings, idle_in_transaction_timeout_seconds=_IDLE_SECONDS)
        patient = _changed(settings, lock_timeout_seconds=_NOTICE_SECONDS)
        declared = database.connector.capabilities.errors
        kind = IdleInTransactionTimeoutError
        async with Database(forgetful) as one, Database(patient) as other:
            async with one.session() as session:
                await _write(session, 1)
                too_long = asyncio.get_running_loop().time() + 1.1 * _IDLE_SECONDS
                await _unit_that_writes(other, 2)  # waits until the first one is ended
                # Which may be a moment too early by the clock of this side.
                await asyncio.sleep(too_long - asyncio.get_running_loop().time())
                with pytest.raises(kind if kind in declared else ConnectionLostError):
                    await session.execute(select(1))
            assert await _balance(database) == 2


def _changed(settings: DatabaseSettings, **values: object) -> DatabaseSettings:
    return settings.model_copy(update=values)


def _next_statement(database: Database) -> asyncio.Event:
    """Return an event that is set in the moment before a statement goes to the driver."""
    sent = asyncio.Event()
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *_: sent.set(), once=True
    )
    return sent


async def _write(session: AsyncSession, balance: int, *, owner: int = 1) -> None:
    await session.execute(update(Owner).where(Owner.id == owner).values(balance=balance))


async def _unit_that_writes(database: Database, balance: int) -> None:
    async with database.unit_of_work() as session:
        await _write(session, balance)


async def _balance(database: Database) -> int:
    async with database.session() as session:
        return (await session.get_one(Owner, 1)).balance
