"""What the PostgreSQL connector makes safe, each beside the plain engine that is not."""

import datetime as dt
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, insert, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from moorage import (
    Database,
    DatabaseSettings,
    DataError,
    InsecureConnectionError,
    LockTimeoutError,
    NotNullViolationError,
    PermissionDeniedError,
    SerializationError,
    SettingsError,
    UniqueViolationError,
    bulk_insert,
    models,
)
from moorage_postgres import PostgresConnector
from tests.counting_proxy import CountingProxy
from tests.fix_database import DatabaseFactory

moments = Table(
    "moments",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("aware", DateTime(timezone=True)),
    Column("naive", DateTime()),
)
NOON = dt.datetime(2026, 7, 1, 12, 0)  # noqa: DTZ001 (without a zone on purpose)


@pytest.fixture
async def plain(database: Database) -> AsyncIterator[AsyncEngine]:
    """Return SQLAlchemy's own engine on the same database."""
    url = database.engine.url.set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


async def show(engine: AsyncEngine, name: str) -> str:
    """Return a run-time parameter of the server."""
    async with engine.connect() as connection:
        value: str = (await connection.execute(text(f"SHOW {name}"))).scalar_one()
        return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("jit", "off"),
        ("timezone", "UTC"),
        ("application_name", "moorage"),
        ("tcp_keepalives_idle", "30"),
    ],
)
async def test_session_parameters(
    database: Database, plain: AsyncEngine, name: str, value: str
) -> None:
    """Each session is limited and named; a session of the plain engine is not."""
    assert await show(database.engine, name) == value
    if name != "timezone":  # a server in UTC would agree by chance
        assert await show(plain, name) != value


async def test_settings_reach_the_session(make_database: DatabaseFactory) -> None:
    """Time-outs, name and the connector's options come from the settings."""
    database = make_database(
        statement_timeout_seconds=0,
        lock_timeout_seconds=1.5,
        application_name="billing",
        connector_options={"search_path": "pg_catalog", "server_settings": "work_mem=8MB"},
    )
    for name, value in {
        "statement_timeout": "0",
        "lock_timeout": "1500ms",
        "application_name": "billing",
        "search_path": "pg_catalog",
        "work_mem": "8MB",
    }.items():
        assert await show(database.engine, name) == value


async def test_lock_timeout_is_ours(make_database: DatabaseFactory) -> None:
    """A lock that is not had in time is our transient error, and SQLAlchemy's."""
    database = make_database(lock_timeout_seconds=0.05)
    async with database.unit_of_work() as session:
        await session.execute(text("CREATE TABLE t (id int)"))
    async with database.unit_of_work() as holder:
        await holder.execute(text("LOCK TABLE t"))
        with pytest.raises(LockTimeoutError, match="DB_LOCK_TIMEOUT_SECONDS") as caught:
            async with database.unit_of_work() as session:
                await session.execute(text("SELECT * FROM t"))
    assert caught.value.backend_code == "55P03"
    assert caught.value.is_transient
    assert isinstance(caught.value, sa_exc.DBAPIError)


async def test_serialization_failure_is_ours(database: Database) -> None:
    """Of two serializable units that cannot both be right, one gets our transient error."""
    async with database.unit_of_work() as session:
        await session.execute(text("CREATE TABLE t (id int, n int)"))
        await session.execute(text("INSERT INTO t VALUES (1, 0)"))
    one = database.unit_of_work(isolation_level="SERIALIZABLE")
    two = database.unit_of_work(isolation_level="SERIALIZABLE")
    first, second = await one.begin(), await two.begin()
    for session in (first, second):
        await session.execute(text("SELECT n FROM t"))
    await first.execute(text("UPDATE t SET n = 1"))
    await one.end()
    with pytest.raises(SerializationError, match="run the whole unit") as caught:
        await second.execute(text("UPDATE t SET n = 2"))
    await two.end(caught.value)
    assert caught.value.backend_code == "40001"


async def test_keepalive_is_on(
    make_database: DatabaseFactory, driver: str, plain: AsyncEngine
) -> None:
    """The client's side of a connection asks whether the server is there; asyncpg's does not."""
    database = make_database(connector_options={"driver": driver})
    assert await _keepalive(database.engine) == (1, 30)
    assert (await _keepalive(plain))[0] == 0


async def _keepalive(engine: AsyncEngine) -> tuple[int, int]:
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        number = (
            driver._transport.get_extra_info("socket").fileno()
            if hasattr(driver, "_transport")
            else driver.fileno()
        )
        with socket.socket(fileno=os.dup(number)) as sock:
            return (
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            )


