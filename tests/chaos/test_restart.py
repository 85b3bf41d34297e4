"""Servers that go away under load and come back: nobody hangs, and nobody is lied to."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import (
    CommitOutcomeUnknownError,
    Database,
    DatabaseError,
    DatabaseSettings,
    run_unit,
)
from tests.chaos.conftest import no_open_transaction
from tests.fix_backend import chosen_backends
from tests.fix_scale import Scale
from tests.matrix.schema import Account, create_tables
from tests.servers import OwnServer, own_server

SERVERS = [name for name in chosen_backends() if name != "sqlite"]

pytestmark = pytest.mark.skipif(not SERVERS, reason="SQLite has no server")


@pytest.fixture(params=SERVERS, scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    """Return a server of these tests' own, which they may kill, and leave running."""
    with own_server(request.param) as server:
        yield server


def database_on(server: OwnServer) -> Database:
    """Return a database on the server."""
    address = server.address
    return Database(
        DatabaseSettings(
            type=server.backend,
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            name=address.database,
            _env_file=None,
        )
    )


@pytest.mark.scaled
async def test_units_survive_restarts(server: OwnServer, scale: Scale) -> None:
    """Units are run again until the server is back; each tells the truth about itself."""
    database = database_on(server)
    await create_tables(database)
    ended: dict[str, str] = {}
    progress = asyncio.Condition()
    finished = False

    async def insert(name: str) -> str:
        async def work(session: AsyncSession) -> None:
            session.add(Account(owner=name))
            await session.flush()
            await session.execute(select(Account).where(Account.owner == name))

        try:
            await run_unit(work, database.sessionmaker, attempts=1000, deadline_seconds=60)
        except CommitOutcomeUnknownError:
            return "unknown"
        except DatabaseError as error:
            return type(error).__name__
        return "committed"

    async def load(task: int) -> None:
        number = 0
        while not finished:
            name = f"{task}-{number}"
            ended[name] = await insert(name)
            number += 1
            async with progress:
                progress.notify_all()

    async def committed(more: int) -> None:
        target = Counter(ended.values())["committed"] + more
        async with progress:
            await progress.wait_for(lambda: Counter(ended.values())["committed"] >= target)

    async with asyncio.timeout(scale(small=100, full=600)), asyncio.TaskGroup() as tasks:
        for task in range(scale(small=8, full=32)):
            tasks.create_task(load(task))
        for number in range(scale(small=2, full=20)):
            await committed(50)
            # Killed, or shut down in order with clients connected.
            await asyncio.to_thread(server.stop if number % 2 else server.kill)
            await asyncio.to_thread(server.start)
        await committed(50)
        finished = True

    assert set(ended.values()) <= {"committed", "unknown"}
    assert database.pool_statistics().in_use == 0
    await no_open_transaction(database)
    async with database.session() as session:
        stored = set(await session.scalars(select(Account.owner)))
    certain = {name for name, ending in ended.items() if ending == "committed"}
    assert certain <= stored
    assert stored <= set(ended)
    await database.dispose()


async def test_a_server_that_starts_is_waited_for(
    server: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting for a server that is down says what it waits for, and ends when it is there."""
    database = database_on(server)
    await database.ping()
    await asyncio.to_thread(server.stop)
    told = f"waiting for the database: the database at {server.address.host}"
    waiting = asyncio.create_task(database.wait_until_ready(90))
    async with asyncio.timeout(90):
        # The connection that is there may be heard to have ended first.
        while told not in caplog.text:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await asyncio.to_thread(server.start)
        await waiting
    await database.dispose()
