"""What lives longer than the handler: streams, generator endpoints, WebSockets, background work."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from moorage import Database, LifecycleError, UnitOfWorkError
from moorage_fastapi import (
    AppDatabase,
    DBBackground,
    DBReadSession,
    DBSession,
    DBStreamSession,
    DBUnitOfWork,
    lifespan,
)
from tests.matrix.schema import Account, count_accounts, create_tables

Serve = Callable[..., AsyncClient]

try:
    from fastapi.sse import EventSourceResponse
except ImportError:  # FastAPI before 0.135 has no endpoints that yield
    EventSourceResponse = None

yielding = pytest.mark.skipif(EventSourceResponse is None, reason="needs endpoints that yield")


async def call(app: FastAPI, path: str, disconnect: asyncio.Event) -> list[Message]:
    """Send a GET as a server does, whose client goes away at some moment; return the answer."""
    sent: list[Message] = []
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await disconnect.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent


async def test_a_stream_session_lives_as_long_as_the_response(
    accounts: Database, serve: Serve
) -> None:
    """A stream reads by its session to the end, and background tasks run without its connection."""
    app = FastAPI()
    in_use: list[int] = []
    kept: list[AsyncSession] = []

    @app.get("/")
    async def export(session: DBStreamSession, tasks: BackgroundTasks) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            async for owner in await session.stream_scalars(select(Account.owner)):
                in_use.append(accounts.pool_statistics().in_use)
                yield owner

        async def later() -> None:
            in_use.append(accounts.pool_statistics().in_use)

        kept.append(session)
        tasks.add_task(later)
        return StreamingResponse(rows())

    assert (await serve(app).get("/")).text == "ada"
    assert in_use == [1, 0]
    with pytest.raises(UnitOfWorkError, match="the response of this session was sent") as caught:
        await kept[0].execute(select(1))
    assert "background: DBBackground" in caught.value.hint


@yielding
@pytest.mark.parametrize("kind", ["lines", "events"])
async def test_an_endpoint_that_yields(kind: str, accounts: Database, serve: Serve) -> None:
    """JSON lines and server-sent events read by the session of the stream."""
    app = FastAPI()
    options: Any = {} if kind == "lines" else {"response_class": EventSourceResponse}

    @app.get("/", **options)
    async def feed(session: DBStreamSession) -> AsyncIterable[str]:
        async for owner in await session.stream_scalars(select(Account.owner)):
            yield owner

    response = await serve(app).get("/")
    assert response.status_code == 200
    assert '"ada"' in response.text
    assert accounts.pool_statistics().in_use == 0


@pytest.mark.parametrize("waits", [True, False], ids=["in a wait", "between two rows"])
async def test_a_client_that_goes_away_ends_the_stream(waits: bool, accounts: Database) -> None:
    """A stream whose client is gone is cancelled, and its connection is free at once."""
    app = FastAPI()
    gone = asyncio.Event()
    ended: list[str] = []

    @app.get("/")
    async def endless(session: DBStreamSession) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            try:
                while True:
                    yield str(await session.scalar(select(Account.owner)))
                    gone.set()
                    await (asyncio.Event().wait() if waits else asyncio.sleep(0))
            finally:
                ended.append("rows")

        return StreamingResponse(rows())

    async with asyncio.timeout(20):
        await call(app, "/", gone)
    assert ended == ["rows"]
    assert accounts.pool_statistics().in_use == 0


async def test_a_stream_without_the_database_holds_nothing(
    accounts: Database, serve: Serve
) -> None:
    """A session of a stream that is never used takes no connection."""
    app = FastAPI()

    @app.get("/")
    async def idle(session: DBStreamSession) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            yield str(accounts.pool_statistics().in_use)

        return StreamingResponse(rows())

    assert (await serve(app).get("/")).text == "0"


def generator_endpoint(app: FastAPI) -> None:
    """Yield from the session of the request."""

    @app.get("/")
    async def feed(session: DBSession) -> Any:
        yield str(await session.scalar(select(1)))


def generator_endpoint_reading(app: FastAPI) -> None:
    """Yield from the read session of the request."""

    @app.get("/")
    def feed(session: DBReadSession) -> Any:
        yield "nothing"


def websocket(app: FastAPI) -> None:
    """Use the session of the request in a WebSocket's loop."""

    @app.websocket("/")
    async def feed(websocket: WebSocket, unit: DBUnitOfWork) -> None: ...


HELPERS = {
    generator_endpoint: "session: DBStreamSession",
    generator_endpoint_reading: "session: DBStreamSession",
    websocket: "database: AppDatabase",
}


