"""How time per unit grows with rows, distinct statements and open sessions; moorage alone."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from sqlalchemy import ColumnClause, Integer, literal_column, select

from benchmarks.measure import Work, interleaved, ratios, timed
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


async def statements(
    place_of: Callable[[str], Place], counts: list[int], rounds: int
) -> dict[str, Any]:
    """Read by key with so many distinct statements in turn, each count on one connection."""
    place = place_of("bench_statements")
    await fill(place, 100)
    changes: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
    if place.backend == "postgres":
        # Else the server plans a statement anew the first five times, and of many statements none
        # comes to its sixth.
        plans = {"plan_cache_mode": "force_generic_plan"}
        changes["connector_options"] = {"server_settings": plans}
    settings = settings_of(place).model_copy(update=changes)
    async with AsyncExitStack() as stack:
        variants = {}
        for count in counts:
            # With caches of its own, which nobody else fills.
            database = await stack.enter_async_context(Database(settings))
            read = partial(_read, database)
            await timed(read, range(count), 1)
            variants[f"{count:,} statements"] = partial(
                _timed_in_turn, read, itertools.cycle(range(count))
            )
        return ratios(await interleaved(variants, rounds), next(iter(variants)))


async def _read(database: Database, number: int) -> None:
    async with database.read_session() as session:
        column: ColumnClause[int] = literal_column(str(number), Integer)
        await session.execute(select(Book.id, column).where(Book.id == 1 + number % 100))


async def _timed_in_turn(read: Work, numbers: Iterator[int]) -> float:
    return await timed(read, list(itertools.islice(numbers, UNITS)), 1)


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
