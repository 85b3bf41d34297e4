"""Links that are cut, stall or swallow everything: each call ends, with an error of ours."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from moorage import ConnectionLostError, Database, DatabaseError
from tests.chaos.conftest import no_open_transaction
from tests.chaos.proxy import Fault, Proxy
from tests.fix_backend import chosen_backends
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, create_tables

SERVERS = [name for name in chosen_backends() if name != "sqlite"]
# No call has to wait longer than two of these together, and closing a connection 2 s more; the
# tests give them all the time in the world.
LIMITS: dict[str, Any] = {
    "connect_timeout_seconds": 1,
    "statement_timeout_seconds": 0.5,
    "answer_grace_seconds": 0.2,
    "commit_timeout_seconds": 0.5,
    "pool_ping_idle_seconds": 3600,
}
HARD_SECONDS = 60
WITHOUT_TLS: dict[str, dict[str, Any]] = {
    "asyncpg": {"ssl": False},
    "psycopg": {"sslmode": "disable", "gssencmode": "disable"},
}

pytestmark = pytest.mark.skipif(not SERVERS, reason="SQLite has no link")
Work = Callable[[AsyncSession], Awaitable[object]]


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    """Run the test once on each backend that has a server."""
    name: str = request.param
    return name


@pytest.fixture
async def watcher(make_database: DatabaseFactory) -> Database:
    """Return a database on the straight way to the server, with the tables."""
    watcher = make_database()
    await create_tables(watcher, "ada")
    return watcher


@pytest.fixture
async def database(through_proxy: DatabaseFactory, watcher: Database) -> Database:
    """Return a database that is reached by the proxy and has opened a connection."""
    database = through_proxy(**LIMITS)
    await database.ping()
    return database


def plain_engine(database: Database) -> AsyncEngine:
    """Return SQLAlchemy's own engine on the same way to the server."""
    url = database.connector.get_url()
    return create_async_engine(url, connect_args=WITHOUT_TLS.get(url.get_driver_name(), {}))


async def stream(session: AsyncSession) -> None:
    """Read a result piece by piece."""
    async for _ in await session.stream(select(Account)):
        pass


WORK: dict[bytes, Work] = {
    b"SELECT": lambda session: session.scalars(select(Account)),
    b"INSERT": lambda session: session.execute(
        insert(Account), [{"owner": str(number), "balance": 0} for number in range(3)]
    ),
    b"COMMIT": lambda session: session.commit(),
    b"ROLLBACK": lambda session: session.rollback(),
}


@pytest.mark.parametrize("fault", ["stall", "cut before", "cut after"])
@pytest.mark.parametrize("word", WORK)
async def test_each_call_ends(
    database: Database, watcher: Database, proxy: Proxy, word: bytes, fault: Fault
) -> None:
    """A call whose link fails raises an error of ours, and its connection is not used again."""
    async with asyncio.timeout(HARD_SECONDS):
        session = database.session()
        await session.execute(text("UPDATE account SET balance = 1"))
        proxy.arm(word, fault)
        with pytest.raises(DatabaseError) as caught:
            await WORK[word](session)
        assert proxy.happened == 1
        assert caught.value.connection_invalidated  # type: ignore[attr-defined]  # it is blended
        await session.close()
        assert database.pool_statistics().in_use == 0
        await database.ping()
        await no_open_transaction(watcher)


async def test_a_stalled_stream_ends(
    through_proxy: DatabaseFactory, watcher: Database, proxy: Proxy
) -> None:
    """A result that is read piece by piece ends as well when its first piece does not come."""
    database = through_proxy(**LIMITS)
    async with asyncio.timeout(HARD_SECONDS):
        session = database.session()
        await session.execute(text("UPDATE account SET balance = 1"))
        is_psycopg = database.engine.dialect.driver == "psycopg"
        proxy.arm(b"DECLARE" if is_psycopg else b"SELECT", "stall")
        with pytest.raises(DatabaseError):
            await stream(session)
        await session.close()
        await database.ping()


