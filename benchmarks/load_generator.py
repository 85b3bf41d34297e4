"""
wrk, which keeps a server busy and takes little of the processor that the server needs.

It is taken from this machine, or unpacked from Debian's package into a cache. Where neither works
the clients are coroutines of this process, which cost about as much as the server; the page with
the results says which it was.
"""

import asyncio
import itertools
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.schema import ROWS
from tests.servers import debian
from tests.servers.places import UnsafePlaceError, cached_tree
from tests.servers.server import find_program
from tests.servers.supervision import ProgramError

NAME = "wrk"
SCRIPT = Path(__file__).with_name("requests.lua")
# New keys of one run of a load generator; none makes more requests than that in its second.
KEYS = 100_000


@dataclass(frozen=True)
class LoadGenerator:
    """Clients that ask again and again; without a program they are coroutines of this process."""

    program: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    blocks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __str__(self) -> str:
        return "coroutines of the measuring process" if self.program is None else NAME

    async def run(self, port: int, method: str, clients: int, seconds: float) -> float:
        """
        Keep a server busy for a while; return the seconds per request.

        Raises:
            RuntimeError: A request was not answered with 200.
        """
        first = KEYS * next(self.blocks)
        if self.program is None:
            return await _by_coroutines(port, method, clients, seconds, itertools.count(first))
        arguments = [f"-c{clients}", "-t1", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT)]
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            f"http://127.0.0.1:{port}",
            "--",
            method,
            str(first),
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await process.communicate())[0].decode()
        told = [line.split()[1:] for line in output.splitlines() if line.startswith("counted ")]
        if process.returncode or not told:
            raise RuntimeError(f"{NAME} failed: {output}")
        microseconds, requests, failed = map(int, told[0])
        if failed or not requests:
            raise RuntimeError(f"{failed} of {requests} requests failed: {output}")
        return microseconds / requests / 1e6


def obtain() -> LoadGenerator:
    """Return wrk if it can be had, else the coroutines."""
    if (path := find_program(NAME, "/usr/bin", "/usr/local/bin")) is not None:
        return LoadGenerator(path)
    if debian.available():
        try:
            root = cached_tree(NAME, lambda target: debian.unpack([NAME], target)) / "usr"
        except (ProgramError, UnsafePlaceError):
            return LoadGenerator()
        libraries = sorted({str(path.parent) for path in (root / "lib").rglob("*.so*")})
        program = root / "bin" / NAME
        if program.exists():
            return LoadGenerator(program, {"LD_LIBRARY_PATH": ":".join(libraries)})
    return LoadGenerator()


async def _by_coroutines(
    port: int, method: str, clients: int, seconds: float, new_keys: Iterator[int]
) -> float:
    begin = time.perf_counter()

    async def client() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        while time.perf_counter() < begin + seconds:
            key = random.randint(1, ROWS) if method == "GET" else next(new_keys)
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

    done = sum(await asyncio.gather(*(client() for _ in range(clients))))
    return (time.perf_counter() - begin) / done
