"""An application that serves from several databases, each with dependencies of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database, DatabaseMissingError, LifecycleError, UnitOfWork
from moorage_fastapi import (
    AppDatabase,
    DBSession,
    DBUnitOfWork,
    dependencies_for,
    health_router,
    lifespan,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables

Serve = Callable[..., AsyncClient]

analytics = dependencies_for("analytics")
AnalyticsSession = Annotated[AsyncSession, Depends(analytics.session)]
AnalyticsUnit = Annotated[UnitOfWork, Depends(analytics.unit_of_work)]
AnalyticsReadSession = Annotated[AsyncSession, Depends(analytics.read_session)]
AnalyticsDatabase = Annotated[Database, Depends(analytics.database)]


@pytest.fixture
def second(make_database: DatabaseFactory, backend: str, tmp_path: Path) -> Database:
    """Return a second database; on a server it has the same tables and a pool of its own."""
    return make_database(**({"name": str(tmp_path / "second.db")} if backend == "sqlite" else {}))


def test_each_database_has_its_own_session(database: Database, second: Database) -> None:
    """Session and unit are one per database, and those of two databases are apart."""

    async def prepare(used: Database) -> None:
        await create_tables(used)

    app = FastAPI(lifespan=lifespan(database, databases={"analytics": second}, checks=[prepare]))

    @app.get("/")
    async def compare(
        session: DBSession,
        unit: DBUnitOfWork,
        other: AnalyticsSession,
        other_unit: AnalyticsUnit,
        reading: AnalyticsReadSession,
        own: AppDatabase,
        others: AnalyticsDatabase,
    ) -> list[bool]:
        return [
            unit.session is session,
            other_unit.session is other,
            len({session, other, reading}) == 3,
            session.get_bind() is database.engine.sync_engine,
            other.get_bind() is second.engine.sync_engine,
            own is database,
            others is second,
        ]

    with TestClient(app) as client:
        assert client.get("/").json() == [True] * 7
        assert second.state == "started"
    assert database.state == second.state == "disposed"


def test_a_unit_of_one_database_is_not_one_of_another(database: Database, second: Database) -> None:
    """A session of a database whose unit nobody asked for is not committed by another unit."""

    async def prepare(used: Database) -> None:
        await create_tables(database)

    app = FastAPI(lifespan=lifespan(database, databases={"analytics": second}, checks=[prepare]))
    counts: list[int] = []

    @app.post("/")
    async def create(unit: AnalyticsUnit, session: DBSession) -> None:
        session.add(Account(owner="bob"))

    @app.get("/")
    async def count(database: AppDatabase) -> int:
        counts.append(await count_accounts(database))
        return counts[-1]

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/").status_code == 500
        assert client.get("/").json() == 0


async def test_an_unknown_name_says_what_is_there(accounts: Database, serve: Serve) -> None:
    """A name that no lifespan has given is an error with the line that gives it."""
    app = FastAPI()
    caught: list[LifecycleError] = []

    @app.get("/")
    async def read(session: AnalyticsSession) -> None:
        await session.execute(select(1))

    @app.exception_handler(LifecycleError)
    async def remember(request: object, error: LifecycleError) -> None:
        caught.append(error)
        raise error

    assert (await serve(app).get("/")).status_code == 500
    assert "no database named 'analytics'" in str(caught[0])
    assert "lifespan(databases={'analytics':" in caught[0].hint


def test_every_database_must_be_ready(make_database: DatabaseFactory, database: Database) -> None:
    """A named database that cannot be used stops the start, and both are disposed."""
    broken = make_database(name="nowhere/app.db")
    app = FastAPI(lifespan=lifespan(database, databases={"analytics": broken}))
    with pytest.raises(DatabaseMissingError), TestClient(app):
        pytest.fail("the application has started")
    assert database.state == broken.state == "disposed"


def test_a_database_may_be_made_at_each_start(make_database: DatabaseFactory) -> None:
    """What makes a database is called at each start, so that an application can start again."""
    made: list[Database] = []

    def make() -> Database:
        made.append(make_database())
        return made[-1]

    app = FastAPI(lifespan=lifespan(make, databases={"analytics": make}))

    @app.get("/")
    async def read(session: DBSession, other: AnalyticsSession) -> int:
        await session.execute(select(1))
        return int((await other.execute(select(2))).scalar_one())

    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == 2
    assert [database.state for database in made] == ["disposed"] * 4


def test_readiness_asks_the_named_ones_too(database: Database, second: Database) -> None:
    """A process without a database that it cannot do without is not ready, and says which."""
    app = FastAPI(lifespan=lifespan(database, databases={"analytics": second}))
    app.include_router(health_router(databases=["analytics"]))

    @app.post("/close")
    async def close(other: AnalyticsDatabase) -> None:
        await other.dispose()

    with TestClient(app) as client:
        body = client.get("/health/ready").json()
        assert (body["status"], body["databases"]["analytics"]["status"]) == ("ready", "ready")
        client.post("/close")
        response = client.get("/health/ready")
        assert response.status_code == 503
        assert response.json()["databases"]["analytics"]["status"] == "stopping"


def test_dependencies_are_the_same_each_time() -> None:
    """Whoever asks for a name's dependencies gets the same, as overriding them needs."""
    assert dependencies_for("analytics") is analytics
    assert analytics.unit_with(read_only=True) is analytics.unit_with(read_only=True)
    assert analytics.unit_with(read_only=True) is not analytics.unit_of_work
    assert dependencies_for("other").session is not analytics.session
