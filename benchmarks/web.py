"""FastAPI end to end: one process of uvicorn per peer, and 32 clients that keep it busy."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import interleaved, ratios
from benchmarks.schema import NEW_KEYS, ROWS, Place, fill
from tests.servers.supervision import free_port

CLIENTS = 32
SECONDS = 1.0
VARIANTS = ("raw driver", "everybody's", "moorage", "advanced-alchemy", "fastapi-sqla")


async def client(port: int, method: str, end: float) -> int:
    """Ask again and again on one connection; return how many answers were right."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while time.perf_counter() < end:
        key = random.randint(1, ROWS) if method == "GET" else next(NEW_KEYS)
        writer.write(
            f"{method} /books/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head!r} {body[:300]!r}")
        done += 1
    writer.close()
    return done


async def load(port: int, method: str) -> float:
    """Let the clients ask for a while; return the seconds per request."""
    begin = time.perf_counter()
    clients = (client(port, method, begin + SECONDS) for _ in range(CLIENTS))
    done = sum(await asyncio.gather(*clients))
    return (time.perf_counter() - begin) / done


async def answers(port: int) -> None:
    """Return when somebody listens."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def measure(place: Place, rounds: int) -> dict[str, Any]:
    """Return the ratios of GET and POST."""
    await fill(place)
    ports: dict[str, int] = {}
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in VARIANTS:
            port = ports[name] = free_port()
            environment = {
                **os.environ,
                "BENCH_VARIANT": name,
                "BENCH_PLACE": json.dumps(asdict(place)),
            }
            command = [sys.executable, "-m", "uvicorn", "benchmarks.web_app:app", "--no-access-log"]
            process = subprocess.Popen(  # noqa: ASYNC220 (started once, before measuring)
                [*command, "--port", str(port), "--log-level", "warning"],
                env=environment,
                cwd=Path(__file__).parents[1],
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for port in ports.values():
            await answers(port)
        for method in ("GET", "POST"):
            variants = {
                name: (lambda port=port, method=method: load(port, method))
                for name, port in ports.items()
            }
            times = await interleaved(variants, rounds)
            result[f"FastAPI {method}"] = {
                base: ratios(times, base) for base in ("raw driver", "everybody's")
            }
            for base in ("advanced-alchemy", "fastapi-sqla"):
                result[f"FastAPI {method}"][base] = ratios(times, base)
    return result
