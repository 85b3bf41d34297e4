"""
Running a whole unit of work again, when running it again is the cure.

A deadlock or a serialization failure has undone the whole transaction, so that repeating the last
statement is of no use: the unit must be run from its beginning, on a new session. That is safe as
long as the unit was rolled back for certain, and is never done when the outcome of its COMMIT is
unknown. Back-off, jitter, logging and counting are stamina's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from sqlalchemy.ext.asyncio import AsyncSession

from moorage.errors import DatabaseError, MissingExtraError, SettingsError
from moorage.unit_of_work import AsyncSessionFactory, UnitOfWork, UnitOptions

__all__ = ["Attempts", "as_unit", "run_unit"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

# In seconds. A collision is over when the other transaction is, so the first pause is short.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_JITTER = 0.1


def is_passing(error: Exception) -> bool:
    """Return whether an error says that the same work, done again from its beginning, may do."""
    return isinstance(error, DatabaseError) and error.is_transient


class Attempts:
    """
    How often, and for how long, work is begun anew after a passing failure.

    For work that is more than one unit of work; :func:`run_unit` and :func:`as_unit` use it for
    one. Whoever uses it answers for the work being safe to do again: a unit whose COMMIT has an
    unknown outcome raises an error that is not transient, and so is not run again.
    """

    def __init__(self, attempts: int, deadline_seconds: float) -> None:
        """
        Check the bounds; nothing is run yet.

        Args:
            attempts: Most runs, the first one included.
            deadline_seconds: No attempt begins later than this after the first one.

        Raises:
            MissingExtraError: stamina is not installed.
            SettingsError: ``attempts`` or ``deadline_seconds`` is no positive number.
        """
        try:
            import stamina
        except ImportError as error:
            raise MissingExtraError(
                "running work again needs stamina, which is not installed",
                hint="pip install 'moorage[retry]'",
            ) from error
        if attempts < 1 or not deadline_seconds > 0:
            raise SettingsError(
                f"attempts is {attempts!r} and deadline_seconds {deadline_seconds!r}",
                hint="write positive numbers; attempts=1 runs the work once",
            )
        self._caller = stamina.AsyncRetryingCaller(
            attempts=attempts,
            timeout=deadline_seconds,
            wait_initial=_FIRST_PAUSE,
            wait_max=_LONGEST_PAUSE,
            wait_jitter=_JITTER,
        )

    async def run(
        self,
        work: Callable[..., Awaitable[_T]],
        *arguments: Any,
        when: Callable[[Exception], bool] = is_passing,
    ) -> _T:
        """
        Await ``work(*arguments)``, and again after a failure of which ``when`` is true.

        Returns:
            What ``work`` returned in the attempt that succeeded.

        Raises:
            Exception: The failure of the last attempt.
        """
        result: _T = await self._caller(when, work, *arguments)
        return result


async def run_unit(
    work: Callable[[AsyncSession], Awaitable[_T]],
    sessionmaker: AsyncSessionFactory | None = None,
    *,
    attempts: int = 5,
    deadline_seconds: float = 30.0,
    **options: Unpack[UnitOptions],
) -> _T:
    """
    Run ``work`` in a unit of work, and again from its beginning after a passing failure.

    Run again is after errors with ``is_transient`` (a deadlock, a collision, a lost connection,
    a server that restarts), if the unit was rolled back for certain; never after a COMMIT whose
    outcome is unknown. Each attempt has a session of its own and its own hooks: those of an
    attempt that rolled back are discarded or, if ``on_rollback``, run. stamina logs each retry,
    and counts it if the Prometheus client is installed.

    Args:
        work: Gets the session. Whatever it does besides using it is done again as well.
        sessionmaker: As in :class:`UnitOfWork`.
        attempts: Most runs of ``work``, the first one included.
        deadline_seconds: No attempt begins later than this after the first one.
        **options: As in :class:`UnitOfWork`.

    Returns:
        What ``work`` returned in the attempt that was committed.

    Raises:
        MissingExtraError: stamina is not installed.
        SettingsError: ``attempts`` or ``deadline_seconds`` is no positive number, or the backend
            does not have what an option asks for.
        Exception: The failure of the last attempt.
    """
    repeated = Attempts(attempts, deadline_seconds)
    unit = UnitOfWork(sessionmaker, **options)

    @wraps(work)
    async def attempt() -> _T:
        nonlocal unit
        unit = UnitOfWork(sessionmaker, **options)
        async with unit as session:
            return await work(session)

    return await repeated.run(
        attempt, when=lambda error: is_passing(error) and unit.outcome == "rolled_back"
    )


def as_unit(
    sessionmaker: AsyncSessionFactory | None = None,
    *,
    attempts: int = 5,
    deadline_seconds: float = 30.0,
    **options: Unpack[UnitOptions],
) -> Callable[
    [Callable[Concatenate[AsyncSession, _P], Awaitable[_T]]], Callable[_P, Awaitable[_T]]
]:
    """
    Make a coroutine function run in a unit of work of its own, as :func:`run_unit` does.

    ``@as_unit()`` above ``async def rename(session, book_id, title)`` makes ``rename(book_id,
    title)``, which begins, commits, and runs again. Arguments are those of :func:`run_unit`.
    """

    def decorate(
        function: Callable[Concatenate[AsyncSession, _P], Awaitable[_T]],
    ) -> Callable[_P, Awaitable[_T]]:
        @wraps(function)
        async def in_unit(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            @wraps(function)
            async def work(session: AsyncSession) -> _T:
                return await function(session, *args, **kwargs)

            return await run_unit(
                work,
                sessionmaker,
                attempts=attempts,
                deadline_seconds=deadline_seconds,
                **options,
            )

        return in_unit

    return decorate
