"""
How many connections are opened at once, and how soon after a failure the next one is tried.

A server that comes back after a restart has lost the connections of every process, and all of
them want new ones in the same moment. Each event loop opens a few at a time; while attempts fail,
the next ones wait for a moment of their own, and all go on as soon as one has succeeded.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakKeyDictionary

__all__ = ["ConnectGate", "FirstConnection"]

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class ConnectGate:
    """
    The gate that all attempts to connect of one engine pass, a few at a time in each event loop.

    Args:
        at_once: Most attempts under way in one event loop.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Wait for a place and, after failures, for a moment; then let the block connect."""
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane(self._at_once)
        async with lane.places:
            await lane.pause()
            try:
                yield
            except Exception:
                lane.failed()
                raise
            lane.succeeded()


class _Lane:
    def __init__(self, at_once: int) -> None:
        self.places = asyncio.Semaphore(at_once)
        self._failures = 0
        self._reachable = asyncio.Event()

    async def pause(self) -> None:
        if not self._failures:
            return
        longest = min(_FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10), _LONGEST_PAUSE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(longest * random.uniform(0.5, 1.0)):
                await self._reachable.wait()

    def failed(self) -> None:
        self._failures += 1
        self._reachable.clear()

    def succeeded(self) -> None:
        self._failures = 0
        self._reachable.set()


class FirstConnection:
    """
    Lets one loop alone open the first connection of an engine; the tasks of that loop all may.

    With it SQLAlchemy sets up its dialect, once and under a lock that several loops cannot share:
    they would wait for ever.
    """

    def __init__(self) -> None:
        self.is_there = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = 0

    def enter(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a task of ``loop`` may open it; then :meth:`leave` has to follow."""
        with self._lock:
            if not self.is_there and self._loop not in {None, loop}:
                return False
            self._loop = loop
            self._busy += 1
            return True

    def leave(self) -> None:
        """Let others in, once all tasks of this loop have left."""
        with self._lock:
            self._busy -= 1
            if self._busy <= 0:
                self._loop = None
