"""
Who of this process may write next: first come, first served.

SQLite lets waiting writers poll, in the driver's threads, so that an unlucky one waits for ever
while others overtake it; and a thread that waits inside SQLite holds a mutex that the event loop
may need. So the writers of one process queue here, without touching SQLite, and only the one in
front asks for the lock.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["WriteQueue"]


@dataclass(eq=False)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    granted: asyncio.Future[None]
    owner: weakref.ref[Any]


class WriteQueue:
    """
    A fair lock whose holders are connections; it serves several event loops and threads.

    A connection that is dropped without a word gives its place back when it is collected.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owner: weakref.ref[Any] | None = None
        self._waiters: deque[_Waiter] = deque()

    async def acquire(self, connection: object) -> None:
        """
        Wait until ``connection`` is in front; returns at once if it holds the place already.

        Cancelling the wait gives the place up.
        """
        owner = weakref.ref(connection, self._collected)
        with self._mutex:
            if self._holds(connection):
                return
            if self._owner is not None and self._owner() is None:
                self._pass_on()  # its holder was collected while the mutex was taken
            if self._owner is None:
                self._owner = owner
                return
            loop = asyncio.get_running_loop()
            waiter = _Waiter(loop, loop.create_future(), owner)
            self._waiters.append(waiter)
        try:
            await waiter.granted
        except BaseException:
            with self._mutex:
                if self._owner is owner:  # granted in the moment of the cancellation
                    self._pass_on()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
            raise

    def release(self, connection: object) -> None:
        """Let the next one in; does nothing if ``connection`` is not in front."""
        with self._mutex:
            if self._holds(connection):
                self._pass_on()

    def _holds(self, connection: object) -> bool:
        return self._owner is not None and self._owner() is connection

    def _collected(self, owner: weakref.ref[Any]) -> None:
        # Runs wherever the collector does, in the middle of a `with self._mutex` of this very
        # thread too: so it takes a free mutex or leaves the work to whoever holds it.
        if self._mutex.acquire(blocking=False):
            try:
                if self._owner is owner:
                    self._pass_on()
            finally:
                self._mutex.release()

    def _pass_on(self) -> None:
        self._owner = None
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.granted.done() or waiter.loop.is_closed():
                continue
            self._owner = waiter.owner
            try:
                waiter.loop.call_soon_threadsafe(_grant, waiter.granted)
            except RuntimeError:
                self._owner = None  # its loop was closed a moment ago
                continue
            return


def _grant(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
