"""Create the tables, once, before the service: ``python -m lending_library.create_tables``."""

import asyncio

from lending_library.models import metadata
from moorage import Database


async def create_tables() -> None:
    """Create what is missing in the database that the environment names."""
    async with Database() as database:
        await database.wait_until_ready()
        async with database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)


if __name__ == "__main__":
    asyncio.run(create_tables())
