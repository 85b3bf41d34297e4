"""What the MySQL connector makes safe, each beside the plain engine that is not."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymysql.constants import CLIENT
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from moorage import (
    Database,
    DatabaseSettings,
    DataError,
    DeadlockError,
    InsecureConnectionError,
    LockTimeoutError,
    SettingsError,
)
from moorage_mysql import MySQLConnector
from tests.fix_database import DatabaseFactory


@pytest.fixture
async def plain(database: Database) -> AsyncIterator[AsyncEngine]:
    """Return SQLAlchemy's own engine on the same database."""
    engine = create_async_engine(database.engine.url)
    yield engine
    await engine.dispose()


# Variables that MariaDB has and MySQL does not, and the other way round.
ONLY = {True: {"max_statement_time", "idle_transaction_timeout"}, False: {"max_execution_time"}}


async def variable(engine: AsyncEngine, name: str) -> object:
    """Return a variable of the session."""
    async with engine.connect() as connection:
        return (await connection.execute(text(f"SELECT @@SESSION.{name}"))).scalar_one()


async def isolation(engine: AsyncEngine) -> str:
    """Return the isolation level of a new connection."""
    async with engine.connect() as connection:
        return await connection.get_isolation_level()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_zone", "+00:00"),
        ("innodb_lock_wait_timeout", 10),
        ("lock_wait_timeout", 10),
        ("max_statement_time", 30.0),
        ("max_execution_time", 30_000),
        ("idle_transaction_timeout", 60),
    ],
)
async def test_session_variables(
    database: Database, plain: AsyncEngine, name: str, value: object
) -> None:
    """Each session is in UTC and limited in time; a session of the plain engine is not."""
    await database.ping()
    if name in ONLY[not database.engine.dialect.is_mariadb]:  # type: ignore[attr-defined]  # of this dialect
        return
    assert await variable(database.engine, name) == value
    assert await variable(plain, name) != value


async def test_sessions_speak_utf8mb4(database: Database) -> None:
    """Client, connection and results use the character set that holds all of Unicode."""
    for part in ("client", "connection", "results"):
        assert await variable(database.engine, f"character_set_{part}") == "utf8mb4"
    async with database.session() as session:
        assert (await session.execute(text("SELECT '🚢 ⚓'"))).scalar_one() == "🚢 ⚓"


async def test_read_committed(database: Database, plain: AsyncEngine) -> None:
    """A session sees what others commit meanwhile; the server's default does not."""
    assert await isolation(database.engine) == "READ COMMITTED"
    assert await isolation(plain) == "REPEATABLE READ"


async def test_isolation_level_is_restored(make_database: DatabaseFactory) -> None:
    """After a unit with another isolation level its connection is READ COMMITTED again."""
    database = make_database(pool_size=1, max_overflow=0)
    async with database.unit_of_work(isolation_level="REPEATABLE READ") as session:
        await session.execute(text("SELECT 1"))
    assert await isolation(database.engine) == "READ COMMITTED"


async def test_values_that_do_not_fit_are_errors(database: Database) -> None:
    """A text that is too long is our error, also on a server that would cut it off."""
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (word VARCHAR(3))"))
    with pytest.raises(DataError, match="Data too long") as caught:
        async with database.unit_of_work() as session:
            await session.execute(text("INSERT INTO t VALUES ('abcd')"))
    assert isinstance(caught.value, sa_exc.DataError)
    assert caught.value.backend_code == "1406"


async def test_a_lax_server_cuts_values_off(plain: AsyncEngine) -> None:
    """Negative control: a session as lax servers give it loses the end of the text silently."""
    async with plain.begin() as connection:
        await connection.execute(text("SET SESSION sql_mode = ''"))
        await connection.execute(text("CREATE TABLE t (word VARCHAR(3))"))
        await connection.execute(text("INSERT IGNORE INTO t VALUES ('abcd')"))
        assert (await connection.execute(text("SELECT word FROM t"))).scalar_one() == "abc"