@pytest.mark.parametrize("place", ["app", "router", "mount"])
@pytest.mark.parametrize("add", HELPERS, ids=lambda add: add.__name__)
def test_what_cannot_work_stops_the_start(add: Callable[[FastAPI], None], place: str) -> None:
    """A route that would use the session too late stops the start, wherever it is registered."""
    app = FastAPI(lifespan=lifespan())
    inside = app if place == "app" else FastAPI()
    add(inside)
    if place == "router":
        app.include_router(inside.router, prefix="/inside")
    elif place == "mount":
        app.mount("/inside", inside)
    with pytest.raises(LifecycleError, match=r"feed\(\)") as caught, TestClient(app):
        pytest.fail("the application has started")
    assert HELPERS[add] in caught.value.hint


@pytest.mark.parametrize("add", [generator_endpoint, generator_endpoint_reading])
async def test_what_cannot_work_is_refused_at_first_use(
    add: Callable[[FastAPI], None], accounts: Database, serve: Serve
) -> None:
    """Without a lifespan the first request is told so, before a response begins."""
    app = FastAPI()
    add(app)
    assert (await serve(app).get("/")).status_code == 500


def test_a_session_in_a_loop_of_a_websocket(database: Database) -> None:
    """A caller may be looked up by the request's session, which ends with the handshake."""

    async def caller(session: DBSession) -> str:
        kept.append(session)
        return str(await session.scalar(select(Account.owner)))

    async def prepare(database: Database) -> None:
        await create_tables(database, "ada")

    kept: list[AsyncSession] = []
    in_use: list[int] = []
    hints: list[str] = []
    app = FastAPI(lifespan=lifespan(database, checks=[prepare]))

    @app.websocket("/")
    async def chat(
        websocket: WebSocket, database: AppDatabase, owner: str = Depends(caller)
    ) -> None:
        in_use.append(database.pool_statistics().in_use)
        await websocket.accept()
        in_use.append(database.pool_statistics().in_use)
        try:
            await kept[0].execute(select(1))
        except UnitOfWorkError as error:
            hints.append(error.hint)
        async with database.unit_of_work() as session:
            session.add(Account(owner=await websocket.receive_text()))
        await websocket.send_text(f"{owner}, {await count_accounts(database)}")

    with TestClient(app) as client, client.websocket_connect("/") as connection:
        connection.send_text("bob")
        assert connection.receive_text() == "ada, 2"
    assert in_use == [1, 0]
    assert "database: AppDatabase" in hints[0]


def test_a_websocket_that_nobody_accepts(database: Database) -> None:
    """A unit that was begun for a handshake which is refused by an exception rolls back."""

    async def note(unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="bob"))
        await unit.session.flush()

    async def prepare(database: Database) -> None:
        await create_tables(database)

    app = FastAPI(lifespan=lifespan(database, checks=[prepare]))

    @app.websocket("/")
    async def chat(websocket: WebSocket, noted: None = Depends(note)) -> None:
        raise LookupError("who are you?")

    @app.get("/")
    async def count(database: AppDatabase) -> int:
        return await count_accounts(database)

    with TestClient(app) as client:
        with pytest.raises(LookupError), client.websocket_connect("/"):
            pytest.fail("accepted")
        assert client.get("/").json() == 0


async def create(session: AsyncSession, owner: str, *, balance: int = 0) -> None:
    """Create an account in the background."""
    session.add(Account(owner=owner, balance=balance))


async def test_background_work_has_a_unit_of_its_own(
    accounts: Database, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Each piece is committed by itself; what fails is logged, and the next one runs."""
    app = FastAPI()

    @app.post("/")
    async def register(unit: DBUnitOfWork, background: DBBackground) -> None:
        unit.session.add(Account(owner="bob"))
        background.add(create, "carl", balance=3)
        background.add(create, "ada")  # is there already
        background.add_rerun(create, "dora")

    with caplog.at_level(logging.ERROR, logger="moorage.fastapi"):
        assert (await serve(app).post("/")).status_code == 200
    assert "create() failed in the background" in caplog.text
    async with accounts.session() as session:
        owners = (await session.scalars(select(Account.owner).order_by(Account.owner))).all()
    assert owners == ["ada", "bob", "carl", "dora"]


async def test_no_background_work_behind_a_failed_commit(accounts: Database, serve: Serve) -> None:
    """What was to happen afterwards does not happen if the request's commit fails."""
    app = FastAPI()

    @app.post("/")
    async def register(unit: DBUnitOfWork, background: DBBackground) -> None:
        unit.session.add(Account(owner="ada"))
        background.add(create, "carl")

    assert (await serve(app).post("/")).status_code == 500
    assert await count_accounts(accounts) == 1
