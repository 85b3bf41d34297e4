"""100,000 rows at once: beside the driver's own way, and beside ``add_all``."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import delete, insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.measure import interleaved, ratios
from benchmarks.peers.moorage_peer import settings_of
from benchmarks.schema import ROWS, Book, Place, fill, row
from moorage import Database, bulk_insert

COUNT = 100_000
# The session needs seconds for these; its time grows with the rows, and a tenth of them will do.
FEW = 10_000


async def measure(place: Place, rounds: int) -> dict[str, Any]:
    """Return ratios to the raw driver, and to ``add_all``."""
    await fill(place, 10)
    dicts = [row(key) for key in range(ROWS, ROWS + COUNT)]
    tuples: list[tuple[Any, ...]] = [tuple(values.values()) for values in dicts]
    columns = tuple(dicts[0])

    async def raw(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1 FROM book WHERE 1 = 0"))
        connection = await (await session.connection()).get_raw_connection()
        driver: Any = connection.driver_connection
        if place.backend == "postgres":
            await driver.copy_records_to_table("book", records=tuples, columns=columns)
            return
        mark = "?" if place.backend == "sqlite" else "%s"
        sql = f"INSERT INTO book ({', '.join(columns)}) VALUES ({', '.join([mark] * 5)})"  # noqa: S608
        if place.backend == "sqlite":
            await driver.executemany(sql, tuples)
        else:
            cursor = await driver.cursor()
            await cursor.executemany(sql, tuples)
            await cursor.close()

    async def ours(session: AsyncSession) -> None:
        await bulk_insert(session, Book, tuples, columns=columns)

    async def of_dicts(session: AsyncSession) -> None:
        await bulk_insert(session, Book, dicts)

    async def core(session: AsyncSession) -> None:
        await session.execute(insert(Book), dicts[:FEW])

    async def add_all(session: AsyncSession) -> None:
        session.add_all(Book(**values) for values in dicts[:FEW])
        await session.flush()

    works: dict[str, tuple[Callable[[AsyncSession], Awaitable[None]], int]] = {
        "raw driver": (raw, COUNT),
        "bulk_insert, tuples": (ours, COUNT),
        "bulk_insert, dicts": (of_dicts, COUNT),
        "insert(Book)": (core, FEW),
        "add_all": (add_all, FEW),
    }
    async with Database(settings_of(place)) as database:

        async def once(work: Callable[[AsyncSession], Awaitable[None]], count: int) -> float:
            async with database.unit_of_work(statement_timeout_seconds=300) as session:
                await session.execute(delete(Book).where(Book.id >= ROWS))
            async with database.unit_of_work() as session:
                begin = time.perf_counter()
                await work(session)
                return (time.perf_counter() - begin) / count

        variants = {
            name: (lambda work=work, count=count: once(work, count))
            for name, (work, count) in works.items()
        }
        times = await interleaved(variants, rounds)
    return {base: ratios(times, base) for base in ("raw driver", "add_all")}
