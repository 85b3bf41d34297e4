"""Cancel a coroutine at a chosen one of the points where it waits."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Stepper:
    """
    Awaits a coroutine for the task that awaits this, and counts how often it gives up control.

    Args:
        work: The coroutine.
        cancel_at: Numbers of the points, counted from 1, at which the task is cancelled.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], *cancel_at: int) -> None:
        self._work = work
        self._cancel_at = frozenset(cancel_at)
        self.points: int = 0
        self.cancelled: int = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        failure: BaseException | None = None
        answer: Any = None
        while True:
            try:
                if failure is None:
                    waited_for = self._work.send(answer)
                else:
                    waited_for = self._work.throw(failure)
            except StopIteration as end:
                return end.value
            self.points += 1
            if self.points in self._cancel_at:
                self.cancelled += 1
                task.cancel()  # takes effect as soon as the loop has what is waited for
            failure, answer = None, None
            try:
                answer = yield waited_for
            except BaseException as error:  # noqa: BLE001 (handed to the coroutine)
                failure = error
