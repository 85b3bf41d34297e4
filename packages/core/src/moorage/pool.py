"""
The pool: for each event loop of each process its own connections, first come, first served.

A connection belongs to the loop it was opened in, and to the process that opened it; SQLAlchemy's
own pool hands it to anybody. Here every loop has a place of its own, closed with the loop, and a
forked child begins with none. Capacity is counted per loop.

There is no public interface for classes of pools. What is overridden is what SQLAlchemy's own
classes override, nothing else is touched, and this module alone uses names of SQLAlchemy that
begin with an underscore; a test pins them on both of its lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from typing import Any, Protocol

from sqlalchemy import exc as sa_exc
from sqlalchemy import util
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
from sqlalchemy.util.concurrency import in_greenlet

from moorage.connecting import FirstConnection
from moorage.errors import DatabaseDisposedError, PoolExhaustedError, blend
from moorage.holders import (
    Holder,
    stack_of_caller,
    told,
    warn_of_long,
    warn_of_second,
    work_name,
)
from moorage.settings import DatabaseSettings
from moorage.shield import end_shielded

__all__ = ["LoopPool", "PoolConnector", "pool_of_marked"]

_Task = asyncio.Task[Any]

# Keys in `ConnectionPoolEntry.record_info`.
_PLACE = "moorage_place"
_LIFE_SECONDS = "moorage_life_seconds"
_FIRST_PAUSE_SECONDS = 0.005
# How long a connection may take to close before it is told to stop, and then to obey.
_CLOSE_SECONDS = 3.0
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
        hold_warning_seconds: Time after which a warning tells who holds one for so long; 0: never.
        connector: Whose connections these are.
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
        hold_warning_seconds: float = 0.0,
        connector: PoolConnector | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(creator, **kwargs)
        self._sizes = (pool_size, max_overflow)
        self._timeout = timeout
        self._surplus_seconds = surplus_seconds
        self._hold_warning_seconds = hold_warning_seconds
        self._connector = connector
        self._places: dict[int, _Place] = {}  # by id of the loop, which a later one may have
        self._lock = threading.Lock()
        self._first = FirstConnection()
        self._drain = _Drain()
        self._timeouts = 0
        self.translate: Callable[[Exception], Exception | None] = _as_it_is
        """What becomes of an error of opening a connection; set by the engine."""
        _pools.add(self)

    def size(self) -> int:
        """Return how many connections a loop keeps open."""
        return self._sizes[0]

    def capacity(self) -> int:
        """Return how many connections a loop may have."""
        return sum(self._sizes)

    def checkedin(self) -> int:
        """Return how many open connections wait for work, in all loops of this process."""
        return sum(len(place.idle) for place in self._living_places())

    def checkedout(self) -> int:
        """Return how many connections are handed out, in all loops of this process."""
        return sum(len(place.holders) for place in self._living_places())

    def overflow(self) -> int:
        """Return how many connections more than :meth:`size` there are in this process."""
        return self.checkedin() + self.checkedout() - self.size()

    def waiting(self) -> int:
        """Return how many wait for a connection, in all loops of this process."""
        return sum(len(place.waiters) for place in self._living_places())

    def timeouts(self) -> int:
        """Return how often somebody waited for a connection in vain."""
        return self._timeouts

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
            hold_warning_seconds=self._hold_warning_seconds,
            connector=self._connector,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        pool._first = self._first
        pool._drain = self._drain
        pool.translate = self.translate
        return pool

    def connect(self) -> PoolProxiedConnection:
        """
        Return a connection, as every pool does.

        What SQLAlchemy itself does with a new one fails here, and in the words of the driver.
        """
        try:
            return Pool.connect(self)
        except Exception as error:
            translated = self.translate(error)
            if translated is None:
                raise
            raise translated from error

    async def drain(self, seconds: float) -> int:
        """
        Hand nothing out any more, and wait until everything has come back.

        Who waits already is still served. What the calling task itself holds is not waited for.

        Returns:
            How many connections are in use when the time is over.
        """
        return await self._drain.wait(self._busy, seconds)

    def cancel_holders(self) -> None:
        """Cancel the tasks that hold a connection, but not the one that asks for it."""
        me = asyncio.current_task()
        for place in self._living_places():
            with contextlib.suppress(RuntimeError):  # the loop was closed a moment ago
                place.loop.call_soon_threadsafe(place.cancel_holders, me)

    def dispose(self) -> None:
        """
        Close what is idle, refuse who waits, and let what is in use be closed when it is returned.

        Once the pool has been drained, what is in use then is closed as well, unless the calling
        task itself holds it. Other loops close their own connections; those of a loop that does
        not run any more are let go.
        """
        here = _running_loop()
        keep = asyncio.current_task() if here is not None else None
        elsewhere: list[Future[None]] = []
        for place in self._living_places():
            if place.loop is here and in_greenlet():
                util.await_only(place.close(keep))
            elif place.loop.is_running():
                with contextlib.suppress(RuntimeError):  # it was closed a moment ago
                    closing = asyncio.run_coroutine_threadsafe(place.close(keep), place.loop)
                    if place.loop is not here:
                        elsewhere.append(closing)
            else:
                place.let_go()
        if elsewhere and in_greenlet():
            waiting = [asyncio.wrap_future(closing) for closing in elsewhere]
            util.await_only(asyncio.wait(waiting, timeout=2 * _CLOSE_SECONDS))

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of the connections that the parent goes on using."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        places, self._places = self._places, {}
        for place in places.values():
            place.let_go()
            _keep(place)  # its generator would speak to the parent's loop

    def abandon(self, record: ConnectionPoolEntry) -> None:
        """Let the connection of a record go without a word to the server."""
        if (driver_connection := record.driver_connection) is not None:
            self.abandon_driver_connection(driver_connection)
        _keep(record)

    def abandon_driver_connection(self, driver_connection: Any) -> None:
        """Let a connection of the driver go without a word to the server."""
        _keep(driver_connection)
        if self._connector is not None:
            with contextlib.suppress(Exception):  # it must not stop the others
                self._connector.abandon(driver_connection)

    # The two below are on the way of every session; calls are what they save on.

    def _do_get(self) -> ConnectionPoolEntry:
        if self._drain.refusing:
            raise _refusal("a connection was asked for after its database had been disposed")
        loop = asyncio.get_running_loop()
        place = self._places.get(id(loop))
        if place is None or place.loop_or_none() is not loop:
            place = self._new_place(loop)
        task = asyncio.current_task(loop)
        tasks = place.tasks
        if task in tasks:
            warn_of_second(task)  # type: ignore[arg-type]  # None is never in there
        idle = place.idle
        # The one that was used last, unless others have waited longer.
        record = idle.pop()[1] if idle and not place.waiters else self._wait_or_open(place)
        now = time.monotonic()
        stack = stack_of_caller() if place.debug else ""
        place.holders[record] = (now, task, work_name.get(), stack)
        if now >= place.next_expiry:
            place.age(now)
        if task is not None:
            tasks.add(task)
        if place.hold_timer is None and self._hold_warning_seconds:
            place.watch_holders(self._hold_warning_seconds)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        place: _Place = record.record_info[_PLACE]  # type: ignore[index]  # set by _wait_or_open
        try:
            is_here = asyncio.get_running_loop() is place.loop_or_none()
        except RuntimeError:
            is_here = False
        if is_here:
            place.put(record)
            return
        # The collector found a session that nobody closed, in whatever thread it ran.
        with contextlib.suppress(RuntimeError):  # the loop is closed or gone, and its place too
            place.loop.call_soon_threadsafe(place.put, record)

    def _wait_or_open(self, place: _Place) -> ConnectionPoolEntry:
        if not place.reserve():
            record: ConnectionPoolEntry | None = util.await_only(place.wait(self._timeout))
            if record is not None:
                return record
        try:
            record = self._open(place.loop)
        except BaseException:
            place.release()
            raise
        place.watch_over(record)
        return record

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

    def _busy(self) -> int:
        me = asyncio.current_task()
        return sum(place.busy(me) for place in self._living_places())

    def _living_places(self) -> list[_Place]:
        """Return the places of loops that can still run, and let go of all others."""
        with self._lock:
            for key, place in list(self._places.items()):
                loop = place.loop_or_none()
                if loop is None or loop.is_closed():
                    # Killed without a chance to close what it had.
                    self._places.pop(key).let_go()
            return list(self._places.values())

    def _new_place(self, loop: asyncio.AbstractEventLoop) -> _Place:
        self._living_places()
        with self._lock:
            place = self._places[id(loop)] = _Place(self, loop)
        util.await_only(place.begin())
        return place


def pool_of_marked(pool: Pool, mark: str) -> Pool:
    """Return an empty pool like ``pool``, whose entries have ``mark`` before they connect."""
    other = pool.recreate()
    open_connection = other._invoke_creator

    def open_marked(record: ConnectionPoolEntry) -> Any:
        record.record_info[mark] = True  # type: ignore[index]  # entries of a pool have one
        return open_connection(record)

    other._creator = open_marked  # type: ignore[assignment]  # it takes the record
    return other


class _Drain:
    """Whether a pool refuses, and who waits for what is still in use; outlives ``recreate``."""

    def __init__(self) -> None:
        self.refusing = False
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


class _Place:
    """The connections of one pool in one loop; used by that loop alone."""

    def __init__(self, pool: LoopPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._size = pool.size()
        self._capacity = pool.capacity()
        self._surplus_seconds = pool._surplus_seconds
        self._drain = pool._drain
        self.loop_or_none = weakref.ref(loop)
        self.debug = loop.get_debug()
        # What `Holder` is made of; a plain tuple takes a fifth of the time.
        self.holders: dict[ConnectionPoolEntry, tuple[float, _Task | None, str | None, str]] = {}
        self.tasks: set[_Task | None] = set()  # without None
        # Oldest first, each with the time of its return.
        self.idle: deque[tuple[float, ConnectionPoolEntry]] = deque()
        self.waiters: deque[asyncio.Future[ConnectionPoolEntry | None]] = deque()
        self.next_expiry = math.inf
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
        if self._drain.refusing:
            self._drain.note_return()

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
        # With the timer of an earlier call it will come back anyway. Loops differ in what a timer
        # tells of itself, and in whether it may be early.
        while self._timer is None and self.idle and self._open > self._size:
            rest = self.idle[0][0] + self._surplus_seconds - time.monotonic()
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
        info[_PLACE] = self
        if self._pool._recycle > 0:
            life = self._pool._recycle * random.uniform(_SHORTEST_LIFE, 1.0)
            info[_LIFE_SECONDS] = life
            self.next_expiry = min(self.next_expiry, time.monotonic() + life)

    def age(self, now: float) -> None:
        """Let those that are too old be replaced when they are used next."""
        self.next_expiry = math.inf
        for record in (*(record for _, record in self.idle), *self.holders):
            info = record.record_info
            assert info is not None
            life: float = info.get(_LIFE_SECONDS, math.inf)
            rest = life - (time.time() - record.last_connect_time)  # type: ignore[attr-defined]
            if rest <= 0:
                record.invalidate(soft=True)
                rest = life
            self.next_expiry = min(self.next_expiry, now + rest)

    def watch_holders(self, limit: float) -> None:
        """Warn, once, of each connection that is held for longer than ``limit`` seconds."""
        self.hold_timer = None
        self._warned.intersection_update(self.holders)
        now, rest = time.monotonic(), math.inf
        for record, holder in self.holders.items():
            if record in self._warned:
                continue
            if now - holder[0] >= limit:
                self._warned.add(record)
                warn_of_long(Holder(*holder), self._variable("pool_hold_warning_seconds"))
            else:
                rest = min(rest, holder[0] + limit - now)
        if rest < math.inf and not self._closed:
            self.hold_timer = self.loop.call_later(rest, self.watch_holders, limit)

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
                    _refusal("the database was disposed while this one waited for a connection")
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
            self._pool.abandon(record)
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
        close = record.invalidate if by_force else record.close
        driver_connection = record.driver_connection
        closing = asyncio.create_task(util.greenlet_spawn(close))
        await end_shielded(closing, _CLOSE_SECONDS, _GRACE_SECONDS)
        if not closing.done() and driver_connection is not None:
            self._pool.abandon_driver_connection(driver_connection)

    def _variable(self, field: str) -> str:
        connector = self._pool._connector
        settings = connector.settings if connector else DatabaseSettings.model_construct()
        return settings.variable(field)

    def _exhausted(self, seconds: float) -> Exception:
        self._pool._timeouts += 1
        names = (self._variable("pool_size"), self._variable("max_overflow"))
        error = PoolExhaustedError(
            f"all {self._capacity} connections of the pool ({names[0]} and {names[1]}) were in use"
            f" for {seconds:g} s ({self._variable('pool_timeout_seconds')}); held"
            f" {told(Holder(*holder) for holder in self.holders.values())}",
            hint="end sessions sooner, do nothing slow inside of them, or allow more connections",
        )
        return blend(error, sa_exc.TimeoutError(str(error)))


def _refusal(sentence: str) -> DatabaseDisposedError:
    return DatabaseDisposedError(
        sentence, hint="dispose it where the application ends, after its work"
    )


def _as_it_is(error: Exception) -> None:
    """Leave an error as it is."""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _after_fork() -> None:
    for pool in list(_pools):
        pool.leave_to_parent()


def _keep(let_go: object) -> None:
    """
    Keep what was let go until this process ends, and from its finalizers even then.

    Those of drivers and transports complain, or would speak to the server or the parent's loop.
    """
    _let_go.append(let_go)
    with contextlib.suppress(ImportError, AttributeError):  # no reference counts here
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(let_go))


_pools: weakref.WeakSet[LoopPool] = weakref.WeakSet()
_let_go: list[object] = []
os.register_at_fork(after_in_child=_after_fork)
