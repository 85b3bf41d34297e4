"""
What taking a connection from the pool and giving it back costs, against SQLAlchemy's own pool.

In the first table both pools get a dialect whose connections do nothing, so that nothing but the
pool is on the clock. In the second one both check connections before use, on a real PostgreSQL,
each in the way it recommends: SQLAlchemy asks each time, moorage after a connection idled. Rounds
of both alternate in one process; what is printed is the least of each, and their ratio.
"""

import asyncio
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import util
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool

from moorage import Database, DatabaseSettings
from moorage.pool import LoopPool

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.servers import throwaway

ROUNDS = 300
TIMES = 300


class Nothing:
    """A connection that does nothing."""

    def rollback(self) -> None:
        """Roll back nothing."""

    def close(self) -> None:
        """Close nothing."""


def _nothing() -> Any:
    return Nothing()


def take_and_give_back(pool: Pool) -> float:
    """Return the microseconds that one connection costs."""
    begin = time.perf_counter()
    for _ in range(TIMES):
        pool.connect().close()
    return (time.perf_counter() - begin) * 1e6 / TIMES


async def measure() -> dict[str, float]:
    """Return the least cost of each pool, in microseconds."""
    pools: dict[str, Pool] = {
        kind.__name__: kind(_nothing, pool_size=10, max_overflow=20)
        for kind in (AsyncAdaptedQueuePool, LoopPool)
    }
    costs: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(ROUNDS):
        for name, pool in pools.items():
            costs[name].append(await util.greenlet_spawn(take_and_give_back, pool))
    return {name: min(values) for name, values in costs.items()}


async def measure_with_ping(settings: DatabaseSettings) -> dict[str, float]:
    """Return the least cost of a checked connection, in microseconds."""
    async with Database(settings) as database:
        plain = create_async_engine(database.connector.get_url(), pool_pre_ping=True)
        engines: dict[str, AsyncEngine] = {"pool_pre_ping=True": plain, "Database": database.engine}
        costs: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(ROUNDS // 10):
            for name, engine in engines.items():
                begin = time.perf_counter()
                for _ in range(TIMES // 10):
                    async with engine.connect():
                        pass
                costs[name].append((time.perf_counter() - begin) * 1e7 / TIMES)
        await plain.dispose()
    return {name: min(values) for name, values in costs.items()}


def show(costs: dict[str, float], aim: str) -> None:
    """Print two costs and their ratio."""
    theirs, ours = costs.values()
    for name, cost in costs.items():
        print(f"  {name:28} {cost:8.2f} us")
    print(f"  {f'ratio (aim: {aim})':28} {ours / theirs:8.2f}")


def main() -> None:
    """Measure and print."""
    print(f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}, least of all:")
    show(asyncio.run(measure()), "at most 1.05")
    print("with a check of the connection, on PostgreSQL:")
    with throwaway("postgres") as server:
        address = server.address
        settings = DatabaseSettings(
            type="postgres",
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            name=address.database,
            _env_file=None,
        )
        show(asyncio.run(measure_with_ping(settings)), "below 1")


if __name__ == "__main__":
    main()
