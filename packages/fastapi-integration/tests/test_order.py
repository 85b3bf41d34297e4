# ruff: noqa: B008 - the plain `Depends` line is what is tested here
"""A session ends after its response was serialised and before it is sent, wherever it is used."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Security
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database
from moorage_fastapi import DBSession, get_db_session, get_read_session

Serve = Callable[..., AsyncClient]
Reply = type[BaseModel]


async def answer(session: AsyncSession = Depends(get_db_session)) -> Any:
    """Answer from the database."""
    await session.execute(select(1))
    return {}


async def answer_later(session: AsyncSession = Depends(get_db_session, scope="request")) -> Any:
    """Answer from the database, in FastAPI's words for the late end."""
    await session.execute(select(1))
    return {}


async def answer_early(session: AsyncSession = Depends(get_db_session, scope="function")) -> Any:
    """Answer from the database, in FastAPI's words for the early end."""
    await session.execute(select(1))
    return {}


async def answer_uncached(session: AsyncSession = Depends(get_db_session, use_cache=False)) -> Any:
    """Answer from the database, without FastAPI's cache."""
    await session.execute(select(1))
    return {}


async def answer_secured(session: AsyncSession = Security(get_db_session, scopes=["me"])) -> Any:
    """Answer from the database, by way of a security scope."""
    await session.execute(select(1))
    return {}


async def answer_annotated(session: DBSession) -> Any:
    """Answer from the database, with the alias."""
    await session.execute(select(1))
    return {}


async def answer_read(session: AsyncSession = Depends(get_read_session)) -> Any:
    """Answer from a session that only reads."""
    await session.execute(select(1))
    return {}


async def touch(session: AsyncSession = Depends(get_db_session)) -> None:
    """Use the database, as a check of the caller does."""
    await session.execute(select(1))


async def answer_alone() -> Any:
    """Answer without the database."""
    return {}


def on_app(app: FastAPI, reply: Reply) -> None:
    """Put the route on the application."""
    app.get("/", response_model=reply)(answer)


def on_router(app: FastAPI, reply: Reply) -> None:
    """Put the route on a router."""
    router = APIRouter()
    router.get("/", response_model=reply)(answer)
    app.include_router(router)


def on_nested_router(app: FastAPI, reply: Reply) -> None:
    """Put the route on a router of a router."""
    inner, outer = APIRouter(), APIRouter()
    inner.get("/", response_model=reply)(answer)
    outer.include_router(inner)
    app.include_router(outer)


def by_router(app: FastAPI, reply: Reply) -> None:
    """Use the session only in a dependency of the router."""
    router = APIRouter(dependencies=[Depends(touch)])
    router.get("/", response_model=reply)(answer_alone)
    app.include_router(router)


def by_inclusion(app: FastAPI, reply: Reply) -> None:
    """Use the session only in a dependency that is given when the router is included."""
    router = APIRouter()
    router.get("/", response_model=reply)(answer_alone)
    app.include_router(router, dependencies=[Depends(touch)])


def by_router_and_route(app: FastAPI, reply: Reply) -> None:
    """Use the session in a dependency of the router and in the route."""
    router = APIRouter(dependencies=[Depends(touch), Depends(get_db_session)])
    router.get("/", response_model=reply)(answer)
    app.include_router(router)


def on_mounted_app(app: FastAPI, reply: Reply) -> None:
    """Put the route on an application inside the application."""
    inside = FastAPI()
    inside.get("/", response_model=reply)(answer)
    app.mount("/", inside)


def with_endpoint(endpoint: Callable[..., Any]) -> Callable[[FastAPI, Reply], None]:
    """Put a route that asks in another way on the application."""

    def place(app: FastAPI, reply: Reply) -> None:
        app.get("/", response_model=reply)(endpoint)

    place.__name__ = endpoint.__name__
    return place


@pytest.mark.parametrize(
    "place",
    [
        on_app,
        on_router,
        on_nested_router,
        by_router,
        by_inclusion,
        by_router_and_route,
        on_mounted_app,
        with_endpoint(answer_later),
        with_endpoint(answer_early),
        with_endpoint(answer_uncached),
        with_endpoint(answer_secured),
        with_endpoint(answer_annotated),
        with_endpoint(answer_read),
    ],
    ids=lambda place: place.__name__,
)
async def test_session_ends_before_the_response(
    place: Callable[[FastAPI, Reply], None], reply: Reply, story: list[str], serve: Serve
) -> None:
    """The response is serialised, then the connection is returned, then the response is sent."""
    app = FastAPI()
    place(app, reply)
    response = await serve(app, story).get("/")
    assert response.json() == {"text": "done"}
    assert story == ["serialised", "closed", "sent 200"]


async def test_usual_dependency_ends_after_the_response(
    reply: Reply, story: list[str], accounts: Database, serve: Serve
) -> None:
    """The dependency that everybody writes keeps its connection until the response is sent."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with accounts.sessionmaker() as session:
            yield session

    app = FastAPI()

    @app.get("/", response_model=reply)
    async def usual(session: AsyncSession = Depends(get_session)) -> Any:
        await session.execute(select(1))
        return {}

    await serve(app, story).get("/")
    assert story == ["serialised", "sent 200", "closed"]


@pytest.mark.parametrize("ours", [True, False], ids=["moorage", "usual"])
async def test_stream_holds_no_connection(ours: bool, accounts: Database, serve: Serve) -> None:
    """A stream is produced while no connection is out; by the usual dependency one is."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with accounts.sessionmaker() as session:
            yield session

    app = FastAPI()
    in_use: list[int] = []

    @app.get("/")
    async def stream(
        session: AsyncSession = Depends(get_db_session if ours else get_session),
    ) -> StreamingResponse:
        await session.execute(select(1))
        in_use.append(accounts.pool_statistics().in_use)

        async def body() -> AsyncIterator[bytes]:
            for _ in range(2):
                in_use.append(accounts.pool_statistics().in_use)
                yield b"x"

        return StreamingResponse(body())

    response = await serve(app).get("/")
    assert response.content == b"xx"
    assert in_use == ([1, 0, 0] if ours else [1, 1, 1])


async def test_background_task_runs_after_the_end(
    reply: Reply, story: list[str], serve: Serve
) -> None:
    """A background task begins when connection and response are gone."""
    app = FastAPI()

    @app.get("/", response_model=reply)
    async def work(tasks: BackgroundTasks, session: AsyncSession = Depends(get_db_session)) -> Any:
        await session.execute(select(1))
        tasks.add_task(story.append, "task")
        return {}

    await serve(app, story).get("/")
    assert story == ["serialised", "closed", "sent 200", "task"]
