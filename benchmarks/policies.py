"""
What the shape of a policy costs: all rows of one user, of 100,000 that belong to 1,000 users.

The first shape asks who the user is once per row, the second once per statement; the third has an
index to look in as well. What is printed is the least of several runs, as a multiple of the last.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.peers.moorage_peer import settings_of
from benchmarks.schema import Place
from moorage import Database
from moorage_postgres.testing import create_supabase_stand_in
from tests.servers import throwaway

ROUNDS = 15
ROWS, USERS = 100_000, 1_000

TABLE = (
    "CREATE TABLE notes (id int PRIMARY KEY, owner_id uuid NOT NULL, body text NOT NULL)",
    "INSERT INTO notes SELECT n, md5((n % :users)::text)::uuid, 'note ' || n"
    " FROM generate_series(1, :rows) AS n",
    "GRANT SELECT ON notes TO authenticated",
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "ANALYZE notes",
)
INDEX = "CREATE INDEX ON notes (owner_id)"


@dataclass(frozen=True)
class Shape:
    """A policy, and whether there is an index for it."""

    condition: str
    has_index: bool

    def __str__(self) -> str:
        return self.condition + (", with an index" if self.has_index else "")


SHAPES = (
    Shape("owner_id = auth.uid()", has_index=False),
    Shape("owner_id = (select auth.uid())", has_index=False),
    Shape("owner_id = auth.uid()", has_index=True),
    Shape("owner_id = (select auth.uid())", has_index=True),
)


async def seconds_of(connection: AsyncConnection, shape: Shape) -> float:
    """Return the least time that one user's rows take under a policy of this shape."""
    policy = f"CREATE POLICY own ON notes FOR SELECT TO authenticated USING ({shape.condition})"
    await connection.execute(text(policy))
    if shape.has_index:
        await connection.execute(text(INDEX))
    claims = json.dumps({"role": "authenticated", "sub": "c4ca4238-a0b9-2382-0dcc-509a6f75849b"})
    told = {"claims": claims}
    await connection.execute(text("SELECT set_config('request.jwt.claims', :claims, true)"), told)
    await connection.execute(text("SET LOCAL ROLE authenticated"))
    taken: list[float] = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        rows = (await connection.execute(text("SELECT id, body FROM notes"))).all()
        taken.append(time.perf_counter() - begin)
        assert len(rows) == ROWS // USERS
    return min(taken)


async def measure(place: Place) -> dict[str, float]:
    """Return the seconds of each shape, each in a transaction that is rolled back."""
    found: dict[str, float] = {}
    values: dict[str, Any] = {"users": USERS, "rows": ROWS}
    async with Database(settings_of(place)) as database:
        async with database.engine.begin() as connection:
            await create_supabase_stand_in(connection)
            for statement in TABLE:
                taken = values if ":rows" in statement else {}
                await connection.execute(text(statement), taken)
        for shape in SHAPES:
            async with database.engine.connect() as connection:
                found[str(shape)] = await seconds_of(connection, shape)
                await connection.rollback()
    return found


def main() -> None:
    """Measure on a throwaway server, and print."""
    with throwaway("postgres") as server:
        server.create_database("bench_policies")
        address = server.address
        place = Place(
            "postgres",
            "bench_policies",
            address.host,
            address.port,
            address.user,
            address.password,
        )
        found = asyncio.run(measure(place))
    base = list(found.values())[-1]
    print(f"policies: {ROWS // USERS} rows of one user, of {ROWS:,}")
    for name, seconds in found.items():
        print(f"  {name:50} {seconds * 1e3:8.2f} ms {seconds / base:8.1f} x")


if __name__ == "__main__":
    main()
