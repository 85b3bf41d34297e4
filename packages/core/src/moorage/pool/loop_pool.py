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
import os
import threading
import weakref
from asyncio import current_task, get_running_loop
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any

from sqlalchemy import util
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util.concurrency import in_greenlet

from moorage.deadline import within
from moorage.pool.connecting import FirstConnection
from moorage.pool.holders import stack_of_caller, warn_of_second, work_name
from moorage.pool.place import (
    CLOSE_SECONDS,
    PLACE,
    Drain,
    Figures,
    Place,
    PoolConnector,
    PoolObserver,
    Terms,
    refusal,
)
from moorage.pool.transport import keep

__all__ = ["LoopPool", "leave_to_parent", "pool_of_marked"]

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
        self._terms = Terms(
            size=pool_size,
            overflow=max_overflow,
            wait_seconds=timeout,
            surplus_seconds=surplus_seconds,
            hold_warning_seconds=hold_warning_seconds,
            life_seconds=self._recycle,
            connector=connector,
        )
        self._places: dict[int, Place] = {}  # by id of the loop, which a later one may have
        self._latest: Place | None = None  # most often the one that is asked for
        self._lock = threading.Lock()
        self._first = FirstConnection()
        self._drain = Drain()
        self._figures = Figures()
        self._observers = self._figures.observers
        self.translate: Callable[[Exception], Exception | None] = _as_it_is
        """What becomes of an error of opening a connection; set by the engine."""
        self.death_of: Callable[[Any, float], Exception | None] | None = None
        """Why a connection that idled for so long is not used again; set by the engine."""
        _pools.add(self)

    def size(self) -> int:
        """Return how many connections a loop keeps open."""
        return self._terms.size

    def capacity(self) -> int:
        """Return how many connections a loop may have."""
        return self._terms.capacity

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

    def observe(self, observer: PoolObserver) -> None:
        """Tell ``observer`` from now on how long things take, here and in pools made from this."""
        self._observers.append(observer)

    def timeouts(self) -> int:
        """Return how often somebody waited for a connection in vain."""
        return self._figures.timeouts

    def status(self) -> str:
        """Describe the pool in a line, for logs."""
        return (
            f"{self.checkedout()} in use, {self.checkedin()} idle, {self.waiting()} waiting,"
            f" {self.capacity()} at most per event loop"
        )

    def recreate(self) -> LoopPool:
        """Return an empty pool with the same arguments, as an engine needs after ``dispose``."""
        terms = self._terms
        pool = type(self)(
            self._creator,
            pool_size=terms.size,
            max_overflow=terms.overflow,
            timeout=terms.wait_seconds,
            surplus_seconds=terms.surplus_seconds,
            hold_warning_seconds=terms.hold_warning_seconds,
            connector=terms.connector,
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
        pool._figures = self._figures
        pool._observers = self._observers
        pool.translate = self.translate
        pool.death_of = self.death_of
        return pool

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
            util.await_only(asyncio.wait(waiting, timeout=2 * CLOSE_SECONDS))

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of the connections that the parent goes on using."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        places, self._places, self._latest = self._places, {}, None
        for place in places.values():
            place.let_go()
            keep(place)  # its generator would speak to the parent's loop

    # The two below are on the way of every session; calls are what they save on.

    def _do_get(self) -> ConnectionPoolEntry:
        if self._drain.refusing:
            raise refusal("a connection was asked for after its database had been disposed")
        loop = get_running_loop()
        place = self._latest
        if place is None or place.loop_or_none() is not loop:
            place = self._latest = self._place_of(loop)
        task = current_task(loop)
        tasks = place.tasks
        if tasks and task in tasks:
            warn_of_second(task)  # type: ignore[arg-type]  # None is never in there
        asked = now = monotonic()
        if now >= place.next_expiry:
            place.age(now)
        idle = place.idle
        if idle and not place.waiters:  # else others have waited longer
            since, record = idle.pop()  # the one that was used last
            if (
                self.death_of is not None
                or place.too_old
                or self._invalidate_time > record.starttime  # type: ignore[attr-defined]
            ):
                record = self._fit(place, record, now - since)
        else:
            record = self._wait_or_open(place)
            now = monotonic()
        if self._observers:
            for observer in self._observers:
                observer.waited(monotonic() - asked)
        stack = stack_of_caller() if place.debug else ""
        place.holders[record] = (now, task, work_name.get(), stack)
        if task is not None:
            tasks.add(task)
        if place.warns_holders and place.hold_timer is None:
            place.watch_holders()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        place: Place = record.record_info[PLACE]  # type: ignore[index]  # set by _wait_or_open
        try:
            loop = get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not None and loop is place.loop_or_none():
            place.put(record)
            return
        # The collector found a session that nobody closed, in whatever thread it ran.
        with contextlib.suppress(RuntimeError):  # the loop is closed or gone, and its place too
            place.loop.call_soon_threadsafe(place.put, record)

    def _wait_or_open(self, place: Place) -> ConnectionPoolEntry:
        if not place.reserve():
            record: ConnectionPoolEntry | None = util.await_only(place.wait())
            if record is not None:
                return self._fit(place, record, 0.0)
        return self._open_in(place)

    def _fit(self, place: Place, record: ConnectionPoolEntry, idle: float) -> ConnectionPoolEntry:
        """Return a connection that idled, or another one where it is dead or has had its time."""
        try:
            is_over = record in place.too_old or self._invalidate_time > record.starttime  # type: ignore[attr-defined]
            death = None
            if not is_over and self.death_of is not None:
                death = self.death_of(record, idle)
            if not is_over and death is None:
                return record
            record.invalidate(death)
        except BaseException as error:
            record.invalidate(error)
            place.release()
            raise
        return self._open_in(place)

    def _open_in(self, place: Place) -> ConnectionPoolEntry:
        """Open a connection for which there is room."""
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
            return self._create()
        end = monotonic() + self._terms.wait_seconds
        while not first.enter(loop) and monotonic() < end:
            util.await_only(asyncio.sleep(_FIRST_PAUSE_SECONDS))
        try:
            record = self._create()
            first.is_there = True
        finally:
            first.leave()
        return record

    def _create(self) -> ConnectionPoolEntry:
        # Connecting has a deadline; what SQLAlchemy asks of a new connection gets as long again.
        connector = self._terms.connector
        seconds = 2 * connector.settings.connect_timeout_seconds if connector else 0.0
        begin = monotonic()
        try:
            record: ConnectionPoolEntry = within(seconds, self._create_connection)
        except Exception as error:
            # What SQLAlchemy itself does with it fails here, and in the words of the driver.
            translated = self.translate(error)
            if translated is None:
                raise
            raise translated from error
        for observer in self._observers:
            observer.created(monotonic() - begin)
        return record

    def _busy(self) -> int:
        me = asyncio.current_task()
        return sum(place.busy(me) for place in self._living_places())

    def _living_places(self) -> list[Place]:
        """Return the places of loops that can still run, and let go of all others."""
        with self._lock:
            for key, place in list(self._places.items()):
                loop = place.loop_or_none()
                if loop is None or loop.is_closed():
                    # Killed without a chance to close what it had.
                    self._places.pop(key).let_go()
            return list(self._places.values())

    def _place_of(self, loop: asyncio.AbstractEventLoop) -> Place:
        place = self._places.get(id(loop))
        if place is not None and place.loop_or_none() is loop:
            return place
        self._living_places()
        with self._lock:
            place = self._places[id(loop)] = Place(loop, self._terms, self._drain, self._figures)
        util.await_only(place.begin())
        return place


def pool_of_marked(pool: Pool, mark: str) -> Pool:
    """Return an empty pool like ``pool``, whose entries have ``mark`` before they connect."""
    other = pool.recreate()
    if isinstance(other, LoopPool):
        other._figures = Figures(other._observers)  # it counts for itself
    open_connection = other._invoke_creator

    def open_marked(record: ConnectionPoolEntry) -> Any:
        record.record_info[mark] = True  # type: ignore[index]  # entries of a pool have one
        return open_connection(record)

    other._creator = open_marked  # type: ignore[assignment]  # it takes the record
    return other


def leave_to_parent(pool: Pool) -> None:
    """Let go, in a forked child, of what the parent goes on using; of no avail to call it twice."""
    if isinstance(pool, LoopPool):
        pool.leave_to_parent()
    else:
        keep(pool)


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


_pools: weakref.WeakSet[LoopPool] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
