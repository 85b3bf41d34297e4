"""
Reading, writing, changing and listing, by every peer of a backend.

Run as a program of its own per backend: some peers can be started once in a process only.
"""

import asyncio
import json
import random
import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from benchmarks.measure import Work, interleaved, ratios, timed
from benchmarks.peers import Peer, load
from benchmarks.schema import NEW_KEYS, ROWS, Place, fill
from tests.counting_proxy import CountingProxy

WORKS = ("read", "write", "change", "list")
UNITS = {1: 30, 32: 160}
BURST = 30
DELAY_SECONDS = 0.001


def keys(work: str, count: int) -> list[int]:
    """Return keys for a work: new ones to write, others of books that are there."""
    if work == "write":
        return [next(NEW_KEYS) for _ in range(count)]
    return [random.randint(1, ROWS) for _ in range(count)]


def unit(peer: Peer, work: str) -> Work:
    """Return what does one unit."""
    method: Callable[..., Awaitable[object]] = getattr(peer, work)
    return (lambda key: method()) if work == "list" else method


# By peer, work and number of tasks: what went wrong.
failures: dict[str, list[str]] = defaultdict(list)


def measurement(peer: Peer, work: str, count: int, tasks: int) -> Callable[[], Awaitable[float]]:
    """Return what measures so many units once."""
    failed = failures[f"{peer.name}, {work}, {tasks} tasks"]
    return lambda: timed(unit(peer, work), keys(work, count), tasks, failed)


async def opened(stack: AsyncExitStack, place: Place) -> dict[str, Peer]:
    """Open all peers of a backend."""
    peers: dict[str, Peer] = {}
    for kind in load():
        if place.backend in kind.backends:
            peer = kind()
            await peer.open(place)
            stack.push_async_callback(peer.close)
            peers[kind.name] = peer
    return peers


async def speeds(peers: dict[str, Peer], rounds: int) -> dict[str, Any]:
    """Return the ratios of all works, with 1 and 32 tasks, and of bursts."""
    result: dict[str, Any] = {}
    for work in WORKS:
        for tasks, count in UNITS.items():
            variants = {name: measurement(peer, work, count, tasks) for name, peer in peers.items()}
            times = await interleaved(variants, rounds)
            result[f"{work}, {tasks} task{'s' * (tasks > 1)}"] = times
    variants = {name: measurement(peer, "read", BURST, BURST) for name, peer in peers.items()}
    result[f"burst of {BURST} reads"] = await interleaved(variants, rounds)
    return result


async def round_trips(peers: dict[str, Peer], proxy: CountingProxy) -> dict[str, dict[str, int]]:
    """Return how often each peer waits for the server, exactly."""
    result: dict[str, dict[str, int]] = {}
    for name, peer in peers.items():
        result[name] = {}
        for work in ("read", "write", "change"):
            counts = []
            for key in keys(work, 15):
                proxy.reset()
                await unit(peer, work)(key)
                counts.append(proxy.round_trips)
            result[name][work] = min(counts)
    return result


async def calls(peers: dict[str, Peer]) -> dict[str, dict[str, int]]:
    """Return how many functions of Python each peer calls, exactly, whatever the machine does."""
    result: dict[str, dict[str, int]] = {}
    for name, peer in peers.items():
        result[name] = {}
        for work in ("read", "write", "change"):
            do = unit(peer, work)
            result[name][work] = min([await _calls_of(do, key) for key in keys(work, 30)])
    return result


async def _calls_of(work: Work, key: int) -> int:
    count = 0

    def note(frame: object, happened: str, argument: object) -> None:
        nonlocal count
        count += happened == "call"

    sys.setprofile(note)
    try:
        await work(key)
    finally:
        sys.setprofile(None)
    return count


async def losses(peers: dict[str, Peer], place: Place) -> dict[str, dict[str, int]]:
    """Let 32 tasks change one row ten times each; return what was lost, and what failed."""
    result: dict[str, dict[str, int]] = {}
    for name in ("everybody's", "moorage"):
        await fill(place, 100)

        async def worker(peer: Peer = peers[name]) -> int:
            done = 0
            for _ in range(10):
                try:
                    await peer.change(1)
                    done += 1
                except Exception:  # noqa: BLE001 (counted, whatever it is)
                    await asyncio.sleep(0)
            return done

        done = sum(await asyncio.gather(*(worker() for _ in range(32))))
        found: Any = await peers["raw driver"].read(1)
        copies = dict(zip(("id", "title", "copies"), tuple(found), strict=False))["copies"]
        result[name] = {"acknowledged": done, "lost": done - copies, "failed": 320 - done}
    return result


async def main(place: Place, rounds: int) -> dict[str, Any]:
    """Measure one backend."""
    result: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        peers = await opened(stack, place)
        if place.backend == "sqlite":
            result["losses"] = await losses(peers, place)
        await fill(place)
        result["calls"] = await calls(peers)
        times = await speeds(peers, rounds)
    if failed := {name: Counter(kinds) for name, kinds in failures.items() if kinds}:
        result["failures"] = {
            name: [f"{count} x {what}" for what, count in kinds.items()]
            for name, kinds in failed.items()
        }
    for title, seconds in times.items():
        result[title] = {base: ratios(seconds, base) for base in ("raw driver", "everybody's")}
    return result


async def behind_proxy(place: Place, rounds: int) -> dict[str, Any]:
    """Count round trips, and measure with 2 ms more for each."""
    result: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(CountingProxy(place.host, place.port))
        there = replace(place, host="127.0.0.1", port=proxy.port)
        peers = await opened(stack, there)
        await fill(place)
        result["round trips"] = await round_trips(peers, proxy)
        proxy.delay_seconds = DELAY_SECONDS
        for work in ("read", "write", "change"):
            variants = {name: measurement(peer, work, 8, 1) for name, peer in peers.items()}
            times = await interleaved(variants, rounds)
            result[f"{work}, 2 ms network"] = {
                base: ratios(times, base) for base in ("raw driver", "everybody's")
            }
    return result


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--place", type=json.loads, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--proxy", action="store_true")
    options = parser.parse_args()
    place = Place(**options.place)
    measured = behind_proxy(place, options.rounds) if options.proxy else main(place, options.rounds)
    try:
        import uvloop

        print(json.dumps(uvloop.run(measured)))
    except ImportError:
        print(json.dumps(asyncio.run(measured)))
    sys.stdout.flush()