async def test_lock_timeout_is_ours(make_database: DatabaseFactory) -> None:
    """A lock that is not had in time is our transient error, and SQLAlchemy's."""
    database = make_database(lock_timeout_seconds=1)
    async with database.unit_of_work() as session:
        await session.execute(text("CREATE TABLE t (id INT PRIMARY KEY, n INT)"))
        await session.execute(text("INSERT INTO t VALUES (1, 0)"))
    async with database.unit_of_work() as holder:
        await holder.execute(text("UPDATE t SET n = 1"))
        with pytest.raises(LockTimeoutError, match="DB_LOCK_TIMEOUT_SECONDS") as caught:
            async with database.unit_of_work() as session:
                await session.execute(text("UPDATE t SET n = 2"))
    assert caught.value.backend_code == "1205"
    assert isinstance(caught.value, sa_exc.OperationalError)


async def test_deadlock_is_ours(database: Database) -> None:
    """Of two units that wait for each other, one gets our transient error."""
    async with database.unit_of_work() as session:
        await session.execute(text("CREATE TABLE t (id INT PRIMARY KEY, n INT)"))
        await session.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)"))

    both = asyncio.Barrier(2)

    async def swap(first: int, second: int) -> None:
        async with database.unit_of_work() as session:
            await session.execute(text("UPDATE t SET n = n + 1 WHERE id = :i"), {"i": first})
            await both.wait()
            await session.execute(text("UPDATE t SET n = n + 1 WHERE id = :i"), {"i": second})

    results = await asyncio.gather(swap(1, 2), swap(2, 1), return_exceptions=True)
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, DeadlockError)
    assert (error.backend_code, error.is_transient) == ("1213", True)


async def test_keepalive_is_on(database: Database) -> None:
    """The client's side of a connection asks whether the server is there."""
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        sock = driver._writer.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


# In the second byte of what each side can do.
NO_TLS = 0xFF ^ (CLIENT.SSL >> 8)


async def read_packet(reader: asyncio.StreamReader) -> bytearray:
    """Return a packet, behind its length and its number."""
    head = await reader.readexactly(4)
    return bytearray(head + await reader.readexactly(int.from_bytes(head[:3], "little")))


@contextlib.asynccontextmanager
async def stripped(database: Database) -> AsyncIterator[int]:
    """Yield the port of somebody on the path who takes the offer of TLS out of the greeting."""
    links: set[asyncio.Task[None]] = set()
    place = database.settings.hosts[0]

    async def hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    async def sit_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        links.add(link)
        link.add_done_callback(links.discard)
        server, to_server = await asyncio.open_connection(place.host, place.port)
        with contextlib.closing(writer), contextlib.closing(to_server):
            greeting = await read_packet(server)
            # Behind the version: the number of the connection, half of the salt, and a zero.
            greeting[greeting.index(0, 5) + 1 + 4 + 8 + 1 + 1] &= NO_TLS
            writer.write(greeting)
            with contextlib.suppress(asyncio.IncompleteReadError):
                answer = await read_packet(reader)
                answer[5] &= NO_TLS
                to_server.write(answer)
            await asyncio.gather(hand_on(reader, to_server), hand_on(server, writer))

    async with await asyncio.start_server(sit_between, "127.0.0.1", 0) as listening:
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            for link in list(links):
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_plain_text_server_is_refused(
    database: Database, make_database: DatabaseFactory, mode: str
) -> None:
    """A server that offers no TLS is refused before the login when TLS was asked for."""
    async with stripped(database) as port:
        asking = make_database(host="127.0.0.1", port=port, ssl_mode=mode)
        with pytest.raises(InsecureConnectionError, match=f"DB_SSL_MODE={mode} asks for") as caught:
            await asking.ping()
    assert isinstance(caught.value, sa_exc.OperationalError)


async def test_plain_driver_goes_on_in_plain_text(database: Database) -> None:
    """Negative control: given a context, the driver logs in unencrypted and says nothing."""
    context = ssl.create_default_context()
    async with stripped(database) as port:
        url = database.engine.url.set(host="127.0.0.1", port=port)
        engine = create_async_engine(url, connect_args={"ssl": context})
        async with engine.connect() as connection:
            status = (await connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))).one()
            assert status[1] == ""
        await engine.dispose()


