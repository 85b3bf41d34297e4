"""One process at a time migrates; the others wait for it, to a limit, and say so."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.abilities import LocksMigrations
from moorage.database import Database
from moorage.errors import MigrationLockError

__all__ = ["migration_lock"]

logger: logging.Logger = logging.getLogger("moorage.migrations")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_REPORT_EVERY_SECONDS = 5.0


@asynccontextmanager
async def migration_lock(
    database: Database,
    wait_seconds: float,
    report: Callable[[str], None],
    nothing_to_do: Callable[[], Awaitable[bool]],
) -> AsyncIterator[AsyncConnection | None]:
    """
    Hold the lock for migrations on a connection of its own, and yield that connection.

    It is separate from the one that migrates: a revision may end its transaction, and a lock that
    ends with it would let the next process in. The server frees the lock of a process that dies.

    Args:
        database: Whose schema is changed.
        wait_seconds: Longest wait for another process.
        report: Called with a sentence now and then while it waits.
        nothing_to_do: Asked before the lock is, and while it waits; ``None`` is yielded then.

    Raises:
        MigrationLockError: Another process still migrates when the time is over.
    """
    if await nothing_to_do():
        yield None
        return
    connector = database.connector
    async with database.engine.connect() as connection:
        if not isinstance(connector, LocksMigrations):
            logger.warning(
                "connector %r has no lock for migrations: run them from one process only",
                connector.name,
            )
            yield connection
            return
        waiting = _pauses(wait_seconds, report)
        while not await connector.try_lock_migrations(connection):
            await asyncio.sleep(next(waiting))
            if await nothing_to_do():
                yield None
                return
        try:
            yield connection
        finally:
            # Closed, not returned to the pool: the lock goes with it, whatever state it is in.
            await connection.invalidate()


def _pauses(wait_seconds: float, report: Callable[[str], None]) -> Iterator[float]:
    """Yield how long to sleep between two questions, until the time is over."""
    began = time.monotonic()
    pause, next_report = _FIRST_PAUSE_SECONDS, began
    while (now := time.monotonic()) - began < wait_seconds:
        if now >= next_report:
            next_report = now + _REPORT_EVERY_SECONDS
            report(f"another process migrates; waiting ({now - began:.0f} s of {wait_seconds:g} s)")
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    raise MigrationLockError(
        f"another process has been migrating this database for {wait_seconds:g} s",
        hint="look at what it does; wait longer with wait_seconds= or --wait",
    )
