"""An application's client, the order in which things happened, and proof that nothing is left."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, field_serializer
from sqlalchemy import event
from sqlalchemy.pool import Pool
from starlette.types import Message, Receive, Scope, Send

from moorage import Database, dispose_engine, use_database
from tests.matrix.schema import create_tables

with warnings.catch_warnings():
    # Said once, at the first import: newer Starlette would rather have httpx2, which older ones do
    # not know.
    warnings.simplefilter("ignore")
    import starlette.testclient  # noqa: F401


@pytest.fixture(autouse=True)
def nothing_checked_out() -> Iterator[None]:
    """After each test no connection of any pool may be out, disposed or not, ours or not."""
    out: set[object] = set()

    def leave(connection: object, record: object, proxy: object) -> None:
        out.add(record)

    def come_back(connection: object, record: object) -> None:
        out.discard(record)

    event.listen(Pool, "checkout", leave)
    event.listen(Pool, "checkin", come_back)
    yield
    event.remove(Pool, "checkout", leave)
    event.remove(Pool, "checkin", come_back)
    assert not out, f"{len(out)} connection(s) still checked out"


@pytest.fixture(autouse=True)
async def own_process(
    nothing_checked_out: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[None]:
    """Each test has a process-wide database of its own, and settings that begin as nonsense."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_TYPE", "nonsense")
    before = asyncio.all_tasks()
    yield
    await dispose_engine(drain_seconds=0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"still running: {left}"


@pytest.fixture
async def accounts(own_process: None, database: Database) -> Database:
    """Return the database of the process, in which there is one account, Ada's."""
    await create_tables(database, "ada")
    use_database(database)
    return database


@pytest.fixture
def story(accounts: Database) -> list[str]:
    """Return the list of what happens from now on; clients and replies write into it too."""
    events: list[str] = []
    engine = accounts.engine.sync_engine
    event.listen(engine, "commit", lambda connection: events.append("commit"))
    event.listen(engine, "checkin", lambda connection, record: events.append("closed"))
    return events


@pytest.fixture
def reply(story: list[str]) -> type[BaseModel]:
    """Return a response model that tells when it is serialised."""

    class Reply(BaseModel):
        text: str = "done"

        @field_serializer("text")
        def tell(self, text: str) -> str:
            story.append("serialised")
            return text

    return Reply


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., AsyncClient]]:
    """
    Return a function that makes a client of an application, whose lifespan does not run.

    What fails in the application is a 500, as behind a real server. If a story is given, the
    beginning of each response is told in it.
    """
    async with AsyncExitStack() as stack:

        def make(app: FastAPI, story: list[str] | None = None) -> AsyncClient:
            async def told(scope: Scope, receive: Receive, send: Send) -> None:
                async def tell(message: Message) -> None:
                    if story is not None and message["type"] == "http.response.start":
                        story.append(f"sent {message['status']}")
                    await send(message)

                await app(scope, receive, tell)

            transport: Any = ASGITransport(app=told, raise_app_exceptions=False)
            client = AsyncClient(transport=transport, base_url="http://test")
            stack.push_async_callback(client.aclose)
            return client

        yield make
