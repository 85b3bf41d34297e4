"""
The example service, with what real services have besides: slow streams, handlers that forget
everything they can forget, a middleware that gives up with its client, and, to compare, the
dependency that everybody writes.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, BackgroundTasks, Depends
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lending_library.app import app
from lending_library.models import Author
from moorage import get_sessionmaker
from moorage_fastapi import AppDatabase, DBReadSession, DBSession, DBStreamSession, DBUnitOfWork

CHUNK = "x" * 65_536

router = APIRouter(prefix="/load", include_in_schema=False)
streams: set[object] = set()
holding: set[object] = set()
kept: list[object] = []


class GivesUp:
    """Cancel a request whose client is gone, at whatever it awaits, as some middlewares do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages: asyncio.Queue[Message] = asyncio.Queue()
        async with anyio.create_task_group() as group:

            async def pump() -> None:
                while (message := await receive())["type"] != "http.disconnect":
                    messages.put_nowait(message)
                group.cancel_scope.cancel()

            group.start_soon(pump)
            await self.app(scope, messages.get, send)
            group.cancel_scope.cancel()


app.add_middleware(GivesUp)


@router.get("/state")
async def state(database: AppDatabase) -> dict[str, int]:
    """Say what this worker holds, once the collector has seen what was forgotten."""
    gc.collect()
    pool = database.pool_statistics()
    return {
        "pid": os.getpid(),
        "in_use": pool.in_use,
        "waiting": pool.waiting,
        "streams": len(streams),
        "holding": len(holding),
    }


async def until_nobody_listens() -> AsyncIterator[str]:
    """Yield more than any buffer holds, until the client is gone."""
    me = object()
    streams.add(me)
    try:
        while True:
            yield CHUNK
            await asyncio.sleep(0)  # what is sent to a client that is gone is waited for by nobody
    finally:
        streams.discard(me)


@router.get("/stream")
async def stream(session: DBSession) -> StreamingResponse:
    """Stream for a client that hardly reads, behind a look into the database."""
    await session.execute(select(Author).limit(1))
    return StreamingResponse(until_nobody_listens())


@router.get("/export")
async def export(session: DBStreamSession) -> StreamingResponse:
    """Stream from the database."""

    async def rows() -> AsyncIterator[str]:
        async for name in await session.stream_scalars(select(Author.name)):
            yield f"{name}\n"

    return StreamingResponse(rows())


@router.get("/hold")
async def hold(session: DBReadSession) -> None:
    """Hold a connection until the client is gone, as a call of a service that does not answer."""
    await session.execute(select(Author).limit(1))
    me = object()
    holding.add(me)
    try:
        await asyncio.Event().wait()
    finally:
        holding.discard(me)


# ---- what can be forgotten; each returns the name that it claims to have stored -----------------


@router.post("/forget/commit")
async def forget_to_commit(name: str, session: DBSession) -> str:
    """Add, and ask for no unit."""
    session.add(Author(name=name))
    return name


@router.post("/forget/commit-behind-flush")
async def forget_to_commit_behind_flush(name: str, session: DBSession) -> str:
    """Flush, and ask for no unit."""
    session.add(Author(name=name))
    await session.flush()
    return name


@router.post("/forget/second-commit")
async def forget_the_second_commit(name: str, session: DBSession) -> str:
    """Commit something else, and not this."""
    session.add(Author(name=f"{name} junior"))
    await session.commit()
    session.add(Author(name=name))
    return name


@router.post("/forget/error")
async def forget_an_error(name: str, unit: DBUnitOfWork) -> str:
    """Swallow what has ended the transaction, and go on."""
    with suppress(Exception):
        await unit.session.execute(text("INSERT INTO authors (nothing) VALUES (1)"))
    unit.session.add(Author(name=name))
    return name


@router.post("/forget/conflict")
async def forget_a_conflict(name: str, unit: DBUnitOfWork) -> str:
    """Swallow a violation of a constraint, and go on."""
    unit.session.add(Author(name=name))
    with suppress(IntegrityError):
        await unit.session.flush()
        unit.session.add(Author(name=name))
        await unit.session.flush()
    return name


@router.post("/forget/session")
async def forget_a_session(name: str, unit: DBUnitOfWork) -> str:
    """Make another session by hand, read, and never close it."""
    other = get_sessionmaker()()
    await other.execute(select(Author).limit(1))
    unit.session.add(Author(name=name))
    return name


@router.post("/forget/the-end")
async def keep_the_session(name: str, unit: DBUnitOfWork) -> str:
    """Keep session, connection and result for ever."""
    unit.session.add(Author(name=name))
    result = await unit.session.stream_scalars(select(Author.name))
    kept.extend([unit.session, await unit.session.connection(), result, await result.first()])
    return name


@router.post("/forget/later")
async def use_it_later(name: str, unit: DBUnitOfWork, tasks: BackgroundTasks) -> str:
    """Use the session in the background, where it has ended."""

    async def later() -> None:
        session.add(Author(name=f"{name} later"))
        await session.flush()

    session = unit.session
    session.add(Author(name=name))
    tasks.add_task(later)
    return name


# ---- the dependency that everybody writes ------------------------------------------------------


async def usual_session() -> AsyncIterator[AsyncSession]:
    """Commit behind the handler: since FastAPI 0.118 that is behind the response."""
    async with get_sessionmaker()() as session:
        yield session
        await session.commit()


Usual = Annotated[AsyncSession, Depends(usual_session)]


@router.post("/usual/conflict")
async def usual_conflict(name: str, session: Usual) -> str:
    """Store a name twice, which the commit finds out."""
    session.add_all([Author(name=name), Author(name=name)])
    return name


@router.get("/usual/stream")
async def usual_stream(session: Usual) -> Any:
    """Stream as above."""
    await session.execute(select(Author).limit(1))
    return StreamingResponse(until_nobody_listens())


app.include_router(router)
