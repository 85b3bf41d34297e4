"""
The example service under load, as a process of its own with one worker and with two.

Clients go away at random moments, read slowly, or come in crowds; handlers forget what they can
forget; the server of the database is killed. What must hold each time: no connection stays out,
no transaction stays open, no success was told whose data is not there, nobody waits for ever, and
each worker says all the time that it lives.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from lending_library.models import Author, metadata
from moorage import Database, DatabaseSettings
from scripts.demo_server import Service, running_service
from tests.chaos.conftest import no_open_transaction
from tests.fix_backend import chosen_backends
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale
from tests.load.client import Line, Load, Workers, ask
from tests.servers import OwnServer, own_server

APPLICATION = "tests.load.service:app"
SERVERS = [name for name in chosen_backends() if name != "sqlite"]
FORGOTTEN = (
    "commit",
    "commit-behind-flush",
    "second-commit",
    "error",
    "conflict",
    "session",
    "the-end",
    "later",
)
# Small enough to run dry, with a wait that is short beside the client's patience.
POOL = {"DB_POOL_SIZE": "3", "DB_MAX_OVERFLOW": "3", "DB_POOL_TIMEOUT_SECONDS": "1"}
CAPACITY = 6


@dataclass(frozen=True)
class Running:
    """The service, its workers, and the database seen from outside of it."""

    service: Service
    workers: Workers
    watcher: Database

    @property
    def url(self) -> str:
        """Return where it answers."""
        return self.service.url

    async def nothing_is_left(self, load: Load) -> None:
        """Check what must hold behind everything."""
        await self.workers.settled()
        await no_open_transaction(self.watcher)
        assert load.hung == []
        async with self.watcher.session() as session:
            there = set(await session.scalars(select(Author.name)))
        assert load.stored - there == set(), self.service.log_tail()


async def create_tables(database: Database) -> None:
    """Create the tables of the service."""
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


Serve = Callable[[int], AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve(
    fresh_database: Mapping[str, str | int], make_database: DatabaseFactory, tmp_path: Path
) -> Serve:
    """Return a block in which the service runs with a number of workers, on a fresh database."""
    variables = {f"DB_{field.upper()}": str(value) for field, value in fresh_database.items()}

    @asynccontextmanager
    async def run(workers: int) -> AsyncIterator[Running]:
        settings = {**variables, **POOL}
        watcher = make_database()
        await create_tables(watcher)
        with running_service(settings, tmp_path, workers, APPLICATION) as service:
            found = await Workers.find(service.url, workers)
            async with found.stay_alive():
                yield Running(service, found, watcher)

    return run


@pytest.mark.scaled(small=["sqlite-1", "postgres-2", "mysql-1"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_is_left_behind(workers: int, serve: Serve, scale: Scale) -> None:
    """Whatever clients and handlers do, nothing stays behind and no success is a lie."""
    async with serve(workers) as running:
        load = Load(running.url)
        await clients_that_go_away(running, load, scale(small=60, full=1_700))
        await slow_readers(running, load, scale(small=12, full=200))
        await forgetful_handlers(running, load, scale(small=2, full=40))
        await more_requests_than_connections(running, load)
        if workers == 1:
            await the_usual_dependency(running)
        assert len(running.workers.alive) == workers


async def clients_that_go_away(running: Running, load: Load, number: int) -> None:
    """Let clients leave before, in the middle of, and behind their answers."""
    await load.many(number, 12, "gone")
    assert load.stored
    assert not {"500", "504"} & set(load.answers), (load.answers, running.service.log_tail())
    await running.nothing_is_left(load)


async def open_streams(url: str, path: str, number: int) -> list[Line]:
    """Open streams and read their beginnings, no more."""
    lines = []
    for _ in range(number):
        lines.append(await Line.open(url))
        lines[-1].send("GET", path)
        async with asyncio.timeout(60):
            status, _headers = await lines[-1].head()
        assert status == 200
    return lines


async def slow_readers(running: Running, load: Load, number: int) -> None:
    """Work as usual beside streams whose clients hardly read: they hold no connection."""
    lines = await open_streams(running.url, "/load/stream", number)
    states = await running.workers.states()
    assert sum(state["streams"] for state in states) == number
    for n in range(10):
        assert await load.create(f"beside the stream {n}") == 201
    assert [state["in_use"] for state in await running.workers.states()] == [0] * len(states)
    for line in lines:
        line.leave()
    await running.nothing_is_left(load)


async def forgetful_handlers(running: Running, load: Load, times: int) -> None:
    """Call handlers that forget everything, again and again: they fail, or have stored."""
    for forgotten in FORGOTTEN:
        seen = Counter(
            await asyncio.gather(
                *(
                    load.forget(f"/load/forget/{forgotten}", f"{forgotten} {n}")
                    for n in range(times)
                )
            )
        )
        # 503: those of "session" take a second connection each until the collector has come.
        assert seen.keys() <= {200, 500, 503}, (forgotten, seen, running.service.log_tail())
    await running.nothing_is_left(load)


async def more_requests_than_connections(running: Running, load: Load) -> None:
    """Let a crowd keep all connections: who gets none is told when to come back."""
    lines = [await Line.open(running.url) for _ in range(CAPACITY * 2 + 12)]
    for line in lines:
        line.send("GET", "/load/hold")
    answers = [asyncio.create_task(line.answer()) for line in lines]
    async with asyncio.timeout(60):
        holding = 0
        while holding + sum(answer.done() for answer in answers) < len(lines):
            await asyncio.sleep(0.02)
            holding = sum(state["holding"] for state in await running.workers.states())
    refused = [answer.result() for answer in answers if answer.done()]
    assert {answer.status for answer in refused} == {503}
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert holding >= CAPACITY
    assert (await ask(running.url, "GET", "/health/ready")).status == 200
    for line in lines:
        line.leave()
    await asyncio.gather(*answers, return_exceptions=True)
    await running.nothing_is_left(load)


async def the_usual_dependency(running: Running) -> None:
    """Do the same by the dependency that everybody writes: it tells lies, and runs dry."""
    load = Load(running.url)
    assert await load.forget("/load/usual/conflict", "twice") == 200
    with pytest.raises(AssertionError):
        await running.nothing_is_left(load)
    lines = await open_streams(running.url, "/load/usual/stream", CAPACITY)
    assert await load.create("beside the stream") == 503
    for line in lines:
        line.leave()


@pytest.fixture(params=SERVERS)
def own(request: pytest.FixtureRequest) -> OwnServer:
    """Return a server of this test's own, which it may kill."""
    with own_server(request.param) as server:
        yield server


