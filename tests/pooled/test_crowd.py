"""Sessions of several processes behind a pooler, beside the plain engine that mixes them up."""

import asyncio
import json
import math
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from moorage import Database, DatabaseSettings
from tests.fix_scale import Scale

QUESTIONS = Path(__file__).with_name("questions.py")
# How many connections of the server the pooler has: see tests/servers/pgbouncer.py.
SERVER_CONNECTIONS = 4


def ask(
    pooled: dict[str, Any], variant: str, *numbers: int, driver: str = "asyncpg"
) -> dict[str, int]:
    """Let processes ask through the pooler, and return how often they were answered how."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DB_")}
    variables = {
        f"DB_{name}".upper(): str(value)
        for name, value in pooled.items()
        if name in {"type", "host", "port", "user", "password", "name"}
    }
    done = subprocess.run(
        [sys.executable, str(QUESTIONS), variant, *map(str, numbers)],
        env={
            **kept,
            **variables,
            "DB_POSTGRES_POOLER": "transaction",
            "DB_POSTGRES_DRIVER": driver,
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


async def named_statements(pooled: dict[str, Any]) -> list[int]:
    """Return how many named statements there are on each of the pooler's server connections."""
    settings = DatabaseSettings(**pooled, _env_file=None)
    seen: dict[int, int] = {}
    async with Database(settings) as database, AsyncExitStack() as stack:
        for _ in range(SERVER_CONNECTIONS):  # all at once, or they might be the same
            connection = await stack.enter_async_context(database.engine.connect())
            row = await connection.execute(
                text("SELECT pg_backend_pid(), count(*) FROM pg_prepared_statements")
            )
            pid, count = row.one()
            seen[pid] = count
    assert len(seen) == SERVER_CONNECTIONS
    return list(seen.values())


@pytest.mark.scaled(small=["asyncpg-500"])
@pytest.mark.parametrize(("driver", "most"), [("asyncpg", 500), ("psycopg", 125)])
async def test_rows_are_ones_own(
    pooled: dict[str, Any], scale: Scale, driver: str, most: int
) -> None:
    """Four processes with twenty sessions each get their own rows, and leave no statement."""
    numbers = scale(small=2, full=4), scale(small=10, full=20), scale(small=5, full=most)
    found = await asyncio.to_thread(ask, pooled, "ours", *numbers, driver=driver)
    assert found == {"right": math.prod(numbers)}  # 40,000, and 10,000 on the second driver
    assert await named_statements(pooled) == [0] * SERVER_CONNECTIONS


async def test_plain_engine_fails(pooled: dict[str, Any]) -> None:
    """Negative control: with the defaults statements collide, and are left on the server."""
    found = await asyncio.to_thread(ask, pooled, "plain", 2, 10, 5)
    assert found.get("right", 0) < 2 * 10 * 5
    assert sum(await named_statements(pooled)) > 0
