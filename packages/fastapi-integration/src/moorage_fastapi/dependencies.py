"""
Sessions and units of work of a request, as dependencies.

FastAPI runs the end of a ``yield`` dependency after the response was sent, so that a commit there
fails behind the back of a client that has its 200, and a stream keeps its connection. Only
``scope="function"`` ends earlier, and that is the choice of whoever writes ``Depends``. Therefore
the public dependencies here are plain coroutines on top of one private generator that carries the
scope: however they are asked for, they end after the response was serialised and before it is
sent.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import CancelScope
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from moorage import (
    AsyncSessionFactory,
    Database,
    LifecycleError,
    UncommittedChangesError,
    UnitOfWork,
    retire_session,
    uncommitted_changes,
    work_name,
)
from moorage_fastapi.lifespan import OnUncommitted, database_of, on_uncommitted_of

__all__ = [
    "AppDatabase",
    "DBReadSession",
    "DBSession",
    "DBUnitOfWork",
    "get_app_database",
    "get_db_session",
    "get_read_session",
    "get_unit_of_work",
]


logger: logging.Logger = logging.getLogger("moorage.fastapi")

_AFTER_THE_REQUEST = (
    "the request of this session has ended (streams and background tasks run after it)",
    "ask for the database (`database: AppDatabase`), and open a session inside the stream or task:"
    " `async with database.session() as session:`",
)


class RequestWork:
    """
    What one request does with one database: one session, and a unit of work if anybody asks.

    Session and unit share the session, so that an object loaded by an authentication dependency
    and changed in the handler is stored with the rest.
    """

    def __init__(
        self, sessions: AsyncSessionFactory, on_uncommitted: OnUncommitted = "raise"
    ) -> None:
        self._sessions = sessions
        self._on_uncommitted = on_uncommitted
        self._session: AsyncSession | None = None
        self._unit: UnitOfWork | None = None

    @property
    def session(self) -> AsyncSession:
        """Return the request's session, made when it is first asked for."""
        if self._session is None:
            self._session = self._sessions()
        return self._session

    async def unit(self) -> UnitOfWork:
        """Return the request's unit of work, begun when it is first asked for."""
        if self._unit is None:
            session = self.session
            unit = UnitOfWork(lambda: session)
            await unit.begin()
            self._unit = unit
        return self._unit

    async def end(self, exc: BaseException | None = None) -> None:
        """
        Commit the unit if there is one and nothing was raised; close the session.

        What fails beside an ``exc`` is attached to it as a note, since the caller raises that.
        """
        # A middleware that gives up cancels again at each await, and with it the rollback; FastAPI
        # shields the end of a dependency since 0.163 only.
        with CancelScope(shield=True):
            try:
                if self._unit is not None:
                    await self._unit.end(exc)
                elif self._session is not None:
                    lost = "" if exc is not None else uncommitted_changes(self._session)
                    await self._session.close()
                    self._complain(lost)
            except Exception as failure:
                if exc is None:
                    raise
                exc.add_note(f"moorage: ending the request's session failed as well: {failure!r}")
            finally:
                if self._session is not None:
                    retire_session(self._session, *_AFTER_THE_REQUEST)

    def _complain(self, lost: str) -> None:
        if not lost:
            return
        message = f"a request ended, and its session lost {lost}, which nobody had committed"
        if self._on_uncommitted == "warn":
            logger.warning("%s", message)
            return
        raise UncommittedChangesError(
            message,
            hint="ask for the unit of work (`unit: DBUnitOfWork`), which commits, or commit the"
            ' session; lifespan(on_uncommitted="warn") only logs it',
        )


@asynccontextmanager
async def _work(
    sessions: AsyncSessionFactory, on_uncommitted: OnUncommitted = "raise"
) -> AsyncIterator[RequestWork]:
    work = RequestWork(sessions, on_uncommitted)
    try:
        yield work
    except BaseException as exc:
        await work.end(exc)
        raise
    await work.end()


