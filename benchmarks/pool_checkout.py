"""
What taking a connection from the pool and giving it back costs, against SQLAlchemy's own pool.

Both pools get a dialect whose connections do nothing, so that nothing but the pool is on the
clock. Rounds of both alternate in one process; what is printed is the least of each, and their
ratio.
"""

import asyncio
import platform
import time
from importlib.metadata import version
from typing import Any

from sqlalchemy import util
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool

from moorage.pool import LoopPool

ROUNDS = 30
TIMES = 3000


class Nothing:
    """A connection that does nothing."""

    def rollback(self) -> None:
        """Roll back nothing."""

    def close(self) -> None:
        """Close nothing."""


def take_and_give_back(pool: Pool) -> float:
    """Return the microseconds that one connection costs."""
    begin = time.perf_counter()
    for _ in range(TIMES):
        pool.connect().close()
    return (time.perf_counter() - begin) * 1e6 / TIMES


async def measure() -> dict[str, float]:
    """Return the least cost of each pool, in microseconds."""
    pools: dict[str, Pool] = {
        kind.__name__: kind(Nothing, pool_size=10, max_overflow=20)
        for kind in (AsyncAdaptedQueuePool, LoopPool)
    }
    costs: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(ROUNDS):
        for name, pool in pools.items():
            costs[name].append(await util.greenlet_spawn(take_and_give_back, pool))
    return {name: min(values) for name, values in costs.items()}


def main() -> None:
    """Measure and print."""
    costs: dict[str, Any] = asyncio.run(measure())
    theirs, ours = costs.values()
    print(
        f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')}, the fastest of"
        f" {ROUNDS} rounds:"
    )
    for name, cost in costs.items():
        print(f"  {name:24} {cost:7.2f} us")
    print(f"  {'ratio (aim: at most 1.05)':24} {ours / theirs:7.2f}")


if __name__ == "__main__":
    main()
