"""Messages of the pool name the route that holds a connection."""

import asyncio

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text

from moorage import PoolExhaustedError, use_database
from moorage_fastapi import DBReadSession, DBSession
from tests.fix_database import DatabaseFactory


@pytest.mark.parametrize("kind", ["session", "read session"])
async def test_exhaustion_names_the_route(make_database: DatabaseFactory, kind: str) -> None:
    """A pool that runs dry tells by its route, not by its path, which request holds on."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=0.05)
    use_database(database)
    app = FastAPI()
    holding, enough = asyncio.Event(), asyncio.Event()

    async def hold(session: DBSession) -> None:
        await session.execute(text("SELECT 1"))
        holding.set()
        await enough.wait()

    app.get("/boats/{secret}")(hold)
    hold.__annotations__["session"] = DBReadSession
    app.get("/read/{secret}")(hold)
    path = "/boats" if kind == "session" else "/read"
    use = database.session if kind == "session" else database.read_session
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        request = asyncio.create_task(client.get(f"{path}/s3cret"))
        await holding.wait()
        with pytest.raises(PoolExhaustedError) as caught:
            async with use() as session:
                await session.execute(text("SELECT 1"))
        enough.set()
        assert (await request).status_code == 200
    assert f"by GET {path}/{{secret}}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
