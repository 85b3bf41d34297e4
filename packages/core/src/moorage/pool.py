"""
The pool: for each event loop of each process its own connections, first come, first served.

A connection belongs to the loop it was opened in, and to the process that opened it; SQLAlchemy's
own pool hands it to anybody. Here every loop has a place of its own, closed with the loop, and a
forked child begins with none. Capacity is counted per loop.

There is no public interface for classes of pools. What is overridden is what SQLAlchemy's own
classes override, and nothing else is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy import util
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util.concurrency import in_greenlet

from moorage.errors import DatabaseDisposedError, PoolExhaustedError, blend
from moorage.settings import DatabaseSettings

__all__ = ["LoopPool"]

_PLACE = "moorage_place"
_SHOWN_HOLDERS = 5
_FIRST_PAUSE_SECONDS = 0.005


class LoopPool(Pool):
    """
    A pool for engines that serve several loops, threads and forked processes.

    Up to ``pool_size`` connections are kept open per loop. Beyond these, ``max_overflow`` more are
    opened when they are needed, kept while they are used, and closed when they were idle for
    ``surplus_seconds``. Whoever comes when all are in use waits in a queue.

    Args:
        creator: Opens a connection; given by the engine.
        pool_size: Connections that are kept.
        max_overflow: Connections beyond these.
        timeout: Longest wait for one, in seconds.
        surplus_seconds: Idle time after which one beyond ``pool_size`` is closed.
        pool_settings: Whose variables an error about exhaustion names.
        **kwargs: Arguments of SQLAlchemy's ``Pool``.
    """

    _is_asyncio = True

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        surplus_seconds: float = 30.0,
        pool_settings: DatabaseSettings | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(creator, **kwargs)
        self._sizes = (pool_size, max_overflow)
        self._timeout = timeout
        self._surplus_seconds = surplus_seconds
        self._settings = pool_settings
        self._places: dict[int, _Place] = {}  # by id of the loop, which a later one may have
        self._left_to_the_parent: list[_Place] = []
        self._lock = threading.Lock()
        self._first = _FirstConnection()

    def size(self) -> int:
        """Return how many connections a loop keeps open."""
        return self._sizes[0]

    def capacity(self) -> int:
        """Return how many connections a loop may have."""
        return sum(self._sizes)

    def checkedin(self) -> int:
        """Return how many open connections wait for work, in all loops of this process."""
        return sum(len(place.idle) for place in self._own_places())

    def checkedout(self) -> int:
        """Return how many connections are handed out, in all loops of this process."""
        return sum(len(place.holders) for place in self._own_places())

    def overflow(self) -> int:
        """Return how many connections more than :meth:`size` there are in this process."""
        return self.checkedin() + self.checkedout() - self.size()

    def waiting(self) -> int:
        """Return how many wait for a connection, in all loops of this process."""
        return sum(len(place.waiters) for place in self._own_places())

    def status(self) -> str:
        """Describe the pool in a line, for logs."""
        return (
            f"{self.checkedout()} in use, {self.checkedin()} idle, {self.waiting()} waiting,"
            f" {self.capacity()} at most per event loop"
        )

    def recreate(self) -> LoopPool:
        """Return an empty pool with the same arguments, as an engine needs after ``dispose``."""
        pool = type(self)(
            self._creator,
            pool_size=self._sizes[0],
            max_overflow=self._sizes[1],
            timeout=self._timeout,
            surplus_seconds=self._surplus_seconds,
            pool_settings=self._settings,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        pool._first = self._first
        return pool

    def dispose(self) -> None:
        """
        Close what is idle, refuse who waits, and let what is in use be closed when it is returned.

        Other loops close their own connections as soon as they can.
        """
        here = _running_loop()
        for place in self._own_places():
            if place.loop is here and in_greenlet():
                util.await_only(place.close())
            elif not place.loop.is_closed():
                with contextlib.suppress(RuntimeError):  # it was closed a moment ago
                    asyncio.run_coroutine_threadsafe(place.close(), place.loop)

    def _do_get(self) -> ConnectionPoolEntry:
        place = self._place()
        record = place.take()
        if record is None and not place.reserve():
            record = util.await_only(place.wait(self._timeout))
        if record is None:
            try:
                record = self._open(place.loop)
            except BaseException:
                place.release()
                raise
            info = record.record_info
            assert info is not None
            info[_PLACE] = place
        place.holders[record] = (time.monotonic(), asyncio.current_task())
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        place: _Place = record.record_info[_PLACE]  # type: ignore[index]  # set by _do_get
        if place.is_here():
            place.put(record)
            return
        # The collector found a session that nobody closed, in whatever thread it ran.
        with contextlib.suppress(RuntimeError):  # the loop is closed or gone, and its place too
            place.loop.call_soon_threadsafe(place.put, record)

    def _open(self, loop: asyncio.AbstractEventLoop) -> ConnectionPoolEntry:
        first = self._first
        if first.is_there:
            return self._create_connection()
        end = time.monotonic() + self._timeout
        while not first.enter(loop) and time.monotonic() < end:
            util.await_only(asyncio.sleep(_FIRST_PAUSE_SECONDS))
        try:
            record = self._create_connection()
            first.is_there = True
        finally:
            first.leave()
        return record

    def _own_places(self) -> list[_Place]:
        with self._lock:
            return [place for place in self._places.values() if place.is_own()]

    def _place(self) -> _Place:
        loop = asyncio.get_running_loop()
        place = self._places.get(id(loop))
        if place is not None and place.belongs_to(loop):
            return place
        with self._lock:
            for key, other in list(self._places.items()):
                if other.pid != os.getpid():
                    # Finalizers of its connections would speak to the parent's server.
                    self._left_to_the_parent.append(self._places.pop(key))
                elif not other.is_own():
                    del self._places[key]
            place = self._places[id(loop)] = _Place(self, loop)
        util.await_only(place.begin())
        return place


class _FirstConnection:
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
        with self._lock:
            if not self.is_there and self._loop not in {None, loop}:
                return False
            self._loop = loop
            self._busy += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1
            if self._busy <= 0:
                self._loop = None


class _Place:
    """The connections of one pool in one loop; used by that loop alone."""

    def __init__(self, pool: LoopPool, loop: asyncio.AbstractEventLoop) -> None:
        self._size = pool._sizes[0]
        self._capacity = pool.capacity()
        self._surplus_seconds = pool._surplus_seconds
        self._settings = pool._settings
        self._loop = weakref.ref(loop)
        self.pid = os.getpid()
        # Since when, and which task.
        self.holders: dict[ConnectionPoolEntry, tuple[float, asyncio.Task[Any] | None]] = {}
        # Oldest first, each with the time of its return.
        self.idle: deque[tuple[float, ConnectionPoolEntry]] = deque()
        self.waiters: deque[asyncio.Future[ConnectionPoolEntry | None]] = deque()
        self._open = 0  # in use, idle, or being opened
        self._closed = False
        self._guardian: AsyncGenerator[None, None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop of this place is gone")
        return loop

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether this is the place of a loop of this process."""
        return self._loop() is loop and self.pid == os.getpid()

    def is_own(self) -> bool:
        """Return whether the place is of this process, and its loop still there."""
        return self.pid == os.getpid() and self._loop() is not None

    def is_here(self) -> bool:
        """Return whether the loop of this place is running in this thread."""
        return self._loop() is _running_loop()

    async def begin(self) -> None:
        """Let the loop close the place before it ends, as it does with generators."""
        self._guardian = self._until_the_end()
        await anext(self._guardian)

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close_idle()

    def take(self) -> ConnectionPoolEntry | None:
        """Return the connection that was used last, unless others have waited longer."""
        return None if self.waiters or not self.idle else self.idle.pop()[1]

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
        self.holders.pop(record, None)
        if record.dbapi_connection is None:
            self.release()
        elif self._closed:
            self._open -= 1
            if in_greenlet():
                record.close()
            else:
                self._close_soon(record)
        elif not self.waiters or not self._hand_over(record):
            self.idle.append((time.monotonic(), record))
            if self._open > self._size:
                self._trim()

    async def wait(self, seconds: float) -> ConnectionPoolEntry | None:
        """Return a connection, or ``None`` for the room to open one, when it is this one's turn."""
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
        if self._timer is not None and self._timer.when() > self.loop.time():
            return
        self._timer = None
        while self.idle and self._open > self._size:
            rest = self.idle[0][0] + self._surplus_seconds - time.monotonic()
            if rest > 0:
                self._timer = self.loop.call_later(rest, self._trim)
                return
            self._open -= 1
            self._close_soon(self.idle.popleft()[1])

    async def close(self) -> None:
        """Close what is idle, refuse who waits, and end the place."""
        self._closed = True
        for turn in self.waiters:
            if not turn.done():
                turn.set_exception(
                    DatabaseDisposedError(
                        "the database was disposed while this one waited for a connection",
                        hint="dispose it where the application ends, after its work",
                    )
                )
        self.waiters.clear()
        if self._guardian is not None:
            await self._guardian.aclose()

    async def _close_idle(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self.idle:
            self._open -= 1
            await util.greenlet_spawn(self.idle.popleft()[1].close)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close_soon(self, record: ConnectionPoolEntry) -> None:
        closing = self.loop.create_task(_close(record))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _exhausted(self, seconds: float) -> Exception:
        now = time.monotonic()
        holders = sorted(self.holders.values(), key=lambda holder: holder[0])
        shown = [
            f"for {now - since:.1f} s by {task.get_name() if task else 'no task'}"
            for since, task in holders[:_SHOWN_HOLDERS]
        ]
        more = len(holders) - len(shown)
        settings = self._settings or DatabaseSettings.model_construct()
        names = (settings.variable("pool_size"), settings.variable("max_overflow"))
        error = PoolExhaustedError(
            f"all {self._capacity} connections of the pool ({names[0]} and {names[1]}) were in use"
            f" for {seconds:g} s ({settings.variable('pool_timeout_seconds')}); held"
            f" {', '.join(shown)}{f' and {more} more' if more > 0 else ''}",
            hint="end sessions sooner, do nothing slow inside of them, or allow more connections",
        )
        return blend(error, sa_exc.TimeoutError(str(error)))


async def _close(record: ConnectionPoolEntry) -> None:
    await util.greenlet_spawn(record.close)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
