"""How time per unit grows with rows, distinct statements and open sessions; moorage alone."""

import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from sqlalchemy import literal_column, select

from benchmarks.measure import interleaved, ratios, timed
from benchmarks.peers.moorage_peer import Moorage, settings_of
from benchmarks.schema import Book, Place, fill, row
from moorage import Database, bulk_insert

UNITS = 60


async def rows(place_of: Callable[[str], Place], sizes: list[int], rounds: int) -> dict[str, Any]:
    """Read by key from tables of different sizes."""
    async with AsyncExitStack() as stack:
        variants = {}
        for size in sizes:
            place = place_of(f"bench_rows_{size}")
            await fill(place, 10)
            async with Database(settings_of(place)) as database:
                unit = database.unit_of_work(statement_timeout_seconds=0)
                async with unit as session:
                    columns = tuple(row(1))
                    await bulk_insert(
                        session,
                        Book,
                        (tuple(row(key).values()) for key in range(11, size + 1)),
                        columns=columns,
                    )
            peer = Moorage()
            await peer.open(place)
            stack.push_async_callback(peer.close)
            step = max(1, size // UNITS)
            keys = [min(size, 1 + number * step) for number in range(UNITS)]
            variants[f"{size:,} rows"] = lambda peer=peer, keys=keys: timed(peer.read, keys, 1)
        return ratios(await interleaved(variants, rounds), next(iter(variants)))


async def statements(place: Place, counts: list[int], rounds: int) -> dict[str, Any]:
    """Read by key with so many distinct statements in turn, on one connection."""
    await fill(place, 100)
    settings = settings_of(place).model_copy(update={"pool_size": 1, "max_overflow": 0})
    async with Database(settings) as database:

        async def read(number: int) -> None:
            async with database.read_session() as session:
                column = literal_column(str(number))
                await session.execute(select(Book.id, column).where(Book.id == 1 + number % 100))

        variants = {}
        for count in counts:
            await timed(read, range(count), 1)
            turn = iter(range(10**9))

            def measured(count: int = count, turn: Any = turn) -> Any:
                return timed(read, [next(turn) % count for _ in range(UNITS)], 1)

            variants[f"{count:,} statements"] = measured
            # Each count has its caches to itself: the rounds of one follow each other.
            await timed(read, range(count), 1)
        times = {}
        for name, variant in variants.items():
            count = int(name.partition(" ")[0].replace(",", ""))
            await timed(read, range(min(count, 2500)), 1)
            times[name] = (await interleaved({name: variant}, rounds))[name]
    return ratios(times, next(iter(times)))


async def sessions(place: Place, counts: list[int]) -> dict[str, Any]:
    """Open many sessions that do nothing; return the memory of each and the time to read one."""
    await fill(place, 100)
    result: dict[str, Any] = {}
    async with Database(settings_of(place)) as database:

        async def read(key: int) -> None:
            async with database.read_session() as session:
                await session.get(Book, key)

        await timed(read, range(1, 60), 1)
        for count in counts:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            held = [database.session() for _ in range(count)]
            memory = (tracemalloc.get_traced_memory()[0] - before) / count
            tracemalloc.stop()
            seconds = await timed(read, range(1, 60), 1)
            for session in held:
                await session.close()
            result[f"{count:,} open sessions"] = {
                "bytes_each": round(memory),
                "microseconds": seconds * 1e6,
            }
    return result
