"""The second driver: what is its own, beside what it shares with the first one."""

import asyncio
import sys
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Database,
    DatabaseMissingError,
    DatabaseSettings,
    DatabaseUnavailableError,
    InsecureConnectionError,
    MissingExtraError,
    PermissionDeniedError,
    StalePlanError,
    StatementTimeoutError,
    TooManyConnectionsError,
    bulk_insert,
    get_connector,
)
from moorage_postgres import PostgresConnector
from moorage_postgres.driver import load_driver
from tests.fix_database import DatabaseFactory

SECRET = "s3cret-and-long"


@pytest.fixture
def database(make_database: DatabaseFactory) -> Database:
    """Return a database on this driver."""
    return make_database(connector_options={"driver": "psycopg"})


async def driver_connection(connection: Any) -> Any:
    """Return the connection of the driver below one of SQLAlchemy's."""
    return (await connection.get_raw_connection()).driver_connection


async def test_it_is_psycopg(database: Database) -> None:
    """What is asked for is what is connected with, and the other driver is left alone."""
    assert database.connector.get_url().drivername == "postgresql+psycopg"
    async with database.engine.connect() as connection:
        assert isinstance(await driver_connection(connection), psycopg.AsyncConnection)


@pytest.mark.parametrize("name", ["postgres", "supabase"])
def test_without_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names the setting and the line for pip."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "moorage_postgres.psycopg_driver", raising=False)
    settings = DatabaseSettings(type=name, connector_options={"driver": "psycopg"}, _env_file=None)
    with pytest.raises(MissingExtraError, match=f"DB_{name.upper()}_DRIVER=psycopg") as caught:
        get_connector(settings)
    assert caught.value.hint == "pip install 'moorage-postgres[psycopg]'"


async def test_supabase_takes_it_too(fresh_database: dict[str, Any]) -> None:
    """`DB_TYPE=supabase` is the same connector, on either driver."""
    values = {**fresh_database, "type": "supabase", "connector_options": {"driver": "psycopg"}}
    async with Database(DatabaseSettings(**values, _env_file=None)) as database:
        assert database.engine.dialect.driver == "psycopg"
        async with database.read_session() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_the_password_is_in_no_error(make_database: DatabaseFactory) -> None:
    """A refused login does not carry along what it was tried with, as psycopg's own error does."""
    options = {"driver": "psycopg"}
    database = make_database(password=SECRET, connector_options=options)
    with pytest.raises(AuthenticationError) as caught:
        await database.ping()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in repr(vars(error))
        assert getattr(error, "pgconn", None) is None
        error = error.__cause__ or error.__context__


async def test_psycopg_s_own_error_has_the_password(make_database: DatabaseFactory) -> None:
    """Negative control: the error of the plain engine holds the password in the clear."""
    url = make_database(password=SECRET, connector_options={"driver": "psycopg"}).engine.url
    engine = create_async_engine(url)
    with pytest.raises(Exception, match="password") as caught:
        await engine.connect()
    assert SECRET in repr(caught.value.orig.pgconn)  # type: ignore[attr-defined]
    await engine.dispose()


# What libpq says, since it hands on no code while connecting.
REFUSALS = [
    ('FATAL:  password authentication failed for user "u"', AuthenticationError, "28P01"),
    ("fe_sendauth: no password supplied", AuthenticationError, "28P01"),
    ('FATAL:  role "u" does not exist', AuthenticationError, "28000"),
    ('FATAL:  no pg_hba.conf entry for host "::1", user "u"', AuthenticationError, "28000"),
    ('FATAL:  database "d" does not exist', DatabaseMissingError, "3D000"),
    ('FATAL:  permission denied for database "d"', PermissionDeniedError, "42501"),
    ("FATAL:  sorry, too many clients already", TooManyConnectionsError, "53300"),
    ('FATAL:  too many connections for role "u"', TooManyConnectionsError, "53300"),
    ("FATAL:  the database system is shutting down", DatabaseUnavailableError, "57P03"),
    ("Connection refused\n\tIs the server running on that host?", DatabaseUnavailableError, ""),
    ("server does not support SSL, but SSL was required", InsecureConnectionError, ""),
    ("SSL error: certificate verify failed", InsecureConnectionError, ""),
]


@pytest.mark.parametrize(("words", "kind", "state"), REFUSALS)
def test_refusals_are_told_apart(words: str, kind: type[Exception], state: str) -> None:
    """What keeps a program out has the class and the code that it has on asyncpg."""
    told = f'connection failed: connection to server at "::1", port 5432 failed: {words}'
    settings = DatabaseSettings(
        ssl_mode="require", connector_options={"driver": "psycopg"}, _env_file=None
    )
    diagnosis = PostgresConnector(settings).classify_error(psycopg.OperationalError(told))
    assert diagnosis is not None
    assert (diagnosis.kind, diagnosis.code) == (kind, state)
    assert "connection to server at" not in diagnosis.sentence


def test_a_refusal_in_other_words() -> None:
    """A server that says it in another language keeps its words, under the class of them all."""
    told = "connection failed: FATAL:  Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen"
    connector = PostgresConnector(
        DatabaseSettings(connector_options={"driver": "psycopg"}, _env_file=None)
    )
    assert connector.classify_error(psycopg.OperationalError(told)) is None
    assert issubclass(AuthenticationError, ConnectError)


