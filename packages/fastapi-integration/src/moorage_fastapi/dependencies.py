"""
Sessions and units of work of a request, as dependencies.

FastAPI runs the end of a ``yield`` dependency after the response was sent, so that a commit there
fails behind the back of a client that has its 200, and a stream keeps its connection. Only
``scope="function"`` ends earlier, and that is the choice of whoever writes ``Depends``. Therefore
the dependencies here are plain coroutines, which hand their end to FastAPI's stack of that scope
themselves: however they are asked for, they end after the response was serialised and before it
is sent. It is what costs a request least as well; a generator below each of them would take
FastAPI two to four times as long.
"""

# Annotations are evaluated here: FastAPI reads those of the functions that are made below, and
# would not find local names by their text.

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache
from typing import Annotated, Any, Unpack

from anyio import CancelScope
from fastapi import BackgroundTasks, Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from moorage import Database, UnitOfWork, UnitOptions, retire_session
from moorage_fastapi.background import Background
from moorage_fastapi.lifespan import served_by
from moorage_fastapi.request_work import RequestWork, begin_work, name_work, works_of
from moorage_fastapi.routes import Asked, asks_for, plan_of

__all__ = [
    "AppDatabase",
    "DBBackground",
    "DBReadSession",
    "DBSession",
    "DBStreamSession",
    "DBUnitOfWork",
    "DatabaseDependencies",
    "dependencies_for",
    "get_app_database",
    "get_background",
    "get_db_session",
    "get_read_session",
    "get_stream_session",
    "get_unit_of_work",
    "unit_of_work",
]

_AFTER_THE_RESPONSE = (
    "the response of this session was sent",
    "for a background task ask for `background: DBBackground`",
)


SessionDependency = Callable[..., Coroutine[Any, Any, AsyncSession]]
"""A dependency that gives a session."""

UnitDependency = Callable[..., Coroutine[Any, Any, UnitOfWork]]
"""A dependency that gives a unit of work."""


BackgroundDependency = Callable[..., Coroutine[Any, Any, Background]]
"""A dependency that gives what runs units of work after the response."""

DatabaseDependency = Callable[..., Coroutine[Any, Any, Database]]
"""A dependency that gives a database."""


class DatabaseDependencies:
    """
    The dependencies of one database; :func:`dependencies_for` returns them.

    Each attribute is what goes into ``Depends``, and the same object every time, so that
    ``app.dependency_overrides`` knows it.

    Attributes:
        name: Name of the database in ``lifespan(databases=…)``; ``None`` is the application's.
        session: Gives the session of the request.
        unit_of_work: Gives the unit of work of the request.
        read_session: Gives a session of its own that only reads.
        stream_session: Gives a session that reads until the response was sent.
        background: Runs units of work after the response.
        database: Gives the database itself.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name

        async def get_session(connection: HTTPConnection) -> AsyncSession:
            """Return the session of the request."""
            return (await _work_on(name, connection)).session

        async def get_unit(connection: HTTPConnection) -> UnitOfWork:
            """Return the unit of work of the request, which commits before the response."""
            return await (await _work_on(name, connection)).unit()

        async def get_database(connection: HTTPConnection) -> Database:
            """Return the database that serves the request."""
            return served_by(connection).get(name)

        self._with_options: dict[str, UnitDependency] = {}
        self.session: SessionDependency = get_session
        self.unit_of_work: UnitDependency = get_unit
        self.read_session: SessionDependency = _reading(name)
        self.stream_session: SessionDependency = _streaming(name)
        self.background: BackgroundDependency = _after(name)
        self.database: DatabaseDependency = get_database
        asks_for(get_session, Asked("session", name))
        asks_for(get_unit, Asked("unit", name))
        asks_for(self.read_session, Asked("read session", name))

    def __repr__(self) -> str:
        return f"<DatabaseDependencies {self.name or 'default'}>"

    def unit_with(self, **options: Unpack[UnitOptions]) -> UnitDependency:
        """
        Return a dependency on the unit of work with options: ``Depends(unit_with(…))``.

        The options hold for the request's one unit, whoever else asks for it; they are those of
        :class:`moorage.UnitOfWork`, and the same ones give the same dependency.
        """
        key = repr(sorted(options.items()))
        if key not in self._with_options:
            name = self.name

            async def get_unit(connection: HTTPConnection) -> UnitOfWork:
                return await (await _work_on(name, connection)).unit(options)

            asks_for(get_unit, Asked("unit", self.name, options))
            self._with_options[key] = get_unit
        return self._with_options[key]


@cache
def dependencies_for(name: str) -> DatabaseDependencies:
    """
    Return the dependencies of the database that ``lifespan(databases=…)`` has under a name.

    Called where the application's aliases are written::

        analytics = dependencies_for("analytics")
        AnalyticsSession = Annotated[AsyncSession, Depends(analytics.session)]

    Within one request, session and unit of one database share a session; those of two databases
    have nothing in common, and commit one after the other.
    """
    return DatabaseDependencies(name)


async def _work_on(name: str | None, connection: HTTPConnection) -> RequestWork:
    """Return what a request does with a database, begun when it is first asked for."""
    works = works_of(connection)
    work = works.get(name)
    if work is None:
        served = served_by(connection)
        works[name] = work = RequestWork(served.get(name).session, served.on_uncommitted)
        units = begin_work(connection, work).units
        if name in units:
            # Before anybody's first statement: a backend with one writer at a time takes its lock
            # at the beginning, and cannot take it behind what an earlier dependency has read.
            await work.unit(units[name])
    return work


def _reading(name: str | None) -> SessionDependency:
    async def get_read_session(connection: HTTPConnection) -> AsyncSession:
        """Return a session of the request that only reads."""
        works = works_of(connection)
        work = works.get(get_read_session)
        if work is None:
            sessions = served_by(connection).get(name).read_session
            works[get_read_session] = work = RequestWork(sessions, only_reads=True)
            begin_work(connection, work)
        return work.session

    return get_read_session


def _streaming(name: str | None) -> SessionDependency:
    async def read_until_sent(
        connection: HTTPConnection, background: BackgroundTasks
    ) -> AsyncIterator[AsyncSession]:
        name_work(connection.scope, plan_of(connection.scope))
        session = served_by(connection).get(name).read_session()

        async def end() -> None:
            with CancelScope(shield=True):
                await session.close()
            retire_session(session, *_AFTER_THE_RESPONSE)

        # Background tasks run between the end of the response and that of its dependencies, and
        # shall not hold the connection.
        background.add_task(end)
        try:
            yield session
        finally:
            await end()

    session = Depends(read_until_sent, scope="request")

    async def get_stream_session(session: AsyncSession = session) -> AsyncSession:
        """Return a session that reads until the response was sent."""
        return session

    return get_stream_session


def _after(name: str | None) -> BackgroundDependency:
    async def get_background(connection: HTTPConnection, tasks: BackgroundTasks) -> Background:
        """Return what runs units of work after the response."""
        return Background(served_by(connection).get(name), tasks)

    return get_background


_default = DatabaseDependencies(None)

get_db_session: SessionDependency = _default.session
"""
Gives the session of the request: ``session: AsyncSession = Depends(get_db_session)``.