@pytest.fixture
def far_away() -> Iterator[None]:
    """Let this machine believe that it is in Kathmandu."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


async def test_naive_datetime_is_refused(database: Database, far_away: None) -> None:
    """A datetime without zone is refused where the column has one, and the reverse."""
    async with database.engine.begin() as connection:
        await connection.run_sync(moments.create)
        with pytest.raises(DataError, match="without time zone was given") as caught:
            await connection.execute(insert(moments).values(aware=NOON))
        assert "timezone.utc" in caught.value.hint
        assert isinstance(caught.value, sa_exc.StatementError)
        with pytest.raises(DataError, match="with time zone was given"):
            await connection.execute(insert(moments).values(naive=NOON.replace(tzinfo=dt.UTC)))
        await connection.execute(
            insert(moments).values(aware=NOON.replace(tzinfo=dt.UTC), naive=NOON)
        )
        row = (await connection.execute(select(moments.c.aware, moments.c.naive))).one()
        assert tuple(row) == (NOON.replace(tzinfo=dt.UTC), NOON)
        assert row.aware.utcoffset() == dt.timedelta(0)


async def test_naive_datetime_is_moved_by_the_plain_engine(
    plain: AsyncEngine, far_away: None
) -> None:
    """Negative control: the plain engine stores another moment on a machine in another zone."""
    async with plain.begin() as connection:
        await connection.run_sync(moments.create)
        await connection.execute(insert(moments).values(aware=NOON))
        stored = (await connection.execute(select(moments.c.aware))).scalar_one()
        assert stored != NOON.replace(tzinfo=dt.UTC)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_plain_text_server_is_refused(make_database: DatabaseFactory, mode: str) -> None:
    """A server without TLS is refused when TLS was asked for, with the setting's name."""
    with pytest.raises(InsecureConnectionError, match=f"DB_SSL_MODE={mode} asks for"):
        await make_database(ssl_mode=mode).ping()


async def test_other_machines_must_prove_who_they_are() -> None:
    """For a host elsewhere the certificate and its name are verified unless told otherwise."""
    connector = PostgresConnector(DatabaseSettings(host="db.example.com", _env_file=None))
    context = connector.get_engine_args()["connect_args"]["ssl"]
    assert context.check_hostname
    local = PostgresConnector(DatabaseSettings(_env_file=None))
    assert local.get_engine_args()["connect_args"]["ssl"] == "prefer"


def from_url(url: str, **values: object) -> PostgresConnector:
    """Return the connector for a URL."""
    return PostgresConnector(DatabaseSettings(url=url, _env_file=None, **values))


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"]
)
def test_driver_name_is_ours(scheme: str) -> None:
    """Whatever vendors and other tools write, the engine is made for asyncpg."""
    url = from_url(f"{scheme}://u:p%40ss@h/db").get_url()
    assert (url.drivername, url.port, url.password) == ("postgresql+asyncpg", 5432, "p@ss")


def test_libpq_parameters_are_translated() -> None:
    """The parameters that hosting companies put into their URLs mean here what they say."""
    connector = from_url(
        "postgres://u:p@h/db?sslmode=require&application_name=x&connect_timeout=7"
        "&keepalives_idle=11&options=-c%20work_mem%3D8MB&sslrootcert=/ca.pem"
    )
    settings = connector.settings
    assert settings.ssl_mode == "require"
    assert (settings.application_name, settings.connect_timeout_seconds) == ("x", 7)
    assert settings.keepalive_idle_seconds == 11
    assert settings.ssl_ca == Path("/ca.pem")
    assert connector.options.server_settings == {"work_mem": "8MB"}
    assert connector.get_url().query == {}


def test_socket_in_the_query() -> None:
    """libpq's way to name a socket works, and needs no TLS; so does its way to name a port."""
    assert from_url("postgresql:///db?host=h&port=6000").get_url().port == 6000
    connector = from_url("postgresql:///db?host=/var/run/postgresql")
    assert connector.get_url().query == {"host": "/var/run/postgresql"}
    assert connector.get_engine_args()["connect_args"]["ssl"] is False


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "sslmod=require",
            "parameter 'sslmod', which connector 'postgres' does not know; did you mean sslmode",
        ),
        ("sslmode=always", "parameter 'sslmode' that must be one of disable"),
        ("channel_binding=require", "asks for channel binding, which not every driver has"),
        ("connect_timeout=soon", "must be a whole number of seconds"),
        ("options=nonsense", "is not of the form name=value"),
        ("pgbouncr=true", "did you mean pgbouncer"),
        ("host=a%40b", "parameter 'host' that contains an '@'"),
        ("dbname=", "parameter 'dbname' that is empty"),
    ],
)
def test_unknown_parameters_are_refused_by_name(query: str, message: str) -> None:
    """A parameter that would be ignored or would break the driver is refused by its name."""
    with pytest.raises(SettingsError, match=message):
        from_url(f"postgres://u:p@h/db?{query}")


def test_setting_and_parameter_that_disagree() -> None:
    """A setting and a parameter of the URL that disagree are an error that names both."""
    with pytest.raises(SettingsError, match=r"ssl_mode and the parameter 'sslmode' of .* disagree"):
        from_url("postgres://u:p@h/db?sslmode=require", ssl_mode="verify-full")


@pytest.mark.parametrize("values", [{"host": "a,b:5433"}, {"read_host": "replica"}])
def test_several_hosts_are_refused(values: dict[str, str]) -> None:
    """Several hosts and read hosts are refused with an error that says it is not there yet."""
    with pytest.raises(SettingsError, match=r"does not (fail over between|use read) hosts yet"):
        PostgresConnector(DatabaseSettings(**values, _env_file=None))


