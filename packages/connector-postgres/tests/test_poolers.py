"""What connections through poolers do, and what is refused on them."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, Column, Integer, MetaData, Table, func, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import (
    AuthenticationError,
    Database,
    DatabaseError,
    DatabaseMissingError,
    DatabaseSettings,
    DatabaseUnavailableError,
    ReadOnlyError,
    SettingsError,
    StatementTimeoutError,
    TooManyConnectionsError,
    bulk_insert,
)
from moorage_postgres import PostgresConnector
from tests.counting_proxy import CountingProxy
from tests.fix_database import DatabaseFactory
from tests.servers.server import Address


@pytest.fixture
def through(make_database: DatabaseFactory, pooled: dict[str, Any]) -> Database:
    """Return a database behind a pooler in transaction mode."""
    return make_database(**pooled)


@pytest.fixture
def pooled_by(make_database: DatabaseFactory, pooled: dict[str, Any]) -> DatabaseFactory:
    """Return a function that makes a database behind that pooler, by driver and with options."""

    def make(driver: str, /, **changes: Any) -> Database:
        own = changes.pop("connector_options", {})
        options = {"pooler": "transaction", "driver": driver, **own}
        return make_database(**{**pooled, **changes, "connector_options": options})

    return make


@pytest.fixture
async def raw(pooled: dict[str, Any]) -> AsyncIterator[Any]:
    """Return the driver's own connection through the pooler, as another program has it."""
    connection = await asyncpg.connect(
        host=pooled["host"],
        port=pooled["port"],
        user=pooled["user"],
        password=pooled["password"],
        database=pooled["name"],
        statement_cache_size=0,
    )
    yield connection
    await connection.close()


LIMITS = {"statement_timeout": "30s", "lock_timeout": "10s", "TimeZone": "UTC", "jit": "off"}


async def test_limits_are_of_the_transaction(
    pooled_by: DatabaseFactory, driver: str, raw: Any
) -> None:
    """Each transaction has its limits, and the server's connection does not keep them."""
    through = pooled_by(driver)
    async with through.unit_of_work() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        for name, value in LIMITS.items():
            assert await session.scalar(text(f"SHOW {name}")) == value
    # The last one to be given back is the next one to be handed out.
    assert await raw.fetchval("SELECT pg_backend_pid()") == pid
    assert await raw.fetchval("SHOW statement_timeout") == "0"
    assert await raw.fetchval("SHOW jit") != "off"


async def test_limits_cost_no_round_trip(
    pooled_by: DatabaseFactory, driver: str, pooled: dict[str, Any]
) -> None:
    """BEGIN and all limits are one message; asyncpg takes two for a statement, without a name."""
    async with CountingProxy(pooled["host"], pooled["port"]) as proxy:
        database = pooled_by(driver, port=proxy.port, ssl_mode="disable")
        await database.ping()
        proxy.reset()
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1"))
    assert proxy.round_trips == {"asyncpg": 4, "psycopg": 3}[driver]
    assert b"BEGIN;SET LOCAL" in proxy.sent[0]


async def test_a_limit_is_ours(make_database: DatabaseFactory, pooled: dict[str, Any]) -> None:
    """A statement that runs too long ends through a pooler too, as our error."""
    database = make_database(**pooled, statement_timeout_seconds=0.05)
    with pytest.raises(StatementTimeoutError, match="DB_STATEMENT_TIMEOUT_SECONDS"):
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT pg_sleep(60)"))


async def test_parameters_reach_each_transaction(pooled_by: DatabaseFactory, driver: str) -> None:
    """The connector's options hold in each transaction, quoted as what they are."""
    options = {
        "search_path": 'pg_catalog, "$user", public',
        "server_settings": {"work_mem": "8MB", "myapp.motto": "it's; \\ fine"},
    }
    database = pooled_by(driver, connector_options=options)
    async with database.unit_of_work() as session:
        assert await session.scalar(text("SHOW search_path")) == 'pg_catalog, "$user", public'
        assert await session.scalar(text("SHOW work_mem")) == "8MB"
        assert await session.scalar(text("SHOW myapp.motto")) == "it's; \\ fine"
        await session.execute(text("CREATE TABLE public.t (id int)"))
        rows = [{"id": number} for number in range(3)]
        await session.execute(text("INSERT INTO public.t VALUES (:id)"), rows)
    async with database.unit_of_work() as session:  # many rows may come first, too
        await session.execute(text("INSERT INTO public.t VALUES (:id)"), rows)
        assert await session.scalar(text("SHOW work_mem")) == "8MB"


