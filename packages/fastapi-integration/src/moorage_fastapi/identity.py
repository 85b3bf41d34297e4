"""
The request's session on behalf of the person who asks.

Who that is says a callable of the application, a dependency like any other, which has verified a
token. Nothing here looks into tokens, and no backend is named: a database that cannot work on
somebody's behalf says so itself.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from moorage import Admin, Identity, UnitOfWork, bind_identity
from moorage_fastapi.dependencies import DBSession, DBUnitOfWork
from moorage_fastapi.lifespan import served_by
from moorage_fastapi.request_work import RequestWork, begin_work, works_of

__all__ = ["Identify", "read_session_as", "session_as", "unit_of_work_as"]

Identify = Callable[..., Any]
"""
A dependency that returns whom the request is from, verified: an ``Identity``, or claims.

Claims are a mapping with the ``role`` among them, as those of a token. It may be a coroutine
function, take dependencies of its own, and raise ``HTTPException(401)``.
"""


def session_as(identify: Identify) -> Callable[..., Any]:
    """
    Return a dependency: the request's session, on behalf of whom ``identify`` names.

    ``UserSession = Annotated[AsyncSession, Depends(session_as(current_user))]``. It is the session
    of :func:`get_db_session`; what used that before the identity was known is refused.
    """

    async def get_session_as(
        session: DBSession, identity: Annotated[Any, Depends(identify)]
    ) -> AsyncSession:
        bind_identity(session, _identity(identity))
        return session

    return get_session_as


def unit_of_work_as(identify: Identify) -> Callable[..., Any]:
    """
    Return a dependency: the request's unit of work, on behalf of whom ``identify`` names.

    ``UserUnit = Annotated[UnitOfWork, Depends(unit_of_work_as(current_user))]``. It is the unit of
    :func:`get_unit_of_work`, and commits like it. A unit with options says something at the
    beginning, before the identity is known: open that by ``database.unit_of_work(identity=…, …)``.
    """

    async def get_unit_as(
        unit: DBUnitOfWork, identity: Annotated[Any, Depends(identify)]
    ) -> UnitOfWork:
        bind_identity(unit.session, _identity(identity))
        return unit

    return get_unit_as


def read_session_as(identify: Identify) -> Callable[..., Any]:
    """
    Return a dependency: a session that only reads, on behalf of whom ``identify`` names.

    ``UserReadSession = Annotated[AsyncSession, Depends(read_session_as(current_user))]``. It ends
    as early as the session of :func:`get_db_session`.
    """

    async def get_read_session_as(
        connection: HTTPConnection, identity: Annotated[Any, Depends(identify)]
    ) -> AsyncSession:
        works = works_of(connection)
        work = works.get(get_read_session_as)
        if work is None:
            database = served_by(connection).get(None)
            sessions = partial(database.read_session, identity=_identity(identity))
            works[get_read_session_as] = work = RequestWork(sessions)
            begin_work(connection, work)
        return work.session

    return get_read_session_as


def _identity(found: object) -> Identity | Admin:
    if isinstance(found, Mapping):
        return Identity.from_claims(found)
    if isinstance(found, Identity | Admin):
        return found
    raise TypeError(
        f"whoever is asked for the identity returned {type(found).__name__}: return an Identity, or"
        " claims that were verified"
    )
