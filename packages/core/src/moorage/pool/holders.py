"""
Who holds the connections of a pool: since when, in which task, doing what.

A pool that runs dry is most often held by code that does something slow with a connection in its
hand, or by tasks that hold one and wait for a second. Both are told with the names of the culprits.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sysconfig
import time
import traceback
from collections.abc import Iterable
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple

from greenlet import getcurrent

__all__ = [
    "Holder",
    "stack_of_caller",
    "takes_two",
    "told",
    "warn_of_long",
    "warn_of_second",
    "work_name",
]

logger: logging.Logger = logging.getLogger("moorage.pool")

work_name: ContextVar[str | None] = ContextVar("moorage_work_name", default=None)
"""
What the current task is doing, for the messages of the pool: ``work_name.set("GET /boats")``.

Without it they name the task. An integration of a web framework sets it to the route.
"""

takes_two: ContextVar[bool] = ContextVar("moorage_takes_two", default=False)
"""Whether the current task takes a second connection on purpose, from a pool of its own."""

_SHOWN_HOLDERS = 5
_SHOWN_FRAMES = 8
_MOST_NAMES = 1000
_LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
_warned: set[str] = set()


class Holder(NamedTuple):
    """
    Who holds a connection.

    Attributes:
        since: When it was taken, on the monotonic clock.
        task: The task that took it, if it was one.
        work: What the task was doing then, by :data:`work_name`.
        stack: Where it was taken; only in asyncio's debug mode.
    """

    since: float
    task: asyncio.Task[Any] | None
    work: str | None
    stack: str


def _name_of(task: asyncio.Task[Any] | None, work: str | None) -> str:
    """Return what a task is called in messages: its work, its name, or what it runs."""
    if work is not None:
        return work
    if task is None:
        return "no task"
    name = task.get_name()
    if name.startswith("Task-"):  # asyncio's own, which says nothing
        return f"{name} ({getattr(task.get_coro(), '__qualname__', 'unknown')})"
    return name


def told(holders: Iterable[Holder]) -> str:
    """Return a list of holders for a message, the oldest first."""
    now = time.monotonic()
    oldest = sorted(holders, key=lambda holder: holder.since)
    shown = [
        f"for {now - holder.since:.1f} s by {_name_of(holder.task, holder.work)}"
        + (f", taken at\n{holder.stack}" if holder.stack else "")
        for holder in oldest[:_SHOWN_HOLDERS]
    ]
    more = len(oldest) - len(shown)
    return f"{', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def warn_of_long(holder: Holder, variable: str) -> None:
    """Log that a connection is held for long, and where its task is now."""
    logger.warning(
        "a connection has been held for %.1f s (%s) by %s%s; end sessions before slow work",
        time.monotonic() - holder.since,
        variable,
        _name_of(holder.task, holder.work),
        f", now at {where}" if (where := _place_of(holder.task)) else "",
    )


def warn_of_second(task: asyncio.Task[Any]) -> None:
    """Log, once per name, that a task takes a second connection while it holds one."""
    if takes_two.get():
        return
    work = work_name.get()
    name = _name_of(task, work)
    kind = work or str(getattr(task.get_coro(), "__qualname__", name))
    if kind in _warned or len(_warned) >= _MOST_NAMES:
        return
    _warned.add(kind)
    logger.warning(
        "%s takes a second connection while it holds one; when as many tasks do so as the pool has"
        " connections, each waits for the others until pool_timeout_seconds: pass the session on,"
        " or end it first",
        name,
    )


def stack_of_caller() -> str:
    """Return the frames of the user's code that led here, outside of SQLAlchemy's greenlet."""
    parent = getcurrent().parent
    frame = inspect.currentframe() if parent is None else parent.gr_frame
    own = [
        summary
        for summary in reversed(traceback.StackSummary.extract(traceback.walk_stack(frame)))
        if not summary.filename.startswith(_LIBRARIES)
    ]
    return "".join(traceback.format_list(own[-_SHOWN_FRAMES:])).rstrip()


def _place_of(task: asyncio.Task[Any] | None) -> str:
    """Return the innermost line of the user's code at which a task waits."""
    place = ""
    coroutine: Any = None if task is None else task.get_coro()
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_LIBRARIES):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        coroutine = getattr(coroutine, "cr_await", None)
    return place
