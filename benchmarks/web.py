"""FastAPI end to end: one process of uvicorn per peer, and 32 clients that keep it busy."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import load_generator
from benchmarks.measure import interleaved, ratios
from benchmarks.schema import Place, fill
from tests.servers.supervision import free_port

CLIENTS = 32
SECONDS = 1.0
VARIANTS = (
    "raw driver",
    "everybody's",
    "moorage",
    "advanced-alchemy",
    "fastapi-sqla",
    "no database",
)
BASES = ("raw driver", "everybody's", "advanced-alchemy", "fastapi-sqla")


class Service:
    """
    The service of one peer, in a process of its own.

    Attributes:
        processor: By method, the seconds of the processor per request of each round.
    """

    def __init__(self, name: str, place: Place, stack: ExitStack) -> None:
        self.port = free_port()
        self.processor: dict[str, list[float]] = {}
        environment = {
            **os.environ,
            "BENCH_VARIANT": name,
            "BENCH_PLACE": json.dumps(asdict(place)),
        }
        command = [sys.executable, "-m", "uvicorn", "benchmarks.web_app:app"]
        # Named, so that no peer is served by whatever happens to be installed.
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--log-level", "warning"],
            env=environment,
            cwd=Path(__file__).parents[1],
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.terminate)

    async def answers(self) -> None:
        """Return when it listens."""
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    return

    async def load(self, clients: load_generator.LoadGenerator, method: str) -> float:
        """Let the clients ask for a while; return the seconds per request."""
        before = self._processor_seconds()
        seconds = await clients.run(self.port, method, CLIENTS, SECONDS)
        spent = self._processor_seconds() - before
        self.processor.setdefault(method, []).append(spent * seconds / SECONDS)
        return seconds

    def _processor_seconds(self) -> float:
        # The fields behind the name, which may hold anything: proc_pid_stat(5).
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(place: Place, rounds: int) -> dict[str, Any]:
    """Return the ratios of GET and POST, and what each costs the server's processor."""
    await fill(place)
    clients = load_generator.obtain()
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        services = {name: Service(name, place, stack) for name in VARIANTS}
        for service in services.values():
            await service.answers()
        for method in ("GET", "POST"):
            variants = {
                name: partial(service.load, clients, method) for name, service in services.items()
            }
            for variant in variants.values():
                await variant()  # connections are opened, a few at a time
            times = await interleaved(variants, rounds)
            result[f"FastAPI {method}"] = {base: ratios(times, base) for base in BASES}
            processor = {
                name: service.processor[method][-rounds:] for name, service in services.items()
            }
            result[f"FastAPI {method}, processor of the server"] = {
                base: ratios(processor, base) for base in BASES
            }
    result["clients"] = str(clients)
    return result
