"""What probes hear about the process and its database."""

import asyncio
from collections.abc import Callable

from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import select

from moorage import Database
from moorage_fastapi import health_router
from tests.fix_database import DatabaseFactory

Serve = Callable[..., AsyncClient]


def probed(database: Database | None = None) -> FastAPI:
    """Return an application with the two routes."""
    app = FastAPI()
    app.include_router(health_router(database))
    return app


async def test_ready(accounts: Database, serve: Serve) -> None:
    """A database that answers is ready, and holds no connection afterwards."""
    response = await serve(probed()).get("/health/ready")
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert response.json()["pool"]["in_use"] == 0
    assert accounts.pool_statistics().in_use == 0


async def test_not_ready(make_database: DatabaseFactory, backend: str, serve: Serve) -> None:
    """A database that cannot be reached is not ready; the process lives all the same."""
    where = {"name": "/nowhere/app.db"} if backend == "sqlite" else {"port": 1}
    client = serve(probed(make_database(**where)))
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/health/live")).status_code == 200


async def test_a_busy_pool_beside_an_idle_one(make_database: DatabaseFactory, serve: Serve) -> None:
    """Connections of read sessions do not answer for the pool that is in use to the last one."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=60)
    async with database.read_session() as session:
        await session.execute(select(1))
    async with database.engine.connect():
        response = await serve(probed(database)).get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (200, "busy")


async def test_busy_is_ready(make_database: DatabaseFactory, serve: Serve) -> None:
    """A pool in use to the last connection is not waited for, and the process stays in service."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=60)
    async with database.engine.connect():
        response = await serve(probed(database)).get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {
        "status": "busy",
        "pool": {"capacity": 1, "in_use": 1, "waiting": 0},
    }


async def test_many_probes_are_one_ping(make_database: DatabaseFactory, serve: Serve) -> None:
    """However many ask at once, the pool opens one connection."""
    database = make_database(pool_size=5, max_overflow=0)
    client = serve(probed(database))
    answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert database.pool_statistics().idle == 1


async def test_a_disposed_database_is_stopping(
    make_database: DatabaseFactory, serve: Serve
) -> None:
    """A process that shuts down is out of service, and says why."""
    database = make_database()
    await database.dispose()
    response = await serve(probed(database)).get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "stopping")


def test_probes_do_not_show_in_the_schema() -> None:
    """Health routes are for machines, not part of the interface."""
    assert probed().openapi()["paths"] == {}