async def test_of_several_addresses_the_server_that_spoke_counts() -> None:
    """Where one address is silent and the other refuses, the refusal is told."""
    told = (
        'connection failed: connection to server at "::1", port 1 failed: Connection refused\n'
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'localhost': connection failed: FATAL:  database \"d\" does not exist\n"
        "- host: 'localhost': connection failed: Connection refused"
    )
    report = load_driver("psycopg", "").read_error(psycopg.OperationalError(told), connecting=True)
    assert report is not None
    assert (report.state, report.reason) == ("3D000", 'database "d" does not exist')


async def test_the_end_of_an_idle_connection_is_noticed(
    make_database: DatabaseFactory,
) -> None:
    """A connection that the server ended while it was idle is known to be closed, unasked."""
    database = make_database(connector_options={"driver": "psycopg"})
    connector = database.connector
    async with database.engine.connect() as victim, database.engine.connect() as killer:
        driver = await driver_connection(victim)
        number = driver.info.backend_pid
        assert not connector.is_closed(driver)
        await killer.execute(text(f"SELECT pg_terminate_backend({number})"))
        async with asyncio.timeout(30):
            while not connector.is_closed(driver):
                await asyncio.sleep(0)
        with pytest.raises(ConnectionLostError):
            await victim.execute(text("SELECT 1"))


async def test_stale_statements_are_forgotten(database: Database) -> None:
    """A prepared statement that fits no more fails once, also where nothing is rolled back."""
    metadata = MetaData()
    table = Table("boats", metadata, Column("id", Integer, primary_key=True))
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    everything = text("SELECT * FROM boats")

    async def read() -> None:
        async with database.read_session() as session:
            await session.execute(everything)

    for _ in range(7):  # psycopg prepares what it has run five times
        await read()
    async with database.unit_of_work() as session:
        await session.execute(text("ALTER TABLE boats ADD COLUMN name text"))
    with pytest.raises(StalePlanError) as caught:
        await read()
    assert caught.value.backend_code == "0A000"
    await read()
    async with database.read_session() as session:
        assert (await session.execute(select(table.c.id))).all() == []


async def test_no_statement_is_kept_if_none_shall_be(make_database: DatabaseFactory) -> None:
    """`prepared_statements=0` is zero, and another number is the most that there are for long."""
    for number, most in ((0, 0), (3, 4)):
        options = {"driver": "psycopg", "prepared_statements": number}
        database = make_database(connector_options=options)
        async with database.engine.connect() as connection:
            for k in range(10):
                for _ in range(7):
                    await connection.execute(text(f"SELECT {k} + :n"), {"n": k})
            count = text("SELECT count(*) FROM pg_prepared_statements")
            assert number <= await connection.scalar(count) <= most


async def test_a_cancelled_statement_ends_on_the_server(database: Database) -> None:
    """Cancelling a task cancels what it waits for, before the task is told."""
    async with database.engine.connect() as connection, database.engine.connect() as watcher:
        number = (await driver_connection(connection)).info.backend_pid
        running = text(
            f"SELECT count(*) FROM pg_stat_activity WHERE pid = {number} AND query ~ 'pg_sleep'"
            " AND state = 'active'"
        )

        async def is_running() -> bool:
            found = await watcher.scalar(running)
            await watcher.rollback()
            return bool(found)

        task = asyncio.create_task(connection.execute(text("SELECT pg_sleep(60)")))
        async with asyncio.timeout(30):
            while not await is_running():
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not await is_running()


async def test_limits_are_the_server_s(make_database: DatabaseFactory) -> None:
    """Time-outs, search path and further parameters are told at the login, whatever is in them."""
    database = make_database(
        statement_timeout_seconds=0.05,
        connector_options={
            "driver": "psycopg",
            "search_path": 'pg_catalog, "$user"',
            "server_settings": {"myapp.motto": "it's; \\ fine\tso"},
        },
    )
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SHOW search_path")) == 'pg_catalog, "$user"'
        assert await connection.scalar(text("SHOW myapp.motto")) == "it's; \\ fine\tso"
        with pytest.raises(StatementTimeoutError, match="DB_STATEMENT_TIMEOUT_SECONDS"):
            await connection.execute(text("SELECT pg_sleep(60)"))


async def test_many_rows_of_many_kinds(database: Database) -> None:
    """COPY takes what an INSERT takes: quotes, newlines, backslashes, nothing at all."""
    table = Table(
        'odd "name"%',
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("a % b", String),
    )
    words = ["a\tb", "c\nd", "\\N", "\\.", "", None, "ø'\""]
    rows = [{"id": number, "a % b": word} for number, word in enumerate(words)]
    async with database.engine.begin() as connection:
        await connection.run_sync(table.create)
    async with database.unit_of_work() as session:
        await bulk_insert(session, table, rows)
    async with database.session() as session:
        found = await session.execute(select(table.c["a % b"]).order_by(table.c.id))
        assert list(found.scalars()) == words
