"""Work after the response, each piece in a unit of work of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec

from fastapi import BackgroundTasks
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database, run_unit

__all__ = ["Background"]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

_P = ParamSpec("_P")


class Background:
    """
    Runs units of work after the response was sent; ask for it as ``background: DBBackground``.

    They run one after the other, in FastAPI's own background tasks, and only if a response was
    sent: not when the handler, or the commit of the request, has failed. A process that is killed
    takes them along; what must happen belongs into a table and a queue.
    """

    def __init__(self, database: Database, tasks: BackgroundTasks) -> None:
        self._database = database
        self._tasks = tasks

    def add(
        self,
        work: Callable[Concatenate[AsyncSession, _P], Awaitable[Any]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> None:
        """
        Let ``await work(session, *args, **kwargs)`` run in a unit of work of its own.

        It is committed if ``work`` returns. What fails is logged, and the next one runs. Pass keys,
        not objects of the request's session.
        """
        self._tasks.add_task(self._run, work, args, kwargs)

    def add_rerun(
        self,
        work: Callable[Concatenate[AsyncSession, _P], Awaitable[Any]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> None:
        """Do what :meth:`add` does, and run it again after a passing failure (extra ``retry``)."""
        self._tasks.add_task(self._run, work, args, kwargs, again=True)

    async def _run(
        self, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any, again: bool = False
    ) -> None:
        try:
            if again:
                await run_unit(
                    lambda session: work(session, *args, **kwargs), self._database.sessionmaker
                )
            else:
                async with self._database.unit_of_work() as session:
                    await work(session, *args, **kwargs)
        except Exception:
            logger.exception("%s() failed in the background", getattr(work, "__name__", work))
