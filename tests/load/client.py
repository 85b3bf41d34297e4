"""A load generator that leaves when it wants to, and notes who was told what."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

# Longer than any wait that the service allows itself; who has no answer by then never gets one.
DEADLINE_SECONDS = 60.0

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        """Return the body's data."""
        return json.loads(self.body)


class Line:
    """A connection that is kept: it always reaches the same worker."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> "Line":
        """Connect."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    def send(self, method: str, path: str, data: Any = None) -> None:
        """Send a request."""
        body = b"" if data is None else json.dumps(data).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: library\r\nContent-Length: {len(body)}\r\n"
        kind = "Content-Type: application/json\r\n" if body else ""
        self._writer.write(f"{head}{kind}\r\n".encode() + body)

    async def answer(self) -> Answer:
        """Read the answer, whole."""
        status, headers = await self.head()
        if "content-length" in headers:
            body = await self._reader.readexactly(int(headers["content-length"]))
        else:
            body = b"".join([chunk async for chunk in self._chunks()])
        return Answer(status, body, headers)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the beginning of the answer, and leave the rest where it is."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readline()

    async def ask(self, method: str, path: str, data: Any = None) -> Answer:
        """Send a request and read its answer, whole, within the deadline; one at a time."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._turn:
            self.send(method, path, data)
            return await self.answer()

    def leave(self) -> None:  # not a close: nobody shall wait for anybody
        """Go away without a word."""
        self._writer.transport.abort()


async def ask(url: str, method: str, path: str, data: Any = None) -> Answer:
    """Ask on a connection of its own."""
    line = await Line.open(url)
    try:
        return await line.ask(method, path, data)
    finally:
        line.leave()


@dataclass
class Load:
    """Requests, and what their answers promise."""

    url: str
    seed: int = 1851
    stored: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    hung: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    async def create(self, name: str) -> int | None:
        """Create an author; a 201 is a promise. Return ``None`` where the connection was lost."""
        return await self._promised(name, "/authors", data={"name": name})

    async def forget(self, path: str, name: str) -> int | None:
        """Call a handler that forgets something; a 200 is a promise all the same."""
        return await self._promised(name, f"{path}?{urlencode({'name': name})}")

    async def _promised(self, name: str, path: str, data: Any = None) -> int | None:
        try:
            answer = await ask(self.url, "POST", path, data)
        except TimeoutError:
            self.hung.append(path)
            return None
        except (OSError, asyncio.IncompleteReadError):
            self.answers["cut"] += 1
            return None
        self.answers[str(answer.status)] += 1
        if answer.status < 300:
            self.stored.add(name)
        return answer.status

    async def leave_at_some_moment(self, name: str) -> None:
        """Send a request and go away before, in the middle of, or behind its answer."""
        kind = self.chance.choice(("create", "create", "read", "export"))
        moment = self.chance.choice(("sent", "soon", "head", "never"))
        line = await Line.open(self.url)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                if kind == "create":
                    line.send("POST", "/authors", {"name": name})
                else:
                    line.send("GET", "/books" if kind == "read" else "/load/export")
                if moment == "soon":
                    await asyncio.sleep(self.chance.uniform(0, 0.02))
                elif moment == "head":
                    await line.head()
                elif moment == "never":
                    answer = await line.answer()
                    self.answers[str(answer.status)] += 1
                    if kind == "create" and answer.status == 201:
                        self.stored.add(name)
            self.answers[f"left: {moment}"] += 1
        except TimeoutError:
            self.hung.append(f"{kind}, {moment}")
        finally:
            line.leave()

    async def many(self, number: int, at_once: int, prefix: str) -> None:
        """Let many clients go away at some moment."""
        names = iter(range(number))

        async def client() -> None:
            for n in names:
                await self.leave_at_some_moment(f"{prefix} {n}")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())


class Workers:
    """A connection to each worker, on which it is asked whether it lives."""

    def __init__(self, lines: dict[int, Line]) -> None:
        self.lines = lines
        self.alive: Counter[int] = Counter()

    @classmethod
    async def find(cls, url: str, number: int) -> "Workers":
        """Connect until every worker has answered."""
        lines: dict[int, Line] = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(lines) < number:
                opened = await asyncio.gather(*(Line.open(url) for _ in range(16)))
                states = await asyncio.gather(*(line.ask("GET", "/load/state") for line in opened))
                for line, answer in zip(opened, states, strict=True):
                    if lines.setdefault(answer.json()["pid"], line) is not line:
                        line.leave()
        return cls(lines)

    async def states(self) -> list[dict[str, int]]:
        """Ask each worker what it holds."""
        answers = await asyncio.gather(
            *(line.ask("GET", "/load/state") for line in self.lines.values())
        )
        return [answer.json() for answer in answers]

    async def settled(self) -> None:
        """Return when no worker holds anything; they get as long as any request."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while any(
                any(state[what] for what in ("in_use", "waiting", "streams", "holding"))
                for state in await self.states()
            ):
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def stay_alive(self) -> AsyncIterator[None]:
        """Ask each worker all the time whether it lives; one that does not answer is an error."""
        over = asyncio.Event()

        async def probe(pid: int, line: Line) -> None:
            while not over.is_set():
                answer = await line.ask("GET", "/health/live")
                assert answer.status == 200, answer
                self.alive[pid] += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await over.wait()

        try:
            async with asyncio.TaskGroup() as group:
                for pid, line in self.lines.items():
                    group.create_task(probe(pid, line))
                try:
                    yield
                finally:
                    over.set()
        finally:
            for line in self.lines.values():
                line.leave()
