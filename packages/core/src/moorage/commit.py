"""
COMMIT, the one statement whose answer must be waited for.

A task that is cancelled between sending COMMIT and reading the answer does not know whether its
work is stored. Here the answer is waited for whoever cancels meanwhile, and the cancellation is
handed on afterwards; only when no answer comes is the outcome unknown, and the error says so.

Behind the answer the connection goes back to the pool, which may have something to say to the
server as well. Whatever becomes of that, the work is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeGuard

from sqlalchemy import exc as sa_exc
from sqlalchemy import util
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from moorage.diagnosis import LOST_COMMIT
from moorage.errors import CommitOutcomeUnknownError, DatabaseError, blend
from moorage.shield import end_shielded

__all__ = ["commit"]

logger: logging.Logger = logging.getLogger("moorage.unit_of_work")

# How long a connection whose COMMIT was given up may take to close.
_CLOSE_SECONDS = 5.0


async def commit(
    session: AsyncSession,
    deadline_seconds: float,
    deadline_name: Callable[[], str],
    is_answered: Callable[[], bool],
) -> asyncio.CancelledError | None:
    """
    Commit a session and return when the database has confirmed it.

    Args:
        session: What is pending in it is flushed first, where cancellation still rolls back.
        deadline_seconds: Longest wait for the answer.
        deadline_name: Returns the name of the setting that it comes from.
        is_answered: Returns whether the database has confirmed it, as far as that is seen.

    Returns:
        The cancellation that arrived meanwhile, for the caller to raise once it has noted that
        the work is committed.

    Raises:
        CommitOutcomeUnknownError: The link was lost, or the deadline is over, before the answer.
        sqlalchemy.exc.SQLAlchemyError: The database refused; nothing is stored.
    """
    committing = asyncio.create_task(await _flushed(session))
    in_time, cancellation = await end_shielded(committing, deadline_seconds, _CLOSE_SECONDS)
    if (not in_time or committing.cancelled()) and is_answered():
        logger.warning(
            "COMMIT was answered, and what was said behind it was not (within %g s, %s); the work"
            " is stored, and the connection is not used again",
            deadline_seconds,
            deadline_name(),
        )
        return cancellation
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


async def _flushed(session: AsyncSession) -> Coroutine[Any, Any, None]:
    """
    Flush a session in this task; return what commits it in another one.

    It is one greenlet of SQLAlchemy's that does both and is handed over in between. A second one
    would cost as much as dozens of calls: its stack comes from the kernel.
    """
    below = session.sync_session
    if not (below.new or below.dirty or below.deleted):
        return session.commit()
    kind = type(session)
    if kind.flush is not AsyncSession.flush or kind.commit is not AsyncSession.commit:
        await session.flush()  # somebody else's class, which does more
        return session.commit()
    work = session.run_sync(_flush_and_commit)
    await _until_flushed(work)
    return work


class _Flushed:
    """Awaited in SQLAlchemy's greenlet where everything is flushed."""

    def __await__(self) -> Generator[_Flushed, None, None]:
        yield self


def _flush_and_commit(session: Session) -> None:
    session.flush()
    util.await_only(_Flushed())
    session.commit()


@coroutine
def _until_flushed(work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Do in this task, cancellations included, what ``work`` does until it is flushed."""
    go_on = partial(work.send, None)
    while not isinstance(awaited := go_on(), _Flushed):
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 (it is raised there)
            go_on = partial(work.throw, error)
        else:
            go_on = partial(work.send, None)


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
