"""
Measure everything, print it, and write ``results.md`` and the plots.

    python -m benchmarks                 all of it, about ten minutes
    python -m benchmarks --quick         few rounds, no growth, nothing written
    python -m benchmarks postgres web    some sections
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bulk, growth, report, web
from benchmarks.schema import Place
from tests.servers import Server, throwaway

ROOT = Path(__file__).parents[1]
SECTIONS = ("postgres", "mysql", "sqlite", "network", "web", "bulk", "growth")
BACKENDS = ("postgres", "mysql", "sqlite")


class Places:
    """Databases to measure in, on servers that are started when they are needed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, Server] = {}
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def get(self, backend: str, name: str) -> Place:
        """Return a new database."""
        if backend == "sqlite":
            return Place("sqlite", str(self._folder / f"{name}.db"))
        if backend not in self._servers:
            self._servers[backend] = self._stack.enter_context(throwaway(backend))
        server = self._servers[backend]
        server.create_database(name)
        address = server.address
        return Place(backend, name, address.host, address.port, address.user, address.password)


def units(place: Place, rounds: int, *, proxy: bool = False) -> dict[str, Any]:
    """Measure one backend in a process of its own, since some peers can be started once only."""
    command = [sys.executable, "-m", "benchmarks.units", "--rounds", str(rounds)]
    command += ["--place", json.dumps(asdict(place)), *(["--proxy"] if proxy else [])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(sections: list[str], rounds: int, *, quick: bool) -> dict[str, Any]:
    """Measure."""
    load = os.getloadavg()[0]
    results: dict[str, Any] = {"rounds": rounds, "load": f"{load:.1f}"}
    few = max(2, rounds // 3)
    with ExitStack() as stack:
        places = Places(stack)
        for backend in BACKENDS:
            if backend in sections:
                _say(backend)
                results[backend] = units(places.get(backend, "bench_units"), rounds)
                results.setdefault("calls", {})[backend] = results[backend].pop("calls")
        if "network" in sections:
            trips, results["network"] = {}, {}
            for backend in ("postgres", "mysql"):
                _say(f"{backend} through a proxy")
                found = units(places.get(backend, "bench_network"), few, proxy=True)
                trips[backend] = found.pop("round trips")
                results["network"].update({f"{backend}, {k}": v for k, v in found.items()})
            results["round trips"] = trips
        if "web" in sections:
            _say("FastAPI")
            results["web"] = asyncio.run(web.measure(places.get("postgres", "bench_web"), few))
        if "bulk" in sections:
            results["bulk"] = {}
            for backend in BACKENDS:
                _say(f"bulk inserts, {backend}")
                place = places.get(backend, "bench_bulk")
                results["bulk"][backend] = asyncio.run(bulk.measure(place, few))
        if "growth" in sections:
            results["growth"] = asyncio.run(grow(places, rounds, quick=quick))
    return results


def _say(title: str) -> None:
    print(f"measuring {title} …", file=sys.stderr, flush=True)


async def grow(places: Places, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Measure how time and memory grow."""
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    counts = [10, 100] if quick else [10, 100, 1_000, 10_000]
    found: dict[str, Any] = {}
    for backend in ("postgres", "mysql"):
        place_of = partial(places.get, backend)
        _say(f"growth, {backend}")
        found[f"{backend}, rows in the table"] = await growth.rows(place_of, sizes, rounds)
        found[f"{backend}, distinct statements"] = await growth.statements(place_of, counts, rounds)
    place = places.get("postgres", "bench_sessions")
    found["open sessions"] = await growth.sessions(place, [1, 100, 1_000, 10_000])
    return found


def main() -> None:
    """Read the command line, measure, report."""
    parser = ArgumentParser(prog="benchmarks")
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="section")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sections = options.sections or [
        name for name in SECTIONS if not options.quick or name != "growth"
    ]
    results = run(sections, 3 if options.quick else options.rounds, quick=options.quick)
    page = report.markdown(results)
    print(page)
    if not options.quick and not options.sections:
        (report.FOLDER / "results.md").write_text(page, encoding="utf-8")
        report.plots(results)


if __name__ == "__main__":
    main()
