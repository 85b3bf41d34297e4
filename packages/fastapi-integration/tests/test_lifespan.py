# ruff: noqa: B008 - the plain `Depends` line is what is tested here
"""An application starts with a database that is ready, and ends with one that is closed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.testclient import TestClient
from httpx import AsyncClient
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from moorage import (
    ConnectorNotFoundError,
    Database,
    DatabaseDisposedError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    MoorageError,
    SettingsError,
    get_database,
    get_engine,
    use_database,
)
from moorage_fastapi import DBReadSession, DBUnitOfWork, get_db_session, lifespan
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, create_tables

Serve = Callable[..., AsyncClient]
Inner = Callable[[FastAPI], Any]


def preparing(work: Callable[[], Awaitable[object]]) -> Inner:
    """Return the lifespan of an application that does some work while it starts."""

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[None]:
        await work()
        yield

    return inner


async def count(session: AsyncSession = Depends(get_db_session)) -> int:
    """Answer with the number of accounts."""
    return len((await session.scalars(select(Account))).all())


async def create(unit: DBUnitOfWork) -> None:
    """Add an account."""
    unit.session.add(Account(owner="bob"))


@pytest.fixture
def environment(fresh_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment describe the test's database."""
    for field, value in fresh_database.items():
        monkeypatch.setenv(f"DB_{field.upper()}", str(value))


def test_requests_use_the_database_of_the_lifespan(database: Database) -> None:
    """Under the TestClient, requests are served by the database that the lifespan was given."""
    inner = preparing(lambda: create_tables(database, "ada"))
    app = FastAPI(lifespan=lifespan(database, inner=inner))
    app.get("/")(count)
    app.post("/")(create)
    with TestClient(app) as client:
        assert client.post("/").status_code == 200
        assert client.get("/").json() == 2


def test_requests_use_the_database_of_the_environment(environment: None) -> None:
    """A lifespan without arguments serves the database that the environment describes."""
    inner = preparing(lambda: create_tables(get_database(), "ada"))
    app = FastAPI(lifespan=lifespan(inner=inner))
    app.get("/")(count)
    with TestClient(app) as client:
        assert client.get("/").json() == 1


def test_database_is_ready_before_the_application(database: Database) -> None:
    """The database was reached before the application's own start begins."""
    idle: list[int] = []

    async def look() -> None:
        idle.append(database.pool_statistics().idle)

    with TestClient(FastAPI(lifespan=lifespan(database, inner=preparing(look)))):
        assert idle == [1]


def test_database_that_comes_late_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application starts when the database answers, not before."""
    answers = iter([DatabaseUnavailableError("starting up"), None])
    asked: list[Exception | None] = []

    async def ping() -> None:
        asked.append(next(answers))
        if asked[-1] is not None:
            raise asked[-1]

    monkeypatch.setattr(database, "ping", ping)
    with TestClient(FastAPI(lifespan=lifespan(database))):
        assert len(asked) == 2


def test_unusable_database_stops_the_start(make_database: DatabaseFactory) -> None:
    """A database that waiting cannot help stops the start with its own error, and is disposed."""
    database = make_database(name="nowhere/app.db")
    with (
        pytest.raises(DatabaseMissingError, match="nowhere"),
        TestClient(FastAPI(lifespan=lifespan(database))),
    ):
        pytest.fail("the application has started")
    assert database.state == "disposed"


def test_start_without_asking_the_database(make_database: DatabaseFactory) -> None:
    """With ``ready_seconds=0`` an application starts without its database."""
    app = FastAPI(lifespan=lifespan(make_database(name="nowhere/app.db"), ready_seconds=0))

    @app.get("/alive")
    async def alive() -> bool:
        return True

    with TestClient(app) as client:
        assert client.get("/alive").json() is True


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("DB_TYPE", "nonsense", ConnectorNotFoundError),
        ("DB_PORT", "abc", SettingsError),
        ("DB_POOL_SIZE", "-1", SettingsError),
    ],
)
@pytest.mark.parametrize("ready_seconds", [0.0, 30.0])
def test_wrong_settings_stop_the_start(
    variable: str,
    value: str,
    error: type[MoorageError],
    ready_seconds: float,
    environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong variable stops the start, with the error that names it, though nobody waits."""
    monkeypatch.setenv(variable, value)
    with (
        pytest.raises(error, match=variable),
        TestClient(FastAPI(lifespan=lifespan(ready_seconds=ready_seconds))),
    ):
        pytest.fail("the application has started")


def test_database_is_disposed_at_the_end(database: Database) -> None:
    """At the end of the application its database has no connection and opens none."""
    app = FastAPI(lifespan=lifespan(database))
    engine = database.engine
    with TestClient(app):
        assert database.state != "disposed"
    assert database.state == "disposed"
    assert engine.pool.checkedin() == 0
    with pytest.raises(DatabaseDisposedError):
        database.session()


