"""
How long a statement may run on a connection and wait for a lock, and how it is ended.

SQLite has no time-out of its own, and a task that is cancelled leaves its statement running in
the driver's thread, where the ROLLBACK has to wait for it. SQLite does ask, every so many steps,
whether it shall go on; the answer is given here. Unlike an interrupt, it cannot come too early for
a statement that has not begun, or too late and hit the next one.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Limits"]

# About a millisecond. The question takes Python's global lock, so it must not be asked too often.
_STEPS = 50_000


class Limits:
    """
    The limits of a database's connections; set in event loops, looked at in the driver's threads.

    Args:
        statement_seconds: Longest run of one statement; 0 is no limit.
        lock_seconds: Longest wait for a lock; 0 is no limit.
    """

    def __init__(self, statement_seconds: float = 0, lock_seconds: float = 0) -> None:
        self._usual = (statement_seconds or math.inf, lock_seconds or math.inf)
        self._clocks: WeakKeyDictionary[Any, _Clock] = WeakKeyDictionary()

    def change(
        self, driver_connection: Any, statement_seconds: float | None, lock_seconds: float | None
    ) -> None:
        """Give a connection other limits until :meth:`restore`; ``None`` leaves the usual one."""
        clock = self._clocks[driver_connection]
        if statement_seconds is not None:
            clock.statement_seconds = statement_seconds or math.inf
        if lock_seconds is not None:
            clock.lock_seconds = lock_seconds or math.inf

    def restore(self, driver_connection: Any) -> None:
        """Give a connection its usual limits."""
        if (clock := self._clocks.get(driver_connection)) is not None:
            clock.statement_seconds, clock.lock_seconds = self._usual

    def lock_seconds(self, driver_connection: Any) -> float:
        """Return how long a connection may wait for a lock; infinite without a limit."""
        clock = self._clocks.get(driver_connection)
        return self._usual[1] if clock is None else clock.lock_seconds

    async def watch(self, driver_connection: Any) -> None:
        """Put a connection under the limit; called once, when it was just opened."""
        clock = self._clocks[driver_connection] = _Clock(*self._usual)
        await driver_connection.set_progress_handler(clock.is_over, _STEPS)

    def run(self, driver_connection: Any, execute: Callable[[], None]) -> None:
        """
        Run a statement under the limit; one whose task is cancelled is told to end.

        Called inside SQLAlchemy's greenlet, where ``execute`` waits for the driver's thread.

        Raises:
            TimeoutError: The statement was ended because its time was over.
        """
        clock = self._clocks.get(driver_connection)
        if clock is None:
            execute()
            return
        clock.until = time.monotonic() + clock.statement_seconds
        try:
            execute()
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)  # SQLAlchemy raises some without
            if code == sqlite3.SQLITE_INTERRUPT and clock.is_over():
                raise TimeoutError from error
            raise
        except asyncio.CancelledError:
            clock.until = -math.inf
            raise
        clock.until = math.inf

    def lift(self, driver_connection: Any) -> None:
        """Take the limit back; called when nothing runs on the connection any more."""
        if (clock := self._clocks.get(driver_connection)) is not None:
            clock.until = math.inf


class _Clock:
    __slots__ = ("lock_seconds", "statement_seconds", "until")

    def __init__(self, statement_seconds: float, lock_seconds: float) -> None:
        self.statement_seconds = statement_seconds
        self.lock_seconds = lock_seconds
        self.until = math.inf

    def is_over(self) -> bool:
        return time.monotonic() >= self.until