def test_sslmode_of_plain_sqlalchemy_breaks_the_driver() -> None:
    """Negative control: the plain engine hands ``sslmode`` to a driver that does not know it."""
    url = create_async_engine("postgresql+asyncpg://u:p@h/db?sslmode=require").url
    assert url.query == {"sslmode": "require"}


async def test_statements_stay_prepared(
    make_database: DatabaseFactory, fresh_database: dict[str, Any]
) -> None:
    """More distinct statements than SQLAlchemy keeps prepared cost one round trip each, not two."""
    host, port = str(fresh_database["host"]), int(fresh_database["port"])
    async with CountingProxy(host, port) as proxy:
        database = make_database(
            host="127.0.0.1", port=proxy.port, ssl_mode="disable", pool_size=1, max_overflow=0
        )
        plain = create_async_engine(
            database.engine.url.set(drivername="postgresql+asyncpg"), pool_size=1
        )
        counts = []
        for engine in (database.engine, plain):
            for _ in range(2):
                proxy.reset()
                async with engine.connect() as connection:
                    for number in range(150):
                        await connection.execute(text(f"SELECT {number}"))
                    await connection.rollback()
            counts.append(proxy.round_trips)
        await plain.dispose()
        assert counts[0] == 152
        assert counts[1] > 152


async def test_copy_alone_commits(database: Database) -> None:
    """COPY on the driver's connection, first thing in a session, is stored whatever comes then."""
    async with database.engine.begin() as connection:
        await connection.run_sync(moments.create)
    async with database.session() as session:
        connection = await (await session.connection()).get_raw_connection()
        driver: Any = connection.driver_connection
        await driver.copy_records_to_table("moments", records=[(1,)], columns=["id"])
    async with database.session() as session:
        assert (await session.execute(select(moments.c.id))).all() == [(1,)]


async def test_rows_under_row_level_security_are_inserted(database: Database) -> None:
    """Where COPY is refused, for row level security, a bulk insert takes INSERT."""
    async with database.engine.begin() as connection:
        await connection.run_sync(moments.create)
        for statement in (
            "ALTER TABLE moments ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE moments FORCE ROW LEVEL SECURITY",
            "CREATE POLICY odd ON moments USING (true) WITH CHECK (id % 2 = 1)",
            "DROP ROLE IF EXISTS moorage_reader",
            "CREATE ROLE moorage_reader",
            "GRANT ALL ON moments TO moorage_reader",
        ):
            await connection.execute(text(statement))
    try:
        async with database.unit_of_work() as session:
            await session.execute(text("SET LOCAL ROLE moorage_reader"))
            assert await bulk_insert(session, moments, [{"id": 1}, {"id": 3}]) == 2
        with pytest.raises(PermissionDeniedError):
            async with database.unit_of_work() as session:
                await session.execute(text("SET LOCAL ROLE moorage_reader"))
                await bulk_insert(session, moments, [{"id": 2}])
        async with database.session() as session:
            assert (await session.execute(select(moments.c.id))).all() == [(1,), (3,)]
    finally:
        async with database.engine.begin() as connection:
            await connection.execute(text("DROP OWNED BY moorage_reader"))
            await connection.execute(text("DROP ROLE moorage_reader"))


@pytest.mark.parametrize("bad", [2**40, "text"])
async def test_the_row_that_failed_is_named(database: Database, bad: object) -> None:
    """COPY says which row it was, whether the driver refused it or the server."""
    async with database.engine.begin() as connection:
        await connection.run_sync(moments.create)
    rows: list[tuple[object]] = [(number,) for number in range(30)]
    for wrong in (bad, 3):
        rows[25] = (wrong,)
        with pytest.raises((DataError, UniqueViolationError), match="row 26 of the bulk insert"):
            async with database.unit_of_work() as session:
                await bulk_insert(session, moments, rows, columns=("id",), chunk_rows=10)


async def test_a_transaction_that_sql_began_stays_without_us(database: Database) -> None:
    """The plain pool hands out a connection in the transaction that somebody began by SQL."""
    engine = create_async_engine(database.engine.url, pool_size=1, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("BEGIN"))
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        assert driver.is_in_transaction()
    await engine.dispose()


async def test_the_server_makes_keys_where_it_can(database: Database) -> None:
    """A row that plain SQL inserts without a key gets a UUIDv7 from a server that makes them."""

    class Base(models.Conventions, DeclarativeBase):
        pass

    class Buoy(models.UUIDKey, models.Timestamps, Base):
        __tablename__ = "buoys"

    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        version = connection.dialect.server_version_info
        assert version is not None
        if version < (18,):
            with pytest.raises(NotNullViolationError):
                await connection.execute(text("INSERT INTO buoys DEFAULT VALUES"))
            return
        await connection.execute(text("INSERT INTO buoys DEFAULT VALUES"))
        key, created, updated = (await connection.execute(text("SELECT * FROM buoys"))).one()
    assert key.version == 7
    assert created == updated
