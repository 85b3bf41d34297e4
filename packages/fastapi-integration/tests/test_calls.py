"""
How many functions of Python a request calls to have its session.

They are counted without a clock, as in ``tests/matrix/test_calls.py``, and come out the same on a
machine that is busy. What a session itself calls is counted there; here it is what is added by
asking for it, which everybody's dependency is measured with too.
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.types import Message

from moorage import Database, UnitOfWork
from moorage_fastapi import DBReadSession, DBUnitOfWork
from tests.matrix.schema import Account
from tests.matrix.test_calls import calls, nobody_listens  # noqa: F401 (a fixture)

Handler = Callable[..., Any]


async def calls_of_request(handler: Handler) -> int:
    """Return the calls of a request that a handler answers, and nobody's client."""
    app = FastAPI()
    app.get("/")(handler)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200

    async def request() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await app(scope, receive, send)

    return await calls(request)


async def read(session: AsyncSession) -> None:
    """Read a row by its key."""
    await session.get_one(Account, 1)


async def change(session: AsyncSession) -> None:
    """Read a row and change it."""
    account = await session.get_one(Account, 1)
    account.balance += 1


async def nothing() -> None:
    """Give nothing, as a dependency that costs no more than it must."""


def of_ours(kind: str) -> Handler:
    """Return a handler that asks for a session as the documentation says."""

    async def reads(session: DBReadSession) -> None:
        await read(session)

    async def changes(unit: DBUnitOfWork) -> None:
        await change(unit.session)

    return reads if kind == "read" else changes


def of_ours_by_way_of_another(kind: str) -> Handler:
    """Return a handler that asks for one dependency more."""

    async def session_of_repository(session: DBReadSession) -> AsyncSession:
        return session

    async def unit_of_repository(unit: DBUnitOfWork) -> UnitOfWork:
        return unit

    async def reads(session: Annotated[AsyncSession, Depends(session_of_repository)]) -> None:
        await read(session)

    async def changes(unit: Annotated[UnitOfWork, Depends(unit_of_repository)]) -> None:
        await change(unit.session)

    return reads if kind == "read" else changes


def by_hand(kind: str, database: Database) -> Handler:
    """Return a handler that opens the same session itself, and asks for a thing that is free."""

    async def reads(_: Annotated[None, Depends(nothing)]) -> None:
        async with database.read_session() as session:
            await read(session)

    async def changes(_: Annotated[None, Depends(nothing)]) -> None:
        async with database.unit_of_work() as session:
            await change(session)

    return reads if kind == "read" else changes


def of_everybodys(kind: str, sessions: async_sessionmaker[AsyncSession]) -> Handler:
    """Return a handler that asks for a session as FastAPI's documentation says."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    async def reads(session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        await read(session)

    async def changes(session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        await change(session)
        await session.commit()

    return reads if kind == "read" else changes


@pytest.mark.parametrize(("kind", "most"), [("read", 40), ("change", 48)])
async def test_asking_for_a_session_costs_little(accounts: Database, kind: str, most: int) -> None:
    """A request that asks for its session calls little more than one that opens it by hand."""
    least = await calls_of_request(by_hand(kind, accounts))
    assert await calls_of_request(of_ours(kind)) - least <= most
    assert await calls_of_request(of_ours_by_way_of_another(kind)) - least > most


@pytest.mark.parametrize("kind", ["read", "change"])
async def test_a_request_calls_less_than_everybodys(accounts: Database, kind: str) -> None:
    """A request with its guarantees calls less than one with everybody's dependency."""
    engine = create_async_engine(accounts.connector.get_url(), pool_pre_ping=True)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    try:
        usual = await calls_of_request(of_everybodys(kind, sessions))
    finally:
        await engine.dispose()
    assert await calls_of_request(of_ours(kind)) < usual