@pytest.mark.scaled
@pytest.mark.skipif(not SERVERS, reason="SQLite has no server")
async def test_a_server_that_is_killed(own: OwnServer, tmp_path: Path, scale: Scale) -> None:
    """While the database is down clients hear so in time; afterwards all is as before."""
    variables = own.environment("library")
    names = {name.removeprefix("DB_").lower(): value for name, value in variables.items()}
    watcher = Database(DatabaseSettings(**names, _env_file=None))
    await create_tables(watcher)
    number = scale(small=1, full=2)
    with running_service({**variables, **POOL}, tmp_path, number, APPLICATION) as service:
        workers = await Workers.find(service.url, number)
        running = Running(service, workers, watcher)
        load = Load(service.url)
        over = False

        async def client(number: int) -> None:
            n = 0
            while not over:
                await load.create(f"{number}-{n}")
                n += 1

        async def until(answer: str, more: int) -> None:
            wanted = load.answers[answer] + more
            async with asyncio.timeout(60):
                while load.answers[answer] < wanted:
                    await asyncio.sleep(0.01)

        async with workers.stay_alive():
            async with asyncio.TaskGroup() as clients:
                for number in range(8):
                    clients.create_task(client(number))
                for _ in range(scale(small=1, full=4)):
                    await until("201", 50)
                    await asyncio.to_thread(own.kill)
                    await until("503", 8)
                    await asyncio.to_thread(own.start)
                await until("201", 50)
                over = True
            # 500: the outcome of a COMMIT that nobody answered is unknown.
            assert set(load.answers) <= {"201", "503", "500"}, service.log_tail()
            await running.nothing_is_left(load)
    await watcher.dispose()