async def test_a_parameter_that_is_wrong(pooled_by: DatabaseFactory, driver: str, raw: Any) -> None:
    """A value that the server refuses is an error each time, and leaves no transaction open."""
    options = {"server_settings": {"work_mem": "much"}}
    database = pooled_by(driver, connector_options=options, pool_size=1)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="work_mem"):
            async with database.unit_of_work() as session:
                await session.execute(text("SELECT 1"))
    states = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert await raw.fetchval(f"{states} AND datname = current_database()") == 0


async def test_plain_parameters_are_refused(pooled: dict[str, Any]) -> None:
    """Negative control: the pooler does not let in who asks for parameters at the login."""
    url = URL.create(
        "postgresql+asyncpg",
        pooled["user"],
        pooled["password"],
        pooled["host"],
        pooled["port"],
        pooled["name"],
    )
    engine = create_async_engine(url, connect_args={"server_settings": {"jit": "off"}})
    with pytest.raises((sa_exc.DBAPIError, asyncpg.PostgresError), match="startup parameter"):
        await engine.connect()
    await engine.dispose()


REFUSED = {
    "SET work_mem = '8MB'": "SET LOCAL",
    "-- so that it is fast\n set session work_mem TO '8MB'": "SET LOCAL",
    "SET ROLE postgres": "SET LOCAL",
    "RESET ALL": "SET LOCAL",
    "DISCARD ALL": "SET LOCAL",
    "SELECT set_config('work_mem', '8MB', false)": "set_config",
    "LISTEN news": "DB_DIRECT_URL",
    "PREPARE question AS SELECT 1": "DB_DIRECT_URL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1": "in the transaction that opens it",
    "CREATE TEMP TABLE t (id int)": "ON COMMIT DROP",
    "SELECT pg_advisory_lock(1)": "pg_advisory_xact_lock",
    "SELECT 1 WHERE pg_try_advisory_lock_shared(1)": "pg_advisory_xact_lock",
}
ALLOWED = (
    "SET LOCAL work_mem = '8MB'",
    "SET TRANSACTION READ ONLY",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT set_config('work_mem', '8MB', true)",
    "NOTIFY news",
    "DECLARE c CURSOR FOR SELECT 1",
    "CREATE TEMP TABLE t (id int) ON COMMIT DROP",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT 'LISTEN'",
)


@pytest.mark.parametrize("statement", REFUSED)
async def test_what_needs_a_session_is_refused(through: Database, statement: str) -> None:
    """A statement that would work on somebody else's session is refused with a way out."""
    async with through.session() as session:
        with pytest.raises(SettingsError, match="DB_POSTGRES_POOLER=transaction") as caught:
            await session.execute(text(statement))
        assert REFUSED[statement] in caught.value.hint
        assert not await session.scalar(text("SELECT 0"))


@pytest.mark.parametrize("statement", ALLOWED)
async def test_what_ends_with_the_transaction_is_allowed(through: Database, statement: str) -> None:
    """A statement whose effect ends with the transaction is sent as it is."""
    async with through.session() as session:
        await session.execute(text(statement))


async def test_a_read_session_refuses_writes(through: Database, raw: Any) -> None:
    """A read session refuses writes, and the connection of the server does not stay like this."""
    with pytest.raises(ReadOnlyError):
        async with through.read_session() as session:
            await session.execute(text("CREATE TABLE t (id int)"))
    assert await raw.fetchval("SHOW default_transaction_read_only") == "off"
    async with through.unit_of_work() as session:
        await session.execute(text("CREATE TABLE t (id int)"))


