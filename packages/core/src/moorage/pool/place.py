"""
The connections of one pool in one event loop: who has them, who waits, and when each has to go.

Nothing here knows SQLAlchemy's pool; a place is used by its loop alone, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from sqlalchemy import exc as sa_exc
from sqlalchemy import util
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util.concurrency import in_greenlet

from moorage.errors import DatabaseDisposedError, PoolExhaustedError, blend
from moorage.pool.holders import Holder, told, warn_of_long
from moorage.pool.transport import keep
from moorage.settings import DatabaseSettings
from moorage.shield import end_shielded

__all__ = [
    "CLOSED_BY_FORCE",
    "CLOSE_SECONDS",
    "PLACE",
    "Drain",
    "Figures",
    "Place",
    "PoolConnector",
    "PoolObserver",
    "Terms",
    "refusal",
]

_Task = asyncio.Task[Any]

# Keys in `ConnectionPoolEntry.record_info`.
PLACE = "moorage_place"
_LIFE_SECONDS = "moorage_life_seconds"
CLOSED_BY_FORCE = "moorage_closed_by_force"
"""Key in the ``info`` of a connection that the pool closed while somebody had it."""

# How long a connection may take to close before it is told to stop, and then to obey.
CLOSE_SECONDS = 3.0
_GRACE_SECONDS = 1.0
# Connections that were opened together grow old apart.
_SHORTEST_LIFE = 0.75


class PoolConnector(Protocol):
    """What a pool has to know of the connector whose connections it keeps."""

    @property
    def settings(self) -> DatabaseSettings:
        """Return the settings, whose variables the pool's messages name."""

    def abandon(self, driver_connection: Any) -> None:
        """Let a connection go without a word to the server."""


@dataclass(frozen=True)
class Terms:
    """
    What a pool was made with.

    Attributes:
        size: Connections that are kept open in each loop.
        overflow: Connections beyond these.
        wait_seconds: Longest wait for one.
        surplus_seconds: Idle time after which one beyond ``size`` is closed.
        hold_warning_seconds: Time after which a warning tells who holds one for so long; 0: never.
        life_seconds: Longest life of one; -1: for ever.
        connector: Whose connections these are.
    """

    size: int
    overflow: int
    wait_seconds: float
    surplus_seconds: float
    hold_warning_seconds: float
    life_seconds: float
    connector: PoolConnector | None

    @property
    def capacity(self) -> int:
        """Return how many connections a loop may have."""
        return self.size + self.overflow

    def variable(self, field: str) -> str:
        """Return the variable of a setting, for messages."""
        connector = self.connector
        settings = connector.settings if connector else DatabaseSettings.model_construct()
        return settings.variable(field)

    def abandon(self, driver_connection: Any) -> None:
        """Let a connection of the driver go without a word to the server."""
        keep(driver_connection)
        if self.connector is not None:
            with contextlib.suppress(Exception):  # it must not stop the others
                self.connector.abandon(driver_connection)


class PoolObserver(Protocol):
    """Who is told how long things took, in seconds."""

    def created(self, seconds: float) -> None:
        """Take note of the time that opening a connection took."""

    def waited(self, seconds: float) -> None:
        """Take note of the time between asking for a connection and having one."""

    def used(self, seconds: float) -> None:
        """Take note of the time between taking a connection and giving it back."""


class Figures:
    """What a pool counts, and who is told more; outlives ``recreate``."""

    def __init__(self, observers: list[PoolObserver] | None = None) -> None:
        self.timeouts = 0
        self.observers: list[PoolObserver] = [] if observers is None else observers


class Drain:
    """Whether a pool refuses, and who waits for what is still in use; outlives ``recreate``."""

    def __init__(self) -> None:
        self.refusing: bool = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def wait(self, busy: Callable[[], int], seconds: float) -> int:
        self.refusing = True
        returned = asyncio.Event()
        self._waiter = (asyncio.get_running_loop(), returned)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while busy():
                    await returned.wait()
                    returned.clear()
        return busy()

    def note_return(self) -> None:
        if self._waiter is not None:
            loop, returned = self._waiter
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(returned.set)


