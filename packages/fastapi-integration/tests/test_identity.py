"""The request's session on behalf of whom a callable of the application names."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from httpx import AsyncClient
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import (
    AccessMode,
    Admin,
    Database,
    DatabaseSettings,
    Identity,
    UnitOfWork,
    get_connector,
    use_database,
)
from moorage_fastapi import get_db_session, read_session_as, session_as, unit_of_work_as
from tests.matrix.schema import Account, create_tables


async def current_user(token: Annotated[str, Header()] = "") -> dict[str, Any]:
    """Return the claims of a token; here the token is the name."""
    if not token:
        raise HTTPException(401)
    return {"sub": token, "role": "member"}


Told = list[str]


@pytest.fixture
async def told(fresh_database: dict[str, Any], own_process: None) -> Any:
    """Use a database that binds identities, and return a list of those it was told."""
    settings = DatabaseSettings(**fresh_database, _env_file=None)
    base = type(get_connector(settings))
    heard: Told = []

    class Telling(base):  # type: ignore[misc, valid-type]  # whatever the backend is
        def get_execution_options(self, access: AccessMode) -> Mapping[str, Any]:
            return {}  # nothing is said at the beginning, as where there is row level security

        def requires_identity(self) -> bool:
            return False

        def check_identity(self, identity: Identity | Admin) -> None:
            pass

        def bind_identity(self, connection: Connection, identity: Identity | Admin | None) -> None:
            assert isinstance(identity, Identity)
            heard.append(f"{identity.role} {identity.claims['sub']}")

    database = Database(connector=Telling(settings))
    await create_tables(database, "ada")
    use_database(database)
    yield heard
    assert database.pool_statistics().in_use == 0
    await database.dispose(drain_seconds=0)


@pytest.fixture
def client(told: Told, serve: Callable[..., AsyncClient]) -> AsyncClient:
    """Return a client of an application that works on behalf of its users."""
    app = FastAPI()
    session_of_user = Annotated[AsyncSession, Depends(session_as(current_user))]
    session_of_nobody = Annotated[AsyncSession, Depends(session_as(lambda: None))]

    @app.get("/session")
    async def with_session(
        session: session_of_user, same: Annotated[AsyncSession, Depends(get_db_session)]
    ) -> bool:
        assert (await session.get_one(Account, 1)).owner == "ada"
        return session is same

    @app.post("/unit")
    async def with_unit(
        unit: Annotated[UnitOfWork, Depends(unit_of_work_as(current_user))], name: str
    ) -> None:
        unit.session.add(Account(owner=name, balance=0))

    @app.get("/read")
    async def with_read_session(
        session: Annotated[AsyncSession, Depends(read_session_as(current_user))],
    ) -> str:
        return (await session.get_one(Account, 1)).owner

    @app.get("/nobody")
    async def of_nobody(session: session_of_nobody) -> None:
        raise AssertionError

    return serve(app)


async def test_each_kind_of_session(client: AsyncClient, told: Told) -> None:
    """Sessions, units and read sessions work on behalf of whom the callable named."""
    assert (await client.get("/session", headers={"token": "ada"})).json() is True
    assert (await client.post("/unit?name=eve", headers={"token": "bob"})).status_code == 200
    assert (await client.get("/read", headers={"token": "eve"})).json() == "ada"
    assert told == ["member ada", "member bob", "member eve"]


async def test_without_a_token_nothing_is_asked(client: AsyncClient, told: Told) -> None:
    """What the callable refuses never reaches the database."""
    for path in ("/session", "/read"):
        assert (await client.get(path)).status_code == 401
    assert (await client.get("/nobody")).status_code == 500
    assert told == []
