"""The event loop that servers choose differs from Python's in what it does not promise."""

import asyncio
from typing import Any

import uvloop
from sqlalchemy import text

from moorage import Database, DatabaseSettings

TASKS = 6


def test_a_pool_shrinks_and_ends(fresh_database: dict[str, Any]) -> None:
    """Under uvloop the pool serves a burst, closes what was too much, and is disposed."""
    settings = DatabaseSettings(
        **fresh_database, pool_size=2, max_overflow=4, pool_shrink_seconds=0.01, _env_file=None
    )
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async with Database(settings) as database:
            everybody = asyncio.Barrier(TASKS)

            async def work() -> None:
                async with database.session() as session:
                    await session.execute(text("SELECT 1"))
                    await everybody.wait()

            await asyncio.gather(*(work() for _ in range(TASKS)))
            async with asyncio.timeout(30):
                while database.pool_statistics().idle > 2:
                    await asyncio.sleep(0.001)
            async with database.unit_of_work() as session:
                await session.execute(text("SELECT 1"))

    uvloop.run(main())
    assert complaints == []
