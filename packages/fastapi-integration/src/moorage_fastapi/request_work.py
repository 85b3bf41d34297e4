"""What one request does with one database, from the first who asks to the response."""

from __future__ import annotations

import logging

from anyio import CancelScope
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection
from starlette.types import Message, Scope
from starlette.websockets import WebSocket

from moorage import (
    AsyncSessionFactory,
    UncommittedChangesError,
    UnitOfWork,
    UnitOfWorkError,
    UnitOptions,
    find_uncommitted_changes,
    retire_session,
    uncommitted_changes,
    work_name,
)
from moorage_fastapi.lifespan import OnUncommitted
from moorage_fastapi.routes import Plan, function_stack, plan_of

__all__ = ["RequestWork", "begin_work", "name_work", "works_of"]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

_WORKS = "moorage_works"

_AFTER_THE_REQUEST = (
    "the request of this session has ended (streams, WebSocket loops and background tasks run"
    " after it)",
    "in a stream ask for `session: DBStreamSession`, for a background task for"
    " `background: DBBackground`; elsewhere ask for the database (`database: AppDatabase`), and"
    " open a session where it is used: `async with database.session() as session:`",
)


class RequestWork:
    """
    What one request does with one database: one session, and a unit of work if anybody asks.

    Session and unit share the session, so that an object loaded by an authentication dependency
    and changed in the handler is stored with the rest. :func:`begin_work` lets it end before
    anything of the response is sent.
    """

    def __init__(
        self,
        sessions: AsyncSessionFactory,
        on_uncommitted: OnUncommitted = "raise",
        *,
        only_reads: bool = False,
    ) -> None:
        self._only_reads = only_reads
        self._sessions = sessions
        self._on_uncommitted = on_uncommitted
        self._options: UnitOptions = {}
        self._session: AsyncSession | None = None
        self._unit: UnitOfWork | None = None
        self._has_ended = False

    @property
    def session(self) -> AsyncSession:
        """Return the request's session, made when it is first asked for."""
        if self._session is None:
            self._session = self._sessions()
        return self._session

    async def unit(self, options: UnitOptions | None = None) -> UnitOfWork:
        """
        Return the request's unit of work, begun when it is first asked for.

        Raises:
            UnitOfWorkError: It was begun with other options.
        """
        if self._unit is None:
            self._options = options or {}
            session = self.session
            unit = UnitOfWork(lambda: session, **self._options)
            await unit.begin()
            self._unit = unit
        elif options and options != self._options:
            raise UnitOfWorkError(
                f"the request's unit of work was begun with {self._options or 'no options'} and is"
                f" asked for with {options}",
                hint="a request has one unit per database; give the options in one place",
            )
        return self._unit

    async def end(self, exc: BaseException | None = None) -> None:
        """
        Commit the unit if there is one and nothing was raised; close the session.

        Further calls do nothing. What fails beside an ``exc`` is attached to it as a note, since
        the caller raises that.
        """
        if self._has_ended or self._session is None:
            self._has_ended = True
            return
        self._has_ended = True
        try:
            if self._unit is None and (self._only_reads or not self._session.in_transaction()):
                await self._close(self._session, exc)
            else:
                # A middleware that gives up cancels again at each await, and with it the rollback;
                # FastAPI shields the end of a dependency since 0.163 only.
                with CancelScope(shield=True):
                    await self._end_transaction(self._session, exc)
        except Exception as failure:
            if exc is None:
                raise
            exc.add_note(f"moorage: ending the request's session failed as well: {failure!r}")
        finally:
            retire_session(self._session, *_AFTER_THE_REQUEST)

    async def end_with(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        """Do what :meth:`end` does, called as exits of blocks are."""
        await self.end(exc)

    async def _close(self, session: AsyncSession, exc: BaseException | None) -> None:
        """Close a session that has nothing to roll back, or to ask the database for."""
        async with session:
            lost = "" if exc is not None else uncommitted_changes(session)
        if lost:
            self._complain(lost)

    async def _end_transaction(self, session: AsyncSession, exc: BaseException | None) -> None:
        if self._unit is not None:
            await self._unit.end(exc)
            return
        try:
            lost = "" if exc is not None else await find_uncommitted_changes(session)
        finally:
            await session.close()
        if lost:
            self._complain(lost)

    def _complain(self, lost: str) -> None:
        message = f"a request ended, and its session lost {lost}, which nobody had committed"
        if self._on_uncommitted == "warn":
            logger.warning("%s", message)
            return
        raise UncommittedChangesError(
            message,
            hint="ask for the unit of work (`unit: DBUnitOfWork`), which commits, or commit the"
            ' session; lifespan(on_uncommitted="warn") only logs it',
        )


def works_of(connection: HTTPConnection) -> dict[object, RequestWork]:
    """Return what a request has begun so far, by what was asked for."""
    scope = connection.scope
    stack = function_stack(scope)
    found = scope.get(_WORKS)
    # A request that is run again has another stack, and so has one that is made of a copy of its
    # scope: neither may use what the other has begun.
    if found is None or found[0] is not stack:
        found = scope[_WORKS] = (stack, {})
    works: dict[object, RequestWork] = found[1]
    return works


def begin_work(connection: HTTPConnection, work: RequestWork) -> Plan:
    """
    Let ``work`` end when the response is ready, or a WebSocket's handshake is answered.

    Returns:
        What the route of the request will ask for.
    """
    scope = connection.scope
    plan = plan_of(scope)
    name_work(scope, plan)
    function_stack(scope).push_async_exit(work.end_with)
    if scope["type"] == "websocket":
        _end_with_the_handshake(connection, work)
    return plan


def name_work(scope: Scope, plan: Plan) -> None:
    """Let the pool's messages name the route, which, unlike the path, tells nobody's secret."""
    if plan.path is not None:
        work_name.set(f"{scope.get('method', 'WEBSOCKET')} {plan.path}")


def _end_with_the_handshake(websocket: HTTPConnection, work: RequestWork) -> None:
    """
    End the work when the connection is accepted or refused.

    FastAPI ends a WebSocket's dependencies with the connection, which may last for days; a session
    that looked up the caller would hold its connection for as long.
    """
    assert isinstance(websocket, WebSocket)
    send = websocket.send

    async def send_afterwards(message: Message) -> None:
        await work.end()
        await send(message)

    websocket.send = send_afterwards  # type: ignore[method-assign]  # there is no hook for it
