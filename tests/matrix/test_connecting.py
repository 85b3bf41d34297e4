"""How connections are opened and checked: not too many at once, and for as little as possible."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import Database, DatabaseError
from tests.counting_proxy import CountingProxy
from tests.fix_database import DatabaseFactory
from tests.matrix.test_pool import count_connects

TASKS = 20


@pytest.fixture(autouse=True)
def only_servers(make_database: DatabaseFactory, backend: str) -> None:
    """Leave the embedded backend out: it has no server to storm."""
    if not make_database().connector.capabilities.networked:
        pytest.skip(f"{backend} is not reached over a network")


class Besieged:
    """A server that takes connections, lets them wait until enough are there, and drops them."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._open = 0
        self._released = asyncio.Event()
        self.most = 0
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        self._open += 1
        self.most = max(self.most, self._open)
        if self._open >= self._enough:
            self._released.set()
        await self._released.wait()
        self._open -= 1
        writer.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Besieged"]:
        """Listen on a port."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0, backlog=2 * TASKS)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


async def test_a_server_is_not_stormed(make_database: DatabaseFactory) -> None:
    """However many tasks need connections, a few are opened at once, and each task is answered."""
    async with Besieged(enough=3).listening() as server:
        database = make_database(
            host="127.0.0.1",
            port=server.port,
            ssl_mode="disable",
            connect_timeout_seconds=60,
            pool_connects_at_once=3,
        )
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(
                *(database.ping() for _ in range(TASKS)), return_exceptions=True
            )
        assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
        assert server.most == 3


async def test_a_plain_engine_storms_it(database: Database) -> None:
    """Negative control: SQLAlchemy's own pool opens as many connections as tasks want, at once."""
    async with Besieged(enough=TASKS).listening() as server:
        url = database.connector.get_url().set(host="127.0.0.1", port=server.port)
        tls = {"ssl": False} if "asyncpg" in url.drivername else {}
        engine = create_async_engine(url, pool_size=TASKS, connect_args=tls)

        async def connect() -> None:
            async with engine.connect():
                pass

        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(
                *(connect() for _ in range(TASKS)), return_exceptions=True
            )
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
        assert server.most == TASKS
        await engine.dispose()


async def test_the_next_connects_do_not_wait_when_the_server_is_back(
    make_database: DatabaseFactory, unused_port: int
) -> None:
    """After many failures one success lets all others connect."""
    broken = make_database(port=unused_port)
    outcomes = await asyncio.gather(*(broken.ping() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
    database = make_database(pool_size=10)
    held = await asyncio.gather(*(database.engine.connect() for _ in range(10)))
    for connection in held:
        await connection.close()
    assert database.pool_statistics().idle == 10


@pytest.mark.parametrize(("ping", "trips"), [("always", 1), ("idle", 0), ("never", 0)])
async def test_a_check_is_one_round_trip(
    make_database: DatabaseFactory, fresh_database: dict[str, Any], ping: str, trips: int
) -> None:
    """A connection is checked in one round trip where it is asked for, and else for nothing."""
    async with CountingProxy(fresh_database["host"], fresh_database["port"]) as proxy:
        database = make_database(
            host="127.0.0.1", port=proxy.port, ssl_mode="disable", pool_pre_ping=ping
        )
        await database.ping()
        proxy.reset()
        async with database.engine.connect():
            pass
        assert proxy.round_trips == trips
        await database.dispose()


async def test_what_the_driver_has_noticed_is_replaced(make_database: DatabaseFactory) -> None:
    """A connection that the server has ended is replaced without a ping."""
    watcher = make_database(pool_size=1)
    database = make_database(pool_size=1, max_overflow=0, pool_ping_idle_seconds=3600)
    await database.ping()
    opened = count_connects(database.engine)
    end = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "KILL {}",
    }[database.engine.dialect.name]
    async with watcher.session() as session:
        if "{}" in end:
            number = await session.scalar(
                text(
                    "SELECT id FROM information_schema.processlist"
                    " WHERE db = database() AND id <> connection_id()"
                )
            )
            end = end.format(number)
        await session.execute(text(end))
    driver = await _idle_driver_connection(database)
    async with asyncio.timeout(30):
        while not database.connector.is_closed(driver):
            await asyncio.sleep(0.01)
    await database.ping()
    assert len(opened) == 1


async def _idle_driver_connection(database: Database) -> Any:
    pool: Any = database.engine.pool
    (place,) = pool._places.values()
    return place.idle[0][1].driver_connection
