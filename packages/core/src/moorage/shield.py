"""
Waiting for what must not be interrupted, whoever cancels meanwhile.

``asyncio.shield`` does not do it: it returns at the first cancellation, and a cancel scope of
anyio cancels again at every await. Here the work runs in a task of its own, which nobody else
knows, and the cancellation is handed to the caller once the work is over.
"""

from __future__ import annotations

import asyncio
from typing import Any

from moorage.deadline import Alarm

__all__ = ["end_shielded", "wait_shielded"]


async def wait_shielded(task: asyncio.Task[Any], seconds: float) -> asyncio.CancelledError | None:
    """
    Wait until ``task`` is done or ``seconds`` are over; return the last cancellation meanwhile.

    The task is neither cancelled nor asked for its result.
    """
    loop = asyncio.get_running_loop()
    cancellation = None
    is_over = False
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def end() -> None:
        nonlocal is_over
        is_over = True
        wake()

    # What asyncio.wait() does, for one task and one wait, in a third of its calls.
    alarm = Alarm(loop, seconds, end)
    task.add_done_callback(wake)
    try:
        while not task.done() and not is_over:
            try:
                await waiter
            except asyncio.CancelledError as error:
                cancellation = error
                waiter = loop.create_future()
    finally:
        alarm.take_back()
        task.remove_done_callback(wake)
    return cancellation


async def end_shielded(
    task: asyncio.Task[Any], seconds: float, grace_seconds: float
) -> tuple[bool, asyncio.CancelledError | None]:
    """
    Wait for ``task`` as :func:`wait_shielded` does; cancel it when its time is over.

    It then has ``grace_seconds`` to end, and whatever it raises is nobody's business any more.

    Returns:
        Whether it was done in time, and the last cancellation of the caller meanwhile.
    """
    cancellation = await wait_shielded(task, seconds)
    if task.done():
        return True, cancellation
    task.cancel()
    cancellation = await wait_shielded(task, grace_seconds) or cancellation
    task.add_done_callback(_retrieve)
    return False, cancellation


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of a task's exception, so that nobody complains that it was never retrieved."""
    if not task.cancelled():
        task.exception()
