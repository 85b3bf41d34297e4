"""Links that are cut, stall or swallow everything: each call ends, with an error of ours."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text, util
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from moorage import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    bulk_insert,
)
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
LOST = (ConnectionLostError, CommitOutcomeUnknownError, DatabaseUnavailableError)


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


async def longer_than_ours(waiting: asyncio.Task[Any]) -> None:
    """See that a task still waits when ours would have ended, and cancel it."""
    done, _ = await asyncio.wait({waiting}, timeout=1)
    assert not done
    waiting.cancel()
    await asyncio.wait({waiting})


def drop(connection: AsyncConnection) -> None:
    """Close a connection without the two seconds that SQLAlchemy gives it for a goodbye."""
    assert connection.sync_connection is not None
    connection.sync_connection.invalidate()  # outside of its greenlet


Fail = Callable[[bytes], None]
"""Called with the first word of the statement at which the link shall fail."""


async def connecting(database: Database, fail: Fail) -> None:
    """Open a connection, in the middle of whose handshake the link fails."""
    fail(b"")
    async with database.engine.connect(), database.engine.connect():
        pass


async def checking(database: Database, fail: Fail) -> None:
    """Take a connection that is asked first whether it lives."""
    fail(b"")
    await database.ping()


async def pinging(database: Database, fail: Fail) -> None:
    """Ask the database whether it is there."""
    fail(b"")
    await database.ping()


async def waiting_until_ready(database: Database, fail: Fail) -> None:
    """Wait for a database whose first link fails."""
    await database.dispose()
    fail(b"")
    async with Database(database.settings) as starting:
        await starting.wait_until_ready(2)


async def beginning(database: Database, fail: Fail) -> None:
    """Begin a transaction that is more than the first statement."""
    fail(b"START" if database.engine.dialect.name == "mysql" else b"BEGIN")
    async with database.unit_of_work(read_only=True) as session:
        await session.scalars(select(Account))


async def reading(database: Database, fail: Fail) -> None:
    """Read in the middle of a transaction."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"SELECT")
        await session.scalars(select(Account))


async def writing(database: Database, fail: Fail) -> None:
    """Write several rows."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"INSERT")
        await session.execute(insert(Account), [{"owner": name, "balance": 0} for name in "abc"])


async def loading(database: Database, fail: Fail) -> None:
    """Write rows in bulk."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"INSERT" if database.engine.dialect.name == "mysql" else b"COPY")
        await bulk_insert(session, Account, [{"owner": name, "balance": 0} for name in "abc"])


async def streaming(database: Database, fail: Fail) -> None:
    """Read a result piece by piece."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"DECLARE" if database.engine.dialect.driver == "psycopg" else b"SELECT")
        async for _ in await session.stream(select(Account)):
            pass


async def committing(database: Database, fail: Fail) -> None:
    """Commit."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"COMMIT")
        await session.commit()


async def rolling_back(database: Database, fail: Fail) -> None:
    """Roll back."""
    async with database.session() as session:
        await session.execute(CHANGE)
        fail(b"ROLLBACK")
        await session.rollback()


async def returning(database: Database, fail: Fail) -> None:
    """Give a connection back to the pool in the middle of a transaction."""
    raw = await database.engine.raw_connection()

    def leave_it_open() -> None:
        cursor = raw.cursor()
        cursor.execute(CHANGE.text)
        cursor.close()
        fail(b"ROLLBACK")
        raw.close()

    await util.greenlet_spawn(leave_it_open)


CHANGE = text("UPDATE account SET balance = 1")
CALLS: dict[str, Callable[[Database, Fail], Awaitable[None]]] = {
    call.__name__.replace("_", " "): call
    for call in (
        *(connecting, checking, pinging, waiting_until_ready),
        *(beginning, reading, writing, loading, streaming),
        *(committing, rolling_back, returning),
    )
}
# What these find broken is replaced, or is nobody's business any more.
QUIET = {"checking", "waiting until ready", "returning"}
FAULTS: tuple[Fault, ...] = ("black hole", "stall", "cut before")
# Each call meets one fault at small counts, and a black hole only where the wait in it is short.
ONCE = {
    "connecting": "black hole",
    "checking": "cut before",
    "pinging": "stall",
    "waiting until ready": "cut before",
    "beginning": "stall",
    "reading": "cut before",
    "writing": "stall",
    "loading": "stall",
    "streaming": "stall",
    "committing": "black hole",
    "rolling back": "cut before",
    "returning": "black hole",
}


@pytest.mark.scaled(
    small=[f"{backend}-{call}-{fault}" for backend in SERVERS for call, fault in ONCE.items()]
)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
async def test_each_call_ends(
    through_proxy: DatabaseFactory, watcher: Database, proxy: Proxy, call: str, fault: Fault
) -> None:
    """A call whose link fails ends with an error of ours, and its connection is not used again."""
    always = {"pool_pre_ping": "always"} if call == "checking" else {}
    database = through_proxy(**LIMITS, **always)
    failure: DatabaseError | None = None
    async with asyncio.timeout(HARD_SECONDS):
        await database.ping()
        try:
            await CALLS[call](database, lambda word: proxy.arm(word, fault))
        except DatabaseError as error:
            failure = error
    assert proxy.happened == 1
    if failure is None:
        assert call in QUIET
    else:
        assert isinstance(failure, LOST)
    proxy.is_black_hole = False
    if call != "waiting until ready":
        assert database.pool_statistics().in_use == 0
        await database.ping()
    await no_open_transaction(watcher)


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


@pytest.mark.scaled(small=["mysql"])
async def test_a_black_hole_holds_a_stream_of_the_plain_engine(
    database: Database, proxy: Proxy
) -> None:
    """Negative control: long after our deadline SQLAlchemy's own engine waits for the next rows."""
    plain = plain_engine(database)
    async with plain.connect() as connection:
        waiting = asyncio.create_task(read_into_the_hole(connection, proxy))
        await longer_than_ours(waiting)
        proxy.is_black_hole = False
        drop(connection)
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
    await longer_than_ours(waiting)
    drop(connection)
    await connection.close()
    await plain.dispose()