def test_disposed_database_does_not_start_again(database: Database) -> None:
    """An application that starts again needs a new ``Database``, and is told so at the start."""
    app = FastAPI(lifespan=lifespan(database))
    with TestClient(app):
        pass
    with pytest.raises(DatabaseDisposedError, match="make a new"), TestClient(app):
        pytest.fail("the application has started")


def test_process_begins_anew_after_the_end(environment: None) -> None:
    """After the application the process makes a new engine, and the application can start again."""
    engines: list[AsyncEngine] = []
    app = FastAPI(lifespan=lifespan())

    @app.get("/")
    async def ask(session: AsyncSession = Depends(get_db_session)) -> bool:
        engines.append(get_engine())
        await session.execute(select(1))
        return session.get_bind() is engines[-1].sync_engine

    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() is True
    first, second = engines
    assert len({first, second, get_engine()}) == 3
    assert first.pool.checkedin() == second.pool.checkedin() == 0


def test_inner_lifespan_runs_inside(database: Database) -> None:
    """The application's own lifespan ends before the database does, and its state is kept."""
    story: list[object] = []

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        story.append(app.title)
        yield {"greeting": "hello"}
        story.append(database.state == "disposed")

    app = FastAPI(title="library", lifespan=lifespan(database, inner=inner))

    @app.get("/")
    async def greet(request: Request, session: DBReadSession) -> str:
        await session.execute(select(1))
        greeting: str = request.state.greeting
        return greeting

    with TestClient(app) as client:
        assert client.get("/").json() == "hello"
        assert story == ["library"]
    assert story == ["library", False]
    assert database.state == "disposed"


@pytest.mark.parametrize("at_start", [True, False], ids=["start", "end"])
def test_inner_lifespan_that_fails(at_start: bool, database: Database) -> None:
    """The database is disposed, and the error is seen, if the application's own lifespan fails."""

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[None]:
        if at_start:
            raise LookupError("no mail server")
        yield
        raise LookupError("no mail server")

    app = FastAPI(lifespan=lifespan(database, inner=inner))
    with pytest.raises(LookupError, match="no mail server"), TestClient(app):
        assert not at_start
    assert database.state == "disposed"


def test_lifespan_inside_the_users_own(database: Database) -> None:
    """A lifespan of the user's may also run ours inside, and hand on what it yields."""

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with lifespan(database)(app) as state:
            yield {**state, "greeting": "hello"}

    app = FastAPI(lifespan=own)

    @app.get("/")
    async def greet(
        request: Request, session: AsyncSession = Depends(get_db_session)
    ) -> list[object]:
        return [request.state.greeting, session.get_bind() is database.engine.sync_engine]

    with TestClient(app) as client:
        assert client.get("/").json() == ["hello", True]


def test_mounted_applications_and_routers_share_the_database(database: Database) -> None:
    """Routers with a lifespan of their own and mounted applications use the database above them."""

    @asynccontextmanager
    async def of_router(app: object) -> AsyncIterator[dict[str, Any]]:
        yield {"greeting": "hello"}

    inner = preparing(lambda: create_tables(database, "ada"))
    app = FastAPI(lifespan=lifespan(database, inner=inner))
    router = APIRouter(prefix="/router", lifespan=of_router)
    inside, deep_inside = FastAPI(), FastAPI()
    router.get("/")(count)
    inside.get("/")(count)
    deep_inside.get("/")(count)
    app.include_router(router)
    inside.mount("/mount", deep_inside)
    app.mount("/mount", inside)
    with TestClient(app) as client:
        for path in ("/router/", "/mount/", "/mount/mount/"):
            assert client.get(path).json() == 1


def test_two_applications_do_not_mix(make_database: DatabaseFactory) -> None:
    """Two applications in one process, and the process itself, each keep to their own database."""
    ours, theirs, the_process = make_database(), make_database(), make_database()
    use_database(the_process)
    seen: list[object] = []

    async def look(session: AsyncSession = Depends(get_db_session)) -> None:
        seen.append(session.get_bind())

    apps = [FastAPI(lifespan=lifespan(database)) for database in (ours, theirs)]
    for app in apps:
        app.get("/")(look)
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        first.get("/")
        second.get("/")
        first.get("/")
        engines = [ours.engine.sync_engine, theirs.engine.sync_engine]
    assert seen == [engines[0], engines[1], engines[0]]
    assert the_process.state != "disposed"


async def test_first_request_starts_the_database(environment: None, serve: Serve) -> None:
    """Without a lifespan, as under ASGITransport, the database starts with the first request."""
    app = FastAPI(lifespan=lifespan())
    app.get("/")(count)
    client = serve(app)
    assert (await client.get("/")).status_code == 500
    await create_tables(get_database(), "ada")
    assert (await client.get("/")).json() == 1


async def test_chosen_database_serves_without_a_lifespan(accounts: Database, serve: Serve) -> None:
    """Without a lifespan, requests use what :func:`moorage.use_database` put in place."""
    app = FastAPI()
    app.get("/")(count)
    assert (await serve(app).get("/")).json() == 1