PASSWORD = "пароль-密码-@/:#%?"


async def test_password_in_any_script(database: Database, make_database: DatabaseFactory) -> None:
    """A password outside of Latin-1 logs in; the plain engine cannot even send it."""
    async with database.engine.begin() as connection:
        name = database.settings.name
        quoted = PASSWORD.replace("%", "%%")
        await connection.exec_driver_sql(f"CREATE USER '{name}'@'%%' IDENTIFIED BY '{quoted}'")
        await connection.exec_driver_sql(f"GRANT ALL ON {name}.* TO '{name}'@'%%'")
    try:
        await make_database(user=name, password=PASSWORD).ping()
        engine = create_async_engine(database.engine.url.set(username=name, password=PASSWORD))
        with pytest.raises(UnicodeEncodeError):
            await engine.connect()
        await engine.dispose()
    finally:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql(f"DROP USER '{name}'@'%%'")


def from_url(url: str, **values: object) -> MySQLConnector:
    """Return the connector for a URL."""
    return MySQLConnector(DatabaseSettings(url=url, _env_file=None, **values))


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mysql+asyncmy"])
def test_driver_name_is_ours(scheme: str) -> None:
    """Whatever vendors and other tools write, the engine is made for aiomysql."""
    url = from_url(f"{scheme}://u:p@h/db").get_url()
    assert (url.drivername, url.port) == ("mysql+aiomysql", 3306)


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("ssl-mode=VERIFY_IDENTITY", "verify-full"),
        ("ssl_mode=REQUIRED", "require"),
        ("sslmode=verify-ca", "verify-ca"),
        ("ssl=true", "require"),
    ],
)
def test_tls_parameters_are_translated(query: str, mode: str) -> None:
    """The words of the mysql client and of hosting companies for TLS are understood."""
    assert from_url(f"mysql://u:p@h/db?{query}").settings.ssl_mode == mode


def test_socket_in_the_query() -> None:
    """The client's way to name a socket works."""
    connector = from_url("mysql://u:p@/db?unix_socket=/run/mysqld/mysqld.sock")
    assert connector.get_url().query == {"unix_socket": "/run/mysqld/mysqld.sock"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("charset=latin1", "must be utf8mb4"),
        ("ssl-mode=maybe", "must be one of disabled"),
        ("autocommit=true", "parameter 'autocommit', which connector 'mysql' does not know"),
        ("connect_timeout=0", "must be a whole number of seconds"),
    ],
)
def test_unknown_parameters_are_refused_by_name(query: str, message: str) -> None:
    """A parameter that would be ignored or would weaken a default is refused by its name."""
    with pytest.raises(SettingsError, match=message):
        from_url(f"mysql://u:p@h/db?{query}")


@pytest.mark.parametrize("values", [{"host": "a,b:5433"}, {"read_host": "replica"}])
def test_several_hosts_are_refused(values: dict[str, str]) -> None:
    """Several hosts and read hosts are refused with an error that says it is not there yet."""
    with pytest.raises(SettingsError, match=r"does not (fail over between|use read) hosts yet"):
        MySQLConnector(DatabaseSettings(**values, _env_file=None))


async def test_a_cancelled_statement_does_not_outlive_its_limit(
    make_database: DatabaseFactory,
) -> None:
    """What a cancelled task leaves running on the server ends with the limit of its session."""
    watcher = make_database()
    database = make_database(statement_timeout_seconds=1)
    running = text(
        "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND info LIKE 'SELECT sleep%'"
    )

    async def sleep() -> None:
        async with database.session() as session:
            await session.execute(text("SELECT sleep(300)"))

    async def count() -> int:
        async with watcher.session() as session:
            return int((await session.execute(running)).scalar_one())

    sleeping = asyncio.create_task(sleep())
    async with asyncio.timeout(60):
        while not await count():
            assert not sleeping.done()
        sleeping.cancel()
        await asyncio.wait({sleeping})
        while await count():
            await asyncio.sleep(0.01)