async def test_many_rows_at_once(through: Database) -> None:
    """Rows that are loaded at once, by COPY, are stored or undone with their unit."""
    table = Table("many", MetaData(), Column("id", Integer, primary_key=True))
    async with through.engine.begin() as connection:
        await connection.run_sync(table.create)
    rows = [{"id": number} for number in range(500)]
    async with through.unit_of_work() as session:
        await bulk_insert(session, table, rows)
    with pytest.raises(LookupError):
        async with through.unit_of_work() as session:
            await bulk_insert(session, table, [{"id": number + 500} for number in range(500)])
            raise LookupError
    async with through.read_session() as session:
        assert await session.scalar(select(func.count()).select_from(table)) == 500


async def test_migrations_go_past_the_pooler(
    make_database: DatabaseFactory, pooled: dict[str, Any], fresh_database: dict[str, Any]
) -> None:
    """The lock for migrations demands a direct connection, to which the settings lead."""
    through = make_database(**pooled)
    connector = through.connector
    assert isinstance(connector, PostgresConnector)
    async with through.engine.connect() as connection:
        with pytest.raises(SettingsError, match="lock for migrations") as caught:
            await connector.try_lock_migrations(connection)
    assert "DB_DIRECT_URL" in caught.value.hint
    direct = through.settings.direct()
    assert (direct.port, direct.is_direct) == (fresh_database["port"], True)
    async with Database(direct) as database, database.engine.connect() as connection:
        beside = database.connector
        assert isinstance(beside, PostgresConnector)
        assert beside.pooler == "direct"
        assert await beside.try_lock_migrations(connection)
        await beside.unlock_migrations(connection)


async def test_databases_are_made_past_the_pooler(
    make_database: DatabaseFactory, pooled: dict[str, Any]
) -> None:
    """Databases are created on the server itself, and without a way to it not at all."""
    connector = make_database(**pooled).connector
    assert isinstance(connector, PostgresConnector)
    assert await connector.database_exists()
    connector = make_database(**{**pooled, "direct_url": None}).connector
    assert isinstance(connector, PostgresConnector)
    with pytest.raises(SettingsError, match="looking for databases needs a session"):
        await connector.database_exists()


CACHES = {"asyncpg": "statement_cache_size", "psycopg": "prepare_threshold"}


async def test_caches_that_are_switched_on_are_refused(pooled: dict[str, Any], driver: str) -> None:
    """A connector of somebody who switches the caches on again opens no connection."""

    class Fast(PostgresConnector):
        def get_engine_args(self) -> dict[str, Any]:
            arguments = super().get_engine_args()
            arguments["connect_args"][CACHES[driver]] = 100
            return arguments

    options = {**pooled["connector_options"], "driver": driver}
    settings = DatabaseSettings(**{**pooled, "connector_options": options}, _env_file=None)
    async with Database(connector=Fast(settings)) as database:
        with pytest.raises(SettingsError, match=f"{CACHES[driver]} gives statements a name"):
            await database.ping()


async def test_session_mode(
    make_database: DatabaseFactory,
    pooled: dict[str, Any],
    poolers: dict[str, Address],
    driver: str,
) -> None:
    """In session mode the limits are set behind the login, and sessions are one's own."""
    options = {"pooler": "session", "search_path": "pg_catalog, public", "driver": driver}
    place = {**pooled, "port": poolers["session"].port, "connector_options": options}
    database = make_database(**place)
    assert (database.settings.pool_size, database.settings.max_overflow) == (2, 2)
    async with database.engine.connect() as connection:
        for name, value in {**LIMITS, "search_path": "pg_catalog, public"}.items():
            assert await connection.scalar(text(f"SHOW {name}")) == value
        await connection.rollback()
        connector = database.connector
        assert isinstance(connector, PostgresConnector)
        assert await connector.try_lock_migrations(connection)
        await connector.unlock_migrations(connection)


