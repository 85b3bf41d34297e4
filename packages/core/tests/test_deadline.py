"""Deadlines inside SQLAlchemy's greenlet end what is late, and nothing else."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from sqlalchemy import util

from moorage.deadline import Alarm, Wait, within

SOON = 0.01
NEVER = 3600.0


def wait_for(awaitable: Any, seconds: float) -> Any:
    """Wait inside of a greenlet, with a deadline."""
    return within(seconds, util.await_only, awaitable)


async def test_what_is_late_times_out() -> None:
    """A wait that is over its time raises TimeoutError, and its task is not cancelled any more."""
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        await util.greenlet_spawn(wait_for, asyncio.Event().wait(), SOON)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_comes_in_time_is_returned() -> None:
    """An answer in time is returned, and the timer that comes by later cancels nobody."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_soon(answer.set_result, 42)
    wait = Wait()
    assert await util.greenlet_spawn(wait.call, SOON, util.await_only, answer) == 42
    await asyncio.sleep(3 * SOON)
    assert not wait.was_late


async def test_a_shorter_wait_does_not_wait_for_a_longer_one() -> None:
    """The one timer of the loop comes by for the wait that is over first."""
    answer = asyncio.get_running_loop().create_future()
    longer = asyncio.create_task(util.greenlet_spawn(wait_for, answer, NEVER))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await util.greenlet_spawn(wait_for, asyncio.Event().wait(), SOON)
    answer.set_result(42)
    assert await longer == 42


async def test_a_cancellation_by_others_stays_one() -> None:
    """Who is cancelled by somebody else, instead of by the deadline or before it, is told so."""
    task = asyncio.create_task(util.greenlet_spawn(wait_for, asyncio.Event().wait(), NEVER))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()

    async def wait_twice() -> None:
        for _ in ("by itself", "by the deadline"):
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
        raise asyncio.CancelledError

    task = asyncio.create_task(util.greenlet_spawn(wait_for, wait_twice(), SOON))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_an_answer_to_the_cancellation_leaves_none_behind() -> None:
    """Where what was called turns the deadline's cancellation into an error, the task goes on."""

    def turn_it_into_an_error() -> None:
        try:
            util.await_only(asyncio.Event().wait())
        except asyncio.CancelledError:
            raise ConnectionError from None

    with pytest.raises(ConnectionError):
        await util.greenlet_spawn(within, SOON, turn_it_into_an_error)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(NEVER):  # which tells its own cancellations by that number
        await asyncio.sleep(0)


async def test_no_limit_is_none() -> None:
    """Zero seconds are for ever, and no timer is set."""
    wait = Wait()

    def seen() -> object:
        return wait.task

    assert await util.greenlet_spawn(wait.call, 0.0, seen) is None
    assert await util.greenlet_spawn(wait.call, NEVER, seen) is asyncio.current_task()
    assert not wait.end_late()


async def test_alarms_ring_once_where_nobody_takes_them_back() -> None:
    """Of several alarms those ring whose time has come, and that are left."""
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    last = asyncio.Event()

    def ring() -> None:
        rung.append("later")
        last.set()

    Alarm(loop, 3 * SOON, ring)
    Alarm(loop, NEVER, lambda: rung.append("never"))
    Alarm(loop, SOON, lambda: rung.append("soon"))
    Alarm(loop, SOON, lambda: rung.append("taken back")).take_back()
    await last.wait()
    assert sorted(rung) == ["later", "soon"]


def test_a_loop_is_not_kept() -> None:
    """Nothing of the deadlines keeps a loop that has ended."""
    loop = asyncio.new_event_loop()

    async def wait_in_vain() -> None:
        with pytest.raises(TimeoutError):
            await util.greenlet_spawn(wait_for, asyncio.Event().wait(), SOON)

    loop.run_until_complete(wait_in_vain())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    asyncio.set_event_loop(None)
    gc.collect()
    assert gone() is None
