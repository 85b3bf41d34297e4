"""From a token to the rows: verified claims become the identity that policies ask about."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database, dispose_engine, use_database
from moorage_fastapi import TokenVerifier, add_problem_handlers, session_as
from moorage_postgres.testing import create_supabase_stand_in
from tests.fix_database import DatabaseFactory
from tests.policies.revisions import classes

KEY = ec.generate_private_key(ec.SECP256R1())
NOTE = """
class Note(IntegerKey, Base):
    __tablename__ = "notes"
    __table_args__ = (own_rows("owner"), Grant("select", to="authenticated"))
    owner: Mapped[uuid.UUID]
    body: Mapped[str]
"""


@pytest.fixture
async def issuer() -> AsyncIterator[str]:
    """Return the address of a server of one public key, at Supabase's path."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    keys = json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()
    answers: set[asyncio.Task[Any] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.current_task())
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /auth/v1/.well-known/jwks.json ")
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(keys)}\r\n\r\n"
        writer.write(head.encode() + keys)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/auth/v1"
    server.close()
    await server.wait_closed()
    await asyncio.gather(*filter(None, answers))


async def test_a_token_leads_to_its_rows(
    issuer: str,
    database: Database,
    make_database: DatabaseFactory,
    service_login: dict[str, str],
) -> None:
    """Each user gets their own rows, and a token with a role that is not served gets nothing."""
    names = classes(NOTE)
    note, metadata = names["Note"], names["Base"].metadata
    ada, bob = str(uuid.uuid4()), str(uuid.uuid4())
    async with database.engine.begin() as connection:
        await create_supabase_stand_in(connection, service_login["user"])
        await connection.run_sync(metadata.create_all)
        rows = [{"owner": uuid.UUID(who), "body": who} for who in (ada, bob, ada)]
        await connection.execute(insert(note), rows)

    service = make_database(
        type="supabase", **service_login, connector_options={"require_identity": True}
    )
    verifier = TokenVerifier(issuer, "authenticated")
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/notes")
    async def notes(
        session: Annotated[AsyncSession, Depends(session_as(verifier))],
    ) -> list[str]:
        return list(await session.scalars(select(note.body)))

    def bearer(role: str, sub: str) -> dict[str, str]:
        claims = {"iss": issuer, "aud": "authenticated", "sub": sub, "role": role}
        claims |= {"exp": time.time() + 600}
        token = jwt.encode(claims, KEY, "ES256", headers={"kid": "one"})
        return {"Authorization": f"Bearer {token}"}

    use_database(service)
    try:
        transport = ASGITransport(app=app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            for who, found in ((ada, [ada, ada]), (bob, [bob]), (str(uuid.uuid4()), [])):
                answer = await client.get("/notes", headers=bearer("authenticated", who))
                assert (answer.status_code, answer.json()) == (200, found)
            for role in ("service_role", "postgres"):
                assert (await client.get("/notes", headers=bearer(role, ada))).status_code == 403
            assert (await client.get("/notes")).status_code == 401
    finally:
        await dispose_engine(drain_seconds=0)
    # Negative control: whoever is not asked for a token sees the rows of all.
    async with database.session() as session:
        assert len((await session.scalars(select(note.body))).all()) == 3
