"""
Deadlines that are hardly ever reached, at the cost of remembering them.

``asyncio.timeout`` arms a timer and disarms it again for each wait, and most waits are over long
before; in uvloop the two cost as much as twenty calls. Here a wait is noted and forgotten, and one
timer per event loop comes by when the first of those that are noted could be over. What waits
inside SQLAlchemy's greenlet is cancelled then, as ``asyncio.timeout`` does it.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import current_task, get_running_loop
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["Alarm", "LateError", "Wait", "awaiting", "within"]


class LateError(TimeoutError):
    """A deadline of ours was over, and not one that the driver has."""


class Wait:
    """
    What one connection waits for: at most one answer at a time, in the loop that made this.

    Attributes:
        task: Who waits; ``None`` while nobody does, which whoever has the answer sets.
        is_late: Whether the task was cancelled for it, and :meth:`end_late` has to follow.
        was_late: Whether an answer did not come in time, once.
    """

    __slots__ = (
        "__weakref__",
        "_cancelling",
        "_clock",
        "_deadline",
        "_loop",
        "is_late",
        "task",
        "was_late",
    )

    def __init__(self) -> None:
        loop = get_running_loop()
        clock = _clock_of(loop)
        clock.waits.add(self)
        self._clock = clock
        self._loop = loop
        self.task: asyncio.Task[Any] | None = None
        self._deadline = math.inf
        self._cancelling = 0
        self.is_late: bool = False
        self.was_late: bool = False

    def call(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """
        Call what waits inside SQLAlchemy's greenlet, for at most ``seconds``; 0 is for ever.

        Raises:
            LateError: The time was over first.
        """
        # Who knows the loop need not ask for it, which on Python 3.11 asks the kernel.
        task = current_task(self._loop) if seconds else None
        if task is None:
            return call(*arguments)
        self.task = task
        self._cancelling = task.cancelling()
        self.is_late = False
        deadline = self._deadline = monotonic() + seconds
        if deadline < self._clock.next:
            self._clock.come_back(deadline)
        try:
            return call(*arguments)
        except asyncio.CancelledError as error:
            if not self.end_late():
                raise
            self.was_late = True
            raise _late(seconds) from error
        finally:
            if self.is_late:
                self.end_late()  # what was called has an answer of its own to the cancellation
            self.task = None

    def end_late(self) -> bool:
        """
        End the wait behind an error, and return whether it is the deadline that was the reason.

        The cancellation is taken back then, unless somebody else has cancelled the task as well.
        """
        task, self.task = self.task, None
        if task is None or not self.is_late:
            return False
        self.is_late = False
        return task.uncancel() <= self._cancelling

    def check(self, now: float) -> float:
        """Cancel who has waited for too long; return when that could be, and infinity for never."""
        task = self.task
        if task is None or self.is_late:
            return math.inf
        if self._deadline > now:
            return self._deadline
        self.is_late = True
        task.cancel()
        return math.inf


class Alarm:
    """
    Calls something once, in ``seconds``, unless it is taken back.

    Args:
        loop: The running one.
        seconds: How long.
        ring: What is called.
    """

    __slots__ = ("_clock", "_deadline", "_ring")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, ring: Callable[[], None]
    ) -> None:
        self._ring = ring
        self._clock = clock = _clock_of(loop)
        deadline = self._deadline = monotonic() + seconds
        clock.alarms.add(self)
        if deadline < clock.next:
            clock.come_back(deadline)

    def take_back(self) -> None:
        """Ring no more; does nothing once it has rung."""
        self._clock.alarms.discard(self)

    def check(self, now: float) -> float:
        """Ring where it is time; return when it could be, and infinity for never."""
        if self._deadline > now:
            return self._deadline
        self.take_back()
        self._ring()
        return math.inf


class _Clock:
    """The timer of one loop, for all waits and alarms in it."""

    def __init__(self) -> None:
        self.waits: WeakSet[Wait] = WeakSet()
        self.alarms: set[Alarm] = set()
        self.next: float = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def come_back(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.next = at
        self._timer = get_running_loop().call_later(max(at - monotonic(), 0.0), self._check)

    def _check(self) -> None:
        self._timer = None
        self.next = math.inf
        now = monotonic()
        noted: tuple[Wait | Alarm, ...] = (*self.waits, *self.alarms)
        first = min((each.check(now) for each in noted), default=math.inf)
        if first < math.inf:
            self.come_back(first)


# The loops of a forked child are others.
_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock] = WeakKeyDictionary()


def _clock_of(loop: asyncio.AbstractEventLoop) -> _Clock:
    clock = _clocks.get(loop)
    if clock is None:
        clock = _clocks[loop] = _Clock()
    return clock


def within(seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
    """
    Call what waits once, without a connection yet, as :meth:`Wait.call` does.

    Raises:
        LateError: The time was over first.
    """
    return Wait().call(seconds, call, *arguments)


@asynccontextmanager
async def awaiting(seconds: float) -> AsyncIterator[None]:
    """
    Limit what the block waits for, outside of SQLAlchemy's greenlet; 0 is for ever.

    Raises:
        LateError: The time was over first.
    """
    limit = asyncio.timeout(seconds or None)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise _late(seconds) from error
        raise


def _late(seconds: float) -> LateError:
    return LateError(f"no answer from the server within {seconds:g} s")
