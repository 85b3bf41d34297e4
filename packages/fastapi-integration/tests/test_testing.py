"""What tests of applications use: another database, requests that are undone, counted queries."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx import AsyncClient
from sqlalchemy import select

from moorage import Database, DatabaseSettings, LifecycleError, UniqueViolationError, UnitOfWork
from moorage.testing import RolledBackDatabase, assert_queries
from moorage_fastapi import (
    AppDatabase,
    DBBackground,
    DBReadSession,
    DBSession,
    DBUnitOfWork,
    add_problem_handlers,
    dependencies_for,
    lifespan,
    unit_of_work,
)
from moorage_fastapi.testing import isolated_client, override_database, override_settings
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables

inside = FastAPI()


@inside.get("/accounts")
async def list_accounts(session: DBReadSession) -> list[str]:
    """List all owners."""
    return list(await session.scalars(select(Account.owner).order_by(Account.owner)))


def application() -> FastAPI:
    """Return an application that uses everything there is."""
    app = FastAPI()
    add_problem_handlers(app)
    app.mount("/inside", inside)
    app.get("/accounts")(list_accounts)

    @app.post("/accounts/{owner}")
    async def create(owner: str, unit: DBUnitOfWork, background: DBBackground) -> None:
        unit.session.add(Account(owner=owner))
        await unit.session.flush()
        background.add(remember, f"{owner}'s friend")

    @app.put("/accounts/{owner}")
    async def put(owner: str, session: DBSession, commit: bool) -> None:
        session.add(Account(owner=owner))
        await session.flush()
        if commit:
            await session.commit()

    @app.get("/accounts/{key}")
    async def get(key: int, session: DBSession) -> str:
        return (await session.get_one(Account, key)).owner

    return app


async def remember(session: object, owner: str) -> None:
    """Store another account in the background."""
    session.add(Account(owner=owner))  # type: ignore[attr-defined]


@pytest.fixture
async def client(accounts: Database) -> AsyncIterator[AsyncClient]:
    """Return a client whose commits are undone."""
    async with isolated_client(application()) as client:
        yield client


async def test_commits_are_undone(accounts: Database) -> None:
    """Later requests see what earlier ones have committed, and behind the block nobody does."""
    for _ in range(2):
        async with isolated_client(application()) as client:
            assert (await client.post("/accounts/bob")).status_code == 200
            owners = ["ada", "bob", "bob's friend"]
            assert (await client.get("/accounts")).json() == owners
            assert (await client.get("/inside/accounts")).json() == owners
            assert (await client.post("/accounts/bob")).status_code == 409
            assert (await client.get("/accounts")).json() == owners
        assert await count_accounts(accounts) == 1
    assert accounts.pool_statistics().in_use == 0


async def test_what_is_not_committed_is_lost_here_too(client: AsyncClient) -> None:
    """A rollback undoes one request, and a session that nobody commits is an error as usual."""
    assert (await client.put("/accounts/bob", params={"commit": True})).status_code == 200
    assert (await client.put("/accounts/carl", params={"commit": False})).status_code == 500
    assert (await client.get("/accounts/1")).json() == "ada"  # reads behind another one's writes
    assert (await client.get("/accounts")).json() == ["ada", "bob"]


async def test_requests_at_once_are_served_in_turn(client: AsyncClient) -> None:
    """Requests that a test sends at once do not mix on the one connection."""
    names = [f"name {n}" for n in range(8)]
    answers = await asyncio.gather(*(client.post(f"/accounts/{name}") for name in names))
    assert {answer.status_code for answer in answers} == {200}
    assert len((await client.get("/accounts")).json()) == 17


async def test_units_with_options_work(accounts: Database) -> None:
    """A unit that asks for an isolation level runs in the test's own; two at once take turns."""
    app = FastAPI()

    @app.get("/", dependencies=[Depends(unit_of_work(isolation_level="SERIALIZABLE"))])
    async def read(session: DBSession) -> int:
        return len((await session.scalars(select(Account))).all())

    @app.get("/twice")
    async def twice(database: AppDatabase, session: DBSession) -> None:
        await session.scalars(select(Account))
        async with database.unit_of_work() as other:
            await other.scalars(select(Account))

    async with isolated_client(app) as client:
        assert (await client.get("/")).json() == 1
        with pytest.raises(LifecycleError, match="would wait for the session of"):
            await client.get("/twice")
        assert (await client.get("/")).json() == 1