# More than the buffers between a server and a client hold, in pieces that come one by one.
MANY_ROWS = text(
    "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers"
    " WHERE number < 300) SELECT number, REPEAT('x', 100000) FROM numbers"
).execution_options(yield_per=5)


async def read_into_the_hole(connection: AsyncConnection, proxy: Proxy) -> None:
    """Read a long result, whose rows do not come any more once the first ones have."""
    async with connection.stream(MANY_ROWS) as rows:
        async for _ in rows:
            proxy.is_black_hole = True


async def test_a_black_hole_does_not_hold_a_stream(database: Database, proxy: Proxy) -> None:
    """A stream ends when its next rows do not come, as a statement does without an answer."""
    async with asyncio.timeout(HARD_SECONDS):
        with pytest.raises(ConnectionLostError, match="no answer"):
            async with database.engine.connect() as connection:
                await read_into_the_hole(connection, proxy)
        assert database.pool_statistics().in_use == 0
        proxy.is_black_hole = False
        await database.ping()


async def test_a_black_hole_holds_a_stream_of_the_plain_engine(
    database: Database, proxy: Proxy
) -> None:
    """Negative control: long after our deadline SQLAlchemy's own engine waits for the next rows."""
    plain = plain_engine(database)
    async with plain.connect() as connection:
        waiting = asyncio.create_task(read_into_the_hole(connection, proxy))
        done, _ = await asyncio.wait({waiting}, timeout=1.5)
        assert not done
        waiting.cancel()
        await asyncio.wait({waiting})
        await connection.invalidate()
    await plain.dispose()


async def test_a_black_hole_holds_nobody(
    through_proxy: DatabaseFactory, watcher: Database, proxy: Proxy
) -> None:
    """When everything is swallowed, old links and new ones, each unit ends; then work goes on."""
    database = through_proxy(**LIMITS, pool_size=5, max_overflow=0)

    async def unit(owner: str) -> str:
        try:
            async with database.unit_of_work() as session:
                session.add(Account(owner=owner))
        except DatabaseError:
            return "failed"
        return "committed"

    async with asyncio.timeout(HARD_SECONDS):
        assert set(await asyncio.gather(*(unit(f"a{n}") for n in range(10)))) == {"committed"}
        proxy.is_black_hole = True
        assert set(await asyncio.gather(*(unit(f"b{n}") for n in range(10)))) == {"failed"}
        assert database.pool_statistics().in_use == 0
        proxy.is_black_hole = False
        assert set(await asyncio.gather(*(unit(f"c{n}") for n in range(10)))) == {"committed"}
        await no_open_transaction(watcher)


async def test_a_black_hole_does_not_hold_a_disposal(database: Database, proxy: Proxy) -> None:
    """A database whose links swallow everything is disposed all the same."""
    held = [await database.engine.connect() for _ in range(3)]
    for connection in held:
        await connection.execute(text("SELECT 1"))
    for connection in held[1:]:
        await connection.close()
    proxy.is_black_hole = True
    async with asyncio.timeout(HARD_SECONDS):
        await database.dispose(drain_seconds=0.05)
        with pytest.raises(DatabaseError):
            await held[0].close()


async def test_a_stall_holds_the_plain_engine(database: Database, proxy: Proxy) -> None:
    """Negative control: long after our deadline SQLAlchemy's own engine is still waiting."""
    plain = plain_engine(database)
    connection = await plain.connect()
    await connection.execute(text("SELECT 1"))
    proxy.arm(b"SELECT 2", "stall")
    waiting = asyncio.create_task(connection.execute(text("SELECT 2")))
    done, _ = await asyncio.wait({waiting}, timeout=1.5)
    assert not done
    waiting.cancel()
    await asyncio.wait({waiting})
    await connection.invalidate()
    await connection.close()
    await plain.dispose()