async def test_wrong_settings_without_a_lifespan_are_a_500(serve: Serve) -> None:
    """Without a lifespan, wrong settings fail the request that needs the database, and no other."""
    app = FastAPI()
    app.get("/")(count)

    @app.get("/alive")
    async def alive() -> bool:
        return True

    client = serve(app)
    assert (await client.get("/")).status_code == 500
    assert (await client.get("/alive")).json() is True


def test_end_waits_for_work_in_progress(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is in use when the application ends is waited for, then closed."""

    async def work(busy: asyncio.Event, leaving: asyncio.Event) -> None:
        async with database.session() as session:
            await session.execute(select(1))
            busy.set()
            await leaving.wait()
            await session.execute(select(1))

    @asynccontextmanager
    async def inner(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        busy, leaving = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(work(busy, leaving))
        await busy.wait()
        yield {"task": task}
        leaving.set()

    @asynccontextmanager
    async def outer(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        ours = lifespan(database, inner=inner, drain_seconds=60)
        async with ours(app) as state:
            yield state
        await state["task"]

    engine = database.engine
    with caplog.at_level(logging.WARNING, "moorage"), TestClient(FastAPI(lifespan=outer)):
        pass
    assert caplog.records == []
    assert engine.pool.checkedin() == 0


def test_a_check_stops_the_start(database: Database) -> None:
    """Checks get the database when it answers, in their order; what one raises stops the start."""
    story: list[object] = []

    async def first(checked: Database) -> None:
        story.append(checked.pool_statistics().idle)

    async def schema_is_at_head(checked: Database) -> None:
        story.append(checked)
        raise LookupError("the schema is at 1, the code is at 2")

    async def never() -> None:
        pytest.fail("the application has started")

    checks = [first, schema_is_at_head]
    app = FastAPI(lifespan=lifespan(database, checks=checks, inner=preparing(never)))
    with pytest.raises(LookupError, match="at 2"), TestClient(app):
        pytest.fail("the application has started")
    assert story == [1, database]
    assert database.state == "disposed"


@pytest.mark.parametrize(("wanted", "opened"), [(3, 3), (9, 5)])
def test_connections_are_warm_before_the_first_request(
    wanted: int, opened: int, make_database: DatabaseFactory
) -> None:
    """As many connections as were asked for are open at the start, or as many as there may be."""
    database = make_database(pool_size=4, max_overflow=1)
    idle: list[int] = []

    async def look() -> None:
        idle.append(database.pool_statistics().idle)

    app = FastAPI(lifespan=lifespan(database, warm_connections=wanted, inner=preparing(look)))
    with TestClient(app):
        assert idle == [opened]


def test_connections_that_cannot_be_had_stop_the_start(database: Database) -> None:
    """A database that gives fewer connections than shall be warm is seen at the start."""

    @event.listens_for(database.engine.sync_engine, "checkout")
    def refuse(*_: object) -> None:
        raise DatabaseUnavailableError("no connection is left")

    app = FastAPI(lifespan=lifespan(database, warm_connections=3, ready_seconds=0))
    with pytest.raises(DatabaseUnavailableError, match="is left"), TestClient(app):
        pytest.fail("the application has started")


async def test_a_lifespan_whose_state_nobody_hands_on(database: Database, serve: Serve) -> None:
    """Under ``app.router.lifespan_context`` and ASGITransport, requests use its database too."""
    inside = FastAPI()
    inside.get("/")(count)
    app = FastAPI(lifespan=lifespan(database, on_uncommitted="warn"))
    app.get("/")(count)
    app.mount("/mount", inside)

    @app.post("/")
    async def forget(session: AsyncSession = Depends(get_db_session)) -> None:
        session.add(Account(owner="bob"))

    client = serve(app)
    async with app.router.lifespan_context(app):
        await create_tables(database, "ada")
        assert (await client.get("/")).json() == 1
        assert (await client.get("/mount/")).json() == 1
        assert (await client.post("/")).status_code == 200
    assert (await client.get("/")).status_code == 500  # the process has settings that are nonsense


def test_a_client_that_runs_no_lifespan(accounts: Database) -> None:
    """A TestClient without ``with`` starts nothing; requests use the database of the process."""
    app = FastAPI(lifespan=lifespan())
    app.get("/")(count)
    assert TestClient(app).get("/").json() == 1


async def test_a_database_that_does_not_close_is_let_go(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of an application has a deadline, whatever a database does."""

    async def never(drain_seconds: float) -> None:
        await asyncio.Event().wait()

    app = FastAPI(lifespan=lifespan(database, ready_seconds=0, drain_seconds=0))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "moorage.fastapi"):
        patch.setattr(database, "dispose", never)
        patch.setattr(import_module("moorage_fastapi.lifespan"), "_CLOSE_SECONDS", 0.01)
        async with app.router.lifespan_context(app):
            pass
    assert "did not close in time" in caplog.text
    assert database.state == "disposed"