async def test_the_synchronous_client_is_refused(accounts: Database) -> None:
    """The TestClient runs elsewhere, and is told which client does not."""
    app = FastAPI()
    app.get("/accounts")(list_accounts)
    async with isolated_client(app):

        def ask() -> None:
            TestClient(app).get("/accounts")

        with pytest.raises(LifecycleError, match="TestClient") as caught:
            await asyncio.to_thread(ask)
    assert "isolated_client(app)" in caught.value.hint


async def test_failures_reach_the_test(accounts: Database) -> None:
    """What nobody handles fails the test, unless it shall be a 500."""
    app = FastAPI()

    @app.post("/")
    async def create(unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="ada"))

    async with isolated_client(app) as client:
        with pytest.raises(UniqueViolationError):
            await client.post("/")
    async with isolated_client(app, raise_app_exceptions=False) as client:
        assert (await client.post("/")).status_code == 500


async def test_queries_are_counted_by_route(client: AsyncClient, accounts: Database) -> None:
    """Too many statements are listed with the route that sent them; savepoints do not count."""
    with assert_queries(1) as log:
        await client.get("/accounts/1")
    assert list(log.by_work) == ["GET /accounts/{key}"]
    with (
        pytest.raises(AssertionError, match=r"3 statements were sent, at most 1") as caught,
        assert_queries(at_most=1),
    ):
        await client.get("/accounts/1")
        await client.get("/inside/accounts")
        await count_accounts(accounts)
    assert "\n  1 by GET /accounts/{key}:\n    SELECT account" in str(caught.value)
    assert "\n  1 by the test:\n    SELECT count" in str(caught.value)


async def test_another_database_in_one_line(
    accounts: Database, make_database: DatabaseFactory
) -> None:
    """An override serves the application and what is mounted in it, also under its lifespan."""
    app = application()
    other = make_database()
    engines: list[object] = []

    @app.get("/engine")
    async def engine(session: DBSession) -> None:
        engines.append(session.get_bind())

    async with isolated_client(app) as client:
        await client.get("/engine")
        with override_database(app, other):
            await client.get("/engine")
        await client.get("/engine")
    assert engines[1] is other.engine.sync_engine
    assert engines[0] is engines[2] is not engines[1]


def test_an_override_overrules_the_lifespan(
    database: Database, make_database: DatabaseFactory
) -> None:
    """What a test puts in place wins, and names are replaced one by one."""
    first, second, third = make_database(), make_database(), make_database()
    app = FastAPI(lifespan=lifespan(first, databases={"analytics": second}))
    seen: list[object] = []

    @app.get("/")
    async def look(session: DBSession) -> None:
        seen.append(session.get_bind())

    with TestClient(app) as client:
        with override_database(app, third):
            client.get("/")
            with override_database(app, database, name="analytics"):
                client.get("/")
        client.get("/")
    engines = [third.engine.sync_engine, third.engine.sync_engine]
    assert seen[:2] == engines
    assert seen[2] not in engines


async def test_other_settings_in_one_line(
    accounts: Database, make_database: DatabaseFactory
) -> None:
    """A database is made from the settings, and disposed behind the block."""
    app = application()
    settings: DatabaseSettings = make_database(pool_size=2).settings
    async with override_settings(app, settings) as other:
        async with isolated_client(app, other) as client:
            assert (await client.get("/accounts")).json() == ["ada"]
        assert other.settings.pool_size == 2
    assert other.state == "disposed"


async def test_a_named_database_is_isolated(make_database: DatabaseFactory) -> None:
    """The client may isolate a named database, and leave the application's own alone."""
    database = make_database()
    await create_tables(database)
    app = FastAPI()

    @app.post("/")
    async def create(
        unit: Annotated[UnitOfWork, Depends(dependencies_for("other").unit_of_work)],
    ) -> None:
        unit.session.add(Account(owner="bob"))

    async with isolated_client(app, database, name="other") as client:
        assert (await client.post("/")).status_code == 200
    assert await count_accounts(database) == 0


async def test_beside_the_fixtures_for_applications(accounts: Database) -> None:
    """With a database of moorage.testing, the test's sessions see what the application commits."""
    database = RolledBackDatabase(accounts.settings)
    async with isolated_client(application(), database) as client:
        assert (await client.post("/accounts/bob")).status_code == 200
        with assert_queries(1, of=database):
            assert len((await client.get("/accounts")).json()) == 3
        assert await count_accounts(database) == 3
    assert await count_accounts(accounts) == 1
    await database.dispose()
