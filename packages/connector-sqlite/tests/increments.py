"""A program that adds one, many times, in units of work; run by several processes at once."""

import asyncio
import sys

from sqlalchemy import text

from moorage import Database, DatabaseSettings


async def main(name: str, times: int) -> None:
    """Run the units, four at a time."""

    async def worker() -> None:
        for _ in left:
            async with database.unit_of_work() as session:
                value = (await session.execute(text("SELECT value FROM counter"))).scalar_one()
                await session.execute(text("UPDATE counter SET value = :v"), {"v": value + 1})

    left = iter(range(times))
    async with Database(DatabaseSettings(type="sqlite", name=name, _env_file=None)) as database:
        await asyncio.gather(*(worker() for _ in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
