"""Two users in a crowd of units that fail and are cancelled: no foreign row, and nothing left."""

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Admin, Database, DatabaseError, DatabaseSettings, Identity
from moorage_postgres import PostgresConnector
from moorage_postgres.testing import create_supabase_stand_in
from tests.fix_scale import Scale

USERS = [uuid.UUID(int=1), uuid.UUID(int=2)]
WORKERS = 12
SCHEMA = (
    "CREATE TABLE notes (owner uuid, body text)",
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON notes TO authenticated USING (owner = (SELECT auth.uid()))",
    "GRANT SELECT, INSERT, UPDATE ON notes TO authenticated",
    *(f"INSERT INTO notes VALUES ('{user}', 'the first')" for user in USERS),
)
CLEAN = text(
    "SELECT current_user = session_user"
    " AND coalesce(current_setting('request.jwt.claims', true), '') = ''"
)
WAYS = {
    "direct": {},
    "a pool of 3": {"pool_size": 3, "max_overflow": 0},
    "through a pooler": {"pool_size": 8},
    "through a pooler, on psycopg": {"pool_size": 8},
}


@pytest.fixture(params=WAYS)
async def service(
    request: pytest.FixtureRequest,
    pooled: dict[str, Any],
    fresh_database: dict[str, Any],
    service_login: dict[str, str],
) -> DatabaseSettings:
    """Return the settings of a service that may nothing by itself, direct and pooled."""
    owner = DatabaseSettings(**fresh_database, _env_file=None)
    async with Database(owner) as database, database.engine.begin() as connection:
        await create_supabase_stand_in(connection, service_login["user"])
        for statement in SCHEMA:
            await connection.execute(text(statement))
    place = pooled if "pooler" in request.param else fresh_database
    options = {
        **pooled["connector_options"],
        "driver": "psycopg" if "psycopg" in request.param else "asyncpg",
        "pooler": "transaction" if place is pooled else "direct",
        "identity_roles": "authenticated",
        "require_identity": True,
    }
    values = {**place, **service_login, **WAYS[request.param], "connector_options": options}
    values.pop("direct_url", None)
    return DatabaseSettings(**values, _env_file=None)


class Intended(Exception):  # noqa: N818 (an event of the test)
    """What some units raise by themselves."""


async def look(session: AsyncSession, user: uuid.UUID, seen: Counter[str]) -> None:
    """Count own and foreign rows."""
    owners = list(await session.scalars(text("SELECT owner FROM notes LIMIT 50")))
    seen["own"] += owners.count(user)
    seen["foreign"] += len(owners) - owners.count(user)


async def one_unit(database: Database, user: uuid.UUID, kind: int, seen: Counter[str]) -> None:
    """Work for a user, in one of several ways that go wrong."""
    identity = Identity.from_claims({"sub": str(user), "role": "authenticated"})
    unit = database.unit_of_work(identity=identity)
    async with unit as session:
        await look(session, user, seen)
        if kind == 0:
            await session.execute(text("INSERT INTO notes VALUES (auth.uid(), 'more')"))
        elif kind == 1:
            await session.execute(text("SELECT 1 / 0"))
        elif kind == 2:
            with contextlib.suppress(DatabaseError):
                async with unit.savepoint():
                    await session.execute(text("SELECT 1 / 0"))
            await look(session, user, seen)
        elif kind == 3:
            raise Intended
        else:
            await session.execute(
                text("UPDATE notes SET body = 'changed' WHERE owner <> auth.uid()")
            )


async def crowd(database: Database, units: int, seed: int) -> Counter[str]:
    """Run units of both users from many tasks, and look between them at what is left."""
    seen: Counter[str] = Counter()
    left = iter(range(units))

    async def worker(number: int) -> None:
        dice = random.Random(seed * 100 + number)
        for _ in left:
            user = dice.choice(USERS)
            task = asyncio.create_task(one_unit(database, user, dice.randrange(5), seen))
            if dice.random() < 0.2:
                for _ in range(dice.randrange(12)):
                    await asyncio.sleep(0)
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            seen[type(outcome).__name__] += 1
            if dice.random() < 0.2:
                async with database.engine.connect() as connection:
                    seen["clean" if await connection.scalar(CLEAN) else "left"] += 1

    await asyncio.gather(*(worker(number) for number in range(WORKERS)))
    return seen


@pytest.mark.scaled(small=["direct", "a pool of 3", "through a pooler"])
async def test_no_foreign_row(service: DatabaseSettings, scale: Scale) -> None:
    """Nobody sees a row of the other, and no connection keeps what it was told."""
    is_again = PostgresConnector(service).driver.name == "psycopg"
    units = scale(small=100, full=2_000 if is_again else 3_400)  # 12,200 in all
    async with Database(service) as database:
        seen = await crowd(database, units, seed=1)
        assert database.pool_statistics().in_use == 0
    assert seen["foreign"] == seen["left"] == 0, seen
    kinds = {"NoneType", "Intended", "CancelledError"}
    assert min(seen[kind] for kind in (*kinds, "own", "clean")) > 0, seen
    strange = seen.keys() - kinds - {"own", "clean", "foreign", "left"}
    assert all("DataError" in name for name in strange), seen  # the division by zero


class ToldForGood(PostgresConnector):
    """What is told to the session, as `SET ROLE` and `set_config(…, false)` do."""

    def bind_identity(self, connection: Connection, identity: Identity | Admin | None) -> None:
        """Tell the session, not the transaction."""
        assert isinstance(identity, Identity)
        super().bind_identity(connection, identity)
        connection.execute(
            text("SELECT set_config('request.jwt.claims', :claims, CAST(:local AS bool))"),
            {"claims": identity.claims_json, "local": False},
        )


@pytest.mark.scaled(small=["through a pooler"])
async def test_what_is_told_for_good_is_left(service: DatabaseSettings) -> None:
    """Negative control: claims that were told to the session meet whoever comes next."""
    async with Database(connector=ToldForGood(service)) as database:
        seen = await crowd(database, 60, seed=2)
    assert seen["left"] > 0
