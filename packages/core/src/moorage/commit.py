"""
COMMIT, the one statement whose answer must be waited for.

A task that is cancelled between sending COMMIT and reading the answer does not know whether its
work is stored. Here the answer is waited for whoever cancels meanwhile, and the cancellation is
handed on afterwards; only when no answer comes is the outcome unknown, and the error says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeGuard

from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.diagnosis import LOST_COMMIT
from moorage.errors import CommitOutcomeUnknownError, DatabaseError, blend
from moorage.shield import end_shielded

__all__ = ["commit"]

# How long a connection whose COMMIT was given up may take to close.
_CLOSE_SECONDS = 5.0


async def commit(
    session: AsyncSession, deadline_seconds: float, deadline_name: Callable[[], str]
) -> asyncio.CancelledError | None:
    """
    Commit a session and return when the database has confirmed it.

    Args:
        session: What is pending in it is flushed first, where cancellation still rolls back.
        deadline_seconds: Longest wait for the answer.
        deadline_name: Returns the name of the setting that it comes from.

    Returns:
        The cancellation that arrived meanwhile, for the caller to raise once it has noted that
        the work is committed.

    Raises:
        CommitOutcomeUnknownError: The link was lost, or the deadline is over, before the answer.
        sqlalchemy.exc.SQLAlchemyError: The database refused; nothing is stored.
    """
    below = session.sync_session
    if below.new or below.dirty or below.deleted:
        await session.flush()
    committing = asyncio.create_task(session.commit())
    in_time, cancellation = await end_shielded(committing, deadline_seconds, _CLOSE_SECONDS)
    if not in_time:
        message = f"no answer to COMMIT within {deadline_seconds:g} s ({deadline_name()})"
        raise _unanswered(message) from cancellation
    if committing.cancelled():
        raise _unanswered("the event loop ended while COMMIT was under way") from cancellation
    failure = committing.exception()
    if _is_strangers_lost_link(failure):
        sentence, hint = LOST_COMMIT
        ours = CommitOutcomeUnknownError(sentence, hint=hint, orig=failure)
        raise blend(ours, failure) from failure
    if failure is not None:
        raise failure
    return cancellation


def _is_strangers_lost_link(failure: BaseException | None) -> TypeGuard[sa_exc.DBAPIError]:
    # Our own engines say by themselves what became of a COMMIT.
    return (
        isinstance(failure, sa_exc.DBAPIError)
        and failure.connection_invalidated
        and not isinstance(failure, CommitOutcomeUnknownError)
    )


def _unanswered(message: str) -> DatabaseError:
    _, hint = LOST_COMMIT
    ours = CommitOutcomeUnknownError(message, hint=hint)
    return blend(ours, sa_exc.TimeoutError(message))