async def test_a_pooler_that_lets_nobody_in(pooled_by: DatabaseFactory, driver: str) -> None:
    """What a pooler refuses is told apart, though it has one code for all."""
    for wrong in ({"password": "certainly wrong"}, {"user": "nobody"}):
        with pytest.raises(AuthenticationError, match="argument user"):
            await pooled_by(driver, **wrong).ping()
    with pytest.raises(DatabaseMissingError):
        await pooled_by(driver, name="nowhere").ping()


@pytest.mark.parametrize(
    ("state", "words", "kind"),
    [
        ("XX000", "Tenant or user not found", AuthenticationError),
        ("XX000", "MaxClientsInSessionMode: max clients reached", TooManyConnectionsError),
        ("08P01", "no more connections allowed (max_client_conn)", TooManyConnectionsError),
        ("08P01", "bad packet", DatabaseUnavailableError),
    ],
)
def test_refusals_of_poolers(state: str, words: str, kind: type[DatabaseError]) -> None:
    """The words of PgBouncer and Supavisor are understood where their one code says nothing."""
    error = asyncpg.PostgresError.new({"C": state, "M": words, "S": "FATAL"})
    diagnosis = connector_for("postgres://u:p@h:6432/db").classify_error(error)
    assert diagnosis is not None
    assert diagnosis.kind is kind


def connector_for(url: str, **values: Any) -> PostgresConnector:
    """Return the connector for a URL."""
    return PostgresConnector(DatabaseSettings(url=url, _env_file=None, **values))


@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("db.example.com", "direct"),
        ("db.example.com:5433", "direct"),
        ("aws-0-eu-central-1.pooler.supabase.com", "session"),
        ("aws-1-eu-central-1.pooler.supabase.com:5432", "session"),
        ("AWS-1-eu-central-1.pooler.supabase.com:6543", "transaction"),
        ("db.abcdefghijklmnopqrst.supabase.co", "direct"),
        ("db.abcdefghijklmnopqrst.supabase.co:6543", "transaction"),
        ("pgbouncer.internal:6432", "transaction"),
    ],
)
def test_poolers_are_recognised(place: str, mode: str) -> None:
    """Host and port tell a pooler, and its mode."""
    connector = connector_for(f"postgres://u:p@{place}/db")
    assert connector.pooler == mode
    small = connector.settings.pool_size < DatabaseSettings.model_fields["pool_size"].default
    assert small == (mode != "direct")


def test_a_pool_that_was_chosen_stays() -> None:
    """Sizes that somebody chose are left alone."""
    connector = connector_for("postgres://u:p@pooler:6432/db", pool_size=7)
    assert (connector.settings.pool_size, connector.settings.max_overflow) == (7, 5)


def test_the_choice_of_the_pooler_wins() -> None:
    """What the setting says counts, and Prisma's parameter says it too."""
    options = {"pooler": "direct"}
    assert connector_for("postgres://u:p@h:6432/db", connector_options=options).pooler == "direct"
    assert connector_for("postgres://u:p@h/db?pgbouncer=true").pooler == "transaction"
    with pytest.raises(SettingsError, match="must be true or false"):
        connector_for("postgres://u:p@h/db?pgbouncer=maybe")


@pytest.mark.parametrize("mode", ["direct", "session"])
def test_a_choice_that_would_read_others_rows_is_refused(mode: str) -> None:
    """A pooler that is certain to be in transaction mode cannot be taken for anything else."""
    with pytest.raises(SettingsError, match="rows of other processes"):
        connector_for(
            "postgres://u:p@aws-0-x.pooler.supabase.com:6543/db",
            connector_options={"pooler": mode},
        )


@pytest.mark.parametrize("name", ["default_transaction_read_only", "Default_Transaction_Isolation"])
def test_parameters_of_the_next_transaction_are_refused(name: str) -> None:
    """A parameter that would hold for somebody else's transaction is refused."""
    options = {"pooler": "transaction", "server_settings": {name: "on"}}
    with pytest.raises(SettingsError, match="whoever gets the pooler's connection next"):
        connector_for("postgres://u:p@h/db", connector_options=options)
