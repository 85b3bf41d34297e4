"""Interleaved rounds in shuffled order, and ratios inside of each round."""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypedDict

Work = Callable[[int], Awaitable[object]]
"""One unit, for a key."""


class Ratio(TypedDict):
    """How often a variant's time goes into the base's: 1 is as fast, 0.5 takes twice as long."""

    low: float
    median: float
    high: float
    microseconds: float


async def timed(
    work: Work, keys: Sequence[int], tasks: int, failures: list[str] | None = None
) -> float:
    """
    Do one unit per key with so many tasks at once; return the seconds per unit that was done.

    Args:
        work: Does a unit.
        keys: One for each unit.
        tasks: How many at once.
        failures: Takes what went wrong; without it a failure ends the measurement.
    """
    waiting = iter(keys)
    done = 0

    async def worker() -> None:
        nonlocal done
        for key in waiting:
            try:
                await work(key)
                done += 1
            except Exception as error:
                if failures is None:
                    raise
                failures.append(type(error).__name__)

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return (time.perf_counter() - begin) / max(done, 1)


async def interleaved(
    variants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> dict[str, list[float]]:
    """Measure all variants once per round, in another order each time; return the times."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for name in variants:
        await variants[name]()  # connections are opened, statements prepared
    for _ in range(rounds):
        order = list(variants)
        random.shuffle(order)
        for name in order:
            times[name].append(await variants[name]())
    return times


def ratios(times: Mapping[str, Sequence[float]], base: str) -> dict[str, Ratio]:
    """Return each variant's speed as a multiple of the base's, by quartiles over the rounds."""
    result: dict[str, Ratio] = {}
    for name, values in times.items():
        by_round = [theirs / ours for theirs, ours in zip(times[base], values, strict=True)]
        if len(by_round) > 1:
            low, median, high = statistics.quantiles(by_round, n=4, method="inclusive")
        else:
            low = median = high = by_round[0]
        micro = statistics.median(values) * 1e6
        result[name] = {"low": low, "median": median, "high": high, "microseconds": micro}
    return result