It is closed after the response was serialised and before it is sent; what was not committed is
rolled back, and was it written to, the request fails with ``UncommittedChangesError``. If anything
in the request asks for :func:`get_unit_of_work`, this is its session and is committed with it.
"""

get_unit_of_work: UnitDependency = _default.unit_of_work
"""
Gives the unit of work of the request: ``unit: UnitOfWork = Depends(get_unit_of_work)``.

It commits after the response was serialised and before it is sent, so that a commit that fails is
never a 2xx. Any exception, ``HTTPException`` included, rolls back; a response that is returned
commits, whatever its status.
"""

get_read_session: SessionDependency = _default.read_session
"""
Gives a session of its own that only reads; the database refuses writes where it can.

It ends as early as the session of :func:`get_db_session`.
"""

get_stream_session: SessionDependency = _default.stream_session
"""
Gives a session that only reads and lives until the response was sent, or its client is gone.

For endpoints that yield and for ``StreamingResponse``. It holds a connection from its first
statement to the end of the stream, so that a slow client holds one as well.
"""

get_background: BackgroundDependency = _default.background
"""Gives what runs units of work after the response; see :class:`Background`."""

get_app_database: DatabaseDependency = _default.database
"""
Gives the database that serves the request, for what outlives it.

WebSocket loops and long streams open sessions and units of work of their own on it, and hold a
connection no longer than they need one.
"""


def unit_of_work(**options: Unpack[UnitOptions]) -> UnitDependency:
    """
    Return a dependency on the request's unit of work with options.

    ``unit: UnitOfWork = Depends(unit_of_work(isolation_level="SERIALIZABLE"))``; the options are
    those of :class:`moorage.UnitOfWork`, and hold for the request's one unit, whoever else asks
    for it.
    """
    return _default.unit_with(**options)


AppDatabase = Annotated[Database, Depends(get_app_database)]
"""The database of the application."""

DBSession = Annotated[AsyncSession, Depends(get_db_session)]
"""The session of the request."""

DBUnitOfWork = Annotated[UnitOfWork, Depends(get_unit_of_work)]
"""The unit of work of the request."""

DBReadSession = Annotated[AsyncSession, Depends(get_read_session)]
"""A session of the request that only reads."""

DBStreamSession = Annotated[AsyncSession, Depends(get_stream_session)]
"""A session that reads until the response was sent."""

DBBackground = Annotated[Background, Depends(get_background)]
"""What runs units of work after the response was sent."""
