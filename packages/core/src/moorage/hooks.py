"""
What shall happen after a unit of work, once its outcome is certain.

Sending a mail, publishing an event or dropping a cache entry inside a transaction is wrong twice:
it holds the transaction open, and it cannot be taken back when the transaction is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from moorage.shield import end_shielded

__all__ = ["Hook", "Hooks"]

logger: logging.Logger = logging.getLogger("moorage.hooks")

Hook = Callable[[], Awaitable[object]]
"""What runs after a unit: called without arguments, and awaited."""

_Ending = Literal["committed", "rolled_back"]
# How long a hook that is over its deadline may take to notice that it was cancelled.
_CANCEL_SECONDS = 1.0


@dataclass(frozen=True)
class _Registered:
    hook: Hook
    ending: _Ending
    savepoints: tuple[SessionTransaction, ...]


class Hooks:
    """
    The hooks of one unit of work, in the order in which they were registered.

    Args:
        session: The unit's session, which tells which savepoints were rolled back.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._registered: list[_Registered] = []
        self._undone: set[SessionTransaction] = set()
        self._listening = False

    def add(self, ending: _Ending, hook: Hook) -> None:
        """Register a hook for an ending of what is being done now, savepoints included."""
        savepoints = tuple(_open_savepoints(self._session))
        if savepoints and not self._listening:
            event.listen(self._session, "after_soft_rollback", self._note_rollback)
            self._listening = True
        self._registered.append(_Registered(hook, ending, savepoints))

    async def run(
        self,
        outcome: Literal["committed", "rolled_back", "unknown"],
        seconds: float,
        limit_name: Callable[[], str],
    ) -> asyncio.CancelledError | None:
        """
        Run the hooks of an outcome one after the other; each once, each for up to ``seconds``.

        What they raise is logged. Work of a savepoint that was rolled back counts as rolled back
        in a unit that was committed. Of an unknown outcome nothing runs. ``limit_name`` returns
        the name of the setting that ``seconds`` comes from.

        Returns:
            The cancellation that arrived meanwhile, for the caller to raise.
        """
        cancellation = None
        registered, self._registered = self._registered, []
        for entry in registered:
            if entry.ending == self._ending_of(entry, outcome):
                cancellation = await _run(entry.hook, seconds, limit_name) or cancellation
        return cancellation

    def _ending_of(self, entry: _Registered, outcome: str) -> str:
        if outcome == "committed" and not self._undone.isdisjoint(entry.savepoints):
            return "rolled_back"
        return outcome

    def _note_rollback(self, session: Session, transaction: SessionTransaction) -> None:
        self._undone.add(transaction)


def _open_savepoints(session: Session) -> Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction()
    while transaction is not None and transaction.nested:
        yield transaction
        transaction = transaction.parent


async def _run(
    hook: Hook, seconds: float, limit_name: Callable[[], str]
) -> asyncio.CancelledError | None:
    task = asyncio.create_task(_call(hook))
    in_time, cancellation = await end_shielded(task, seconds, _CANCEL_SECONDS)
    if not in_time:
        logger.error(
            "hook %r was given up after %g s (%s); its unit of work had ended before and is not"
            " touched by this",
            hook,
            seconds,
            limit_name(),
        )
        return cancellation
    failure = asyncio.CancelledError() if task.cancelled() else task.exception()
    if failure is not None:
        logger.error(
            "hook %r failed; its unit of work had ended before and is not touched by this",
            hook,
            exc_info=failure,
        )
    return cancellation


async def _call(hook: Hook) -> None:
    await hook()