def _name_work(connection: HTTPConnection) -> None:
    """Let the pool's messages name the route, which, unlike the path, tells nobody's secret."""
    if (path := getattr(connection.scope.get("route"), "path", None)) is not None:
        work_name.set(f"{connection.scope.get('method', 'WEBSOCKET')} {path}")


async def _request_work(connection: HTTPConnection) -> AsyncIterator[RequestWork]:
    _name_work(connection)
    sessions = database_of(connection).session
    route = getattr(connection.scope.get("route"), "dependant", None)
    _refuse_late_generators(route)
    async with _work(sessions, on_uncommitted_of(connection)) as work:
        if _asks_for_unit(route):
            # Before anybody's first statement: a backend with one writer at a time takes its lock
            # at the beginning, and cannot take it behind what an earlier dependency has read.
            await work.unit()
        yield work


def _asks_for_unit(dependant: Dependant | None) -> bool:
    """Return whether anything that a route depends on, however deep, asks for the unit of work."""
    return dependant is not None and (
        dependant.call is get_unit_of_work or any(map(_asks_for_unit, dependant.dependencies))
    )


def _refuse_late_generators(dependant: Dependant | None) -> None:
    """
    Refuse generators on top of our dependencies that end after the response was sent.

    What stands behind their ``yield`` would run on a session that has ended, and FastAPI sees no
    mistake in it.
    """
    for inner in () if dependant is None else dependant.dependencies:
        yields = inspect.isasyncgenfunction(inner.call) or inspect.isgeneratorfunction(inner.call)
        if yields and inner.scope != "function" and _asks_for_session(inner):
            name = getattr(inner.call, "__name__", repr(inner.call))
            raise LifecycleError(
                f"the dependency {name}() uses the request's session and yields; behind its yield"
                " the session has ended already",
                hint=f'write Depends({name}, scope="function"): it then ends before the session',
            )
        _refuse_late_generators(inner)


def _asks_for_session(dependant: Dependant) -> bool:
    """Return whether a dependency uses the request's session or unit, however deep."""
    return any(
        inner.call in {get_db_session, get_unit_of_work} or _asks_for_session(inner)
        for inner in dependant.dependencies
    )


_Work = Annotated[RequestWork, Depends(_request_work, scope="function")]


async def get_db_session(work: _Work) -> AsyncSession:
    """
    Return the session of the request: ``session: AsyncSession = Depends(get_db_session)``.

    It is closed after the response was serialised and before it is sent; what was not committed
    is rolled back. If anything in the request asks for :func:`get_unit_of_work`, this is its
    session and is committed with it.
    """
    return work.session


async def get_unit_of_work(work: _Work) -> UnitOfWork:
    """
    Return the unit of work of the request: ``unit: UnitOfWork = Depends(get_unit_of_work)``.

    It commits after the response was serialised and before it is sent, so that a commit that
    fails is never a 2xx. Any exception, ``HTTPException`` included, rolls back; a response that
    is returned commits, whatever its status.
    """
    return await work.unit()


async def _read_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    _name_work(connection)
    async with _work(database_of(connection).read_session) as work:
        yield work.session


async def get_read_session(
    session: Annotated[AsyncSession, Depends(_read_session, scope="function")],
) -> AsyncSession:
    """
    Return a session of its own that only reads; the database refuses writes where it can.

    It ends as early as the session of :func:`get_db_session`.
    """
    return session


async def get_app_database(connection: HTTPConnection) -> Database:
    """
    Return the database that serves the request, for what outlives it.

    Streams, WebSocket loops and background tasks open sessions and units of work of their own on
    it, and hold a connection no longer than they need one.
    """
    return database_of(connection)


AppDatabase = Annotated[Database, Depends(get_app_database)]
"""The database of the application."""

DBSession = Annotated[AsyncSession, Depends(get_db_session)]
"""The session of the request."""

DBUnitOfWork = Annotated[UnitOfWork, Depends(get_unit_of_work)]
"""The unit of work of the request."""

DBReadSession = Annotated[AsyncSession, Depends(get_read_session)]
"""A session of the request that only reads."""