class Place:
    """The connections of one pool in one loop; used by that loop alone."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, terms: Terms, drain: Drain, figures: Figures
    ) -> None:
        self._terms = terms
        self._drain = drain
        self._figures = figures
        self._observers = figures.observers
        self.warns_holders: bool = terms.hold_warning_seconds > 0
        self._size = terms.size
        self._capacity = terms.capacity
        self.loop_or_none: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self.debug: bool = loop.get_debug()
        # What `Holder` is made of; a plain tuple takes a fifth of the time.
        self.holders: dict[ConnectionPoolEntry, tuple[float, _Task | None, str | None, str]] = {}
        self.tasks: set[_Task | None] = set()  # without None
        # Oldest first, each with the time of its return.
        self.idle: deque[tuple[float, ConnectionPoolEntry]] = deque()
        self.waiters: deque[asyncio.Future[ConnectionPoolEntry | None]] = deque()
        self.next_expiry: float = math.inf
        self.too_old: set[ConnectionPoolEntry] = set()
        self.hold_timer: asyncio.TimerHandle | None = None
        self._warned: set[ConnectionPoolEntry] = set()
        self._open = 0  # in use, idle, or being opened
        self._closed = False
        self._guardian: AsyncGenerator[None, None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self.loop_or_none()
        if loop is None:
            raise RuntimeError("the event loop of this place is gone")
        return loop

    async def begin(self) -> None:
        """Let the loop close the place before it ends, as it does with generators."""
        self._guardian = self._until_the_end()
        await anext(self._guardian)

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close_idle()

    def reserve(self) -> bool:
        """Reserve the room for one more connection, unless there is none or others wait for it."""
        if self.waiters or self._open >= self._capacity:
            return False
        self._open += 1
        return True

    def release(self) -> None:
        """Give room back, to whoever waits first."""
        if not self._hand_over(None):
            self._open -= 1

    def put(self, record: ConnectionPoolEntry) -> None:
        """Take a connection back, and give it to whoever waits first."""
        holder = self.holders.pop(record, None)
        if holder is not None:
            self.tasks.discard(holder[1])
            if self._observers:
                for observer in self._observers:
                    observer.used(monotonic() - holder[0])
        if record.dbapi_connection is None:
            self.release()
        elif self._closed:
            self._open -= 1
            if in_greenlet():
                record.close()
            else:
                self._close_soon(record)
        elif not self.waiters or not self._hand_over(record):
            self.idle.append((monotonic(), record))
            if self._open > self._size:
                self._trim()
        if self._drain.refusing:
            self._drain.note_return()

    async def wait(self) -> ConnectionPoolEntry | None:
        """Return a connection, or ``None`` for the room to open one, when it is this one's turn."""
        seconds = self._terms.wait_seconds
        turn: asyncio.Future[ConnectionPoolEntry | None] = self.loop.create_future()
        self.waiters.append(turn)
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It came in the very moment of the cancellation, and goes to the next one.
                given = turn.result()
                self.release() if given is None else self.put(given)
            else:
                with contextlib.suppress(ValueError):
                    self.waiters.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._exhausted(seconds) from None
            raise

    def _hand_over(self, given: ConnectionPoolEntry | None) -> bool:
        while self.waiters:
            turn = self.waiters.popleft()
            if not turn.done():
                turn.set_result(given)
                return True
        return False

    def _trim(self) -> None:
        """Close what is too much and was idle for long, and come back when more will be."""
        # With the timer of an earlier call it will come back anyway. Loops differ in what a timer
        # tells of itself, and in whether it may be early.
        while self._timer is None and self.idle and self._open > self._size:
            rest = self.idle[0][0] + self._terms.surplus_seconds - monotonic()
            if rest > 0:
                self._timer = self.loop.call_later(rest, self._come_back)
                return
            self._open -= 1
            self._close_soon(self.idle.popleft()[1])

    def _come_back(self) -> None:
        self._timer = None
        self._trim()

    def watch_over(self, record: ConnectionPoolEntry) -> None:
        """Remember whose a new connection is, and how old it may get."""
        info = record.record_info
        assert info is not None
        info[PLACE] = self
        if (longest := self._terms.life_seconds) > 0:
            life = longest * random.uniform(_SHORTEST_LIFE, 1.0)
            info[_LIFE_SECONDS] = life
            self.next_expiry = min(self.next_expiry, monotonic() + life)

    def age(self, now: float) -> None:
        """Let those that are too old be replaced when they are used next."""
        self.next_expiry = math.inf
        self.too_old = set()
        for record in (*(record for _, record in self.idle), *self.holders):
            info = record.record_info
            assert info is not None
            life: float = info.get(_LIFE_SECONDS, math.inf)
            rest = life - (time.time() - record.last_connect_time)  # type: ignore[attr-defined]
            if rest <= 0:
                self.too_old.add(record)
            else:
                self.next_expiry = min(self.next_expiry, now + rest)

    def watch_holders(self) -> None:
        """Warn, once, of each connection that is held for longer than the terms say."""
        limit = self._terms.hold_warning_seconds
        self.hold_timer = None
        self._warned.intersection_update(self.holders)
        now, rest = monotonic(), math.inf
        for record, holder in self.holders.items():
            if record in self._warned:
                continue
            if now - holder[0] >= limit:
                self._warned.add(record)
                warn_of_long(Holder(*holder), self._terms.variable("pool_hold_warning_seconds"))
            else:
                rest = min(rest, holder[0] + limit - now)
        if rest < math.inf and not self._closed:
            self.hold_timer = self.loop.call_later(rest, self.watch_holders)

    def busy(self, me: _Task | None) -> int:
        """Return how many are in use or waited for by others than ``me``."""
        held = sum(holder[1] is not me for holder in list(self.holders.values()))
        return held + len(self.waiters)

    def cancel_holders(self, me: _Task | None) -> None:
        """Cancel the tasks that hold a connection, all but ``me``."""
        for _, task, *_ in list(self.holders.values()):
            if task is not None and task is not me and not task.done():
                task.cancel("the database was disposed while this task held a connection")

    async def close(self, keep: _Task | None = None) -> None:
        """
        Close what is idle, refuse who waits, and end the place.

        Where the pool was drained, what others than ``keep`` still hold is closed as well.
        """
        self._closed = True
        for turn in self.waiters:
            if not turn.done():
                turn.set_exception(
                    refusal("the database was disposed while this one waited for a connection")
                )
        self.waiters.clear()
        if self._drain.refusing:
            for record, holder in list(self.holders.items()):
                if holder[1] is not keep or keep is None:
                    self._close_soon(record, by_force=True)
        if self._guardian is not None:
            await self._guardian.aclose()

    def let_go(self) -> None:
        """Let everything go without a word to the server: the loop of this place will not run."""
        self._closed = True
        for record in (*(record for _, record in self.idle), *self.holders):
            if (driver_connection := record.driver_connection) is not None:
                self._terms.abandon(driver_connection)
            keep(record)
        self.idle.clear()
        self.holders.clear()
        self.tasks.clear()
        self.waiters.clear()

    async def _close_idle(self) -> None:
        self._closed = True
        for timer in (self._timer, self.hold_timer):
            if timer is not None:
                timer.cancel()
        self.hold_timer = None
        while self.idle:
            self._open -= 1
            self._close_soon(self.idle.popleft()[1])
        if self._closing:
            await asyncio.wait(self._closing)  # each has a deadline of its own

    def _close_soon(self, record: ConnectionPoolEntry, *, by_force: bool = False) -> None:
        closing = self.loop.create_task(self._close(record, by_force))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, record: ConnectionPoolEntry, by_force: bool) -> None:
        close = record.close
        if by_force:
            close = record.invalidate
            record.info[CLOSED_BY_FORCE] = True
        driver_connection = record.driver_connection
        closing = asyncio.create_task(util.greenlet_spawn(close))
        await end_shielded(closing, CLOSE_SECONDS, _GRACE_SECONDS)
        if not closing.done() and driver_connection is not None:
            self._terms.abandon(driver_connection)

    def _exhausted(self, seconds: float) -> Exception:
        self._figures.timeouts += 1
        names = (self._terms.variable("pool_size"), self._terms.variable("max_overflow"))
        error = PoolExhaustedError(
            f"all {self._capacity} connections of the pool ({names[0]} and {names[1]}) were in use"
            f" for {seconds:g} s ({self._terms.variable('pool_timeout_seconds')}); held"
            f" {told(Holder(*holder) for holder in self.holders.values())}",
            hint="end sessions sooner, do nothing slow inside of them, or allow more connections",
        )
        return blend(error, sa_exc.TimeoutError(str(error)))


def refusal(sentence: str) -> DatabaseDisposedError:
    """Return the error for whoever asks for a connection too late."""
    return DatabaseDisposedError(
        sentence, hint="dispose it where the application ends, after its work"
    )
