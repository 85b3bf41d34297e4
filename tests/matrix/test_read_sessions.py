"""Read sessions read, without a transaction, and nothing else gets through them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.schema import CreateTable

from moorage import Database, ReadOnlyError, SettingsError
from moorage.testing import Stepper
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, Base, Entry, balances, create_tables

# A function that writes, called by a SELECT.
FUNCTIONS = {
    "postgres": "CREATE FUNCTION open_account() RETURNS int LANGUAGE sql AS"
    " $$ INSERT INTO account (owner, balance) VALUES ('sly', 0) RETURNING 1 $$",
    "mysql": "CREATE FUNCTION open_account() RETURNS int MODIFIES SQL DATA BEGIN"
    " INSERT INTO account (owner, balance) VALUES ('sly', 0); RETURN 1; END",
}


@pytest.fixture(autouse=True)
async def tables(database: Database, backend: str) -> None:
    """Create the tables with one account, and the function that writes."""
    await create_tables(database, "ada")
    if backend in FUNCTIONS:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql(FUNCTIONS[backend])


@pytest.fixture
async def autocommit(database: Database) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Return sessions that save the transaction in the way that everybody finds first."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    yield async_sessionmaker(engine)
    await engine.dispose()


async def by_text(session: AsyncSession) -> None:
    """Write by SQL."""
    await session.execute(text("INSERT INTO account (owner, balance) VALUES ('sly', 0)"))


async def by_query(session: AsyncSession) -> None:
    """Write by what looks like a query."""
    await session.execute(
        text("/* SELECT */ INSERT INTO account (owner, balance) SELECT 'sly', 0 FROM account")
    )


async def by_insert(session: AsyncSession) -> None:
    """Write by an INSERT of SQLAlchemy's."""
    await session.execute(insert(Account).values(owner="sly", balance=0))


async def by_function(session: AsyncSession) -> None:
    """Write by a function in a SELECT."""
    await session.execute(text("SELECT open_account()"))


async def by_driver(session: AsyncSession) -> None:
    """Write behind SQLAlchemy's back."""
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    if hasattr(driver, "copy_records_to_table"):
        columns = ("owner", "balance")
        await driver.copy_records_to_table("account", records=[("sly", 0)], columns=columns)
        return
    if hasattr(driver, "pgconn"):
        await driver.execute("INSERT INTO account (owner, balance) VALUES ('sly', 0)")
        return
    cursor = await driver.cursor()
    await cursor.execute("INSERT INTO account (owner, balance) VALUES ('sly', 0)")
    await cursor.close()


async def by_schema(session: AsyncSession) -> None:
    """Create a table, which commits by itself on some backends."""
    await session.execute(text("CREATE TABLE sly (id int)"))


WAYS = (by_text, by_query, by_insert, by_function, by_driver, by_schema)


async def effects(database: Database) -> tuple[int, bool]:
    """Return how many accounts there are, and whether somebody made a table."""
    async with database.session() as session:
        accounts = len((await session.scalars(select(Account.id))).all())
        try:
            await session.execute(text("SELECT * FROM sly"))
        except sa_exc.SQLAlchemyError:
            return accounts, False
    return accounts, True


@pytest.mark.parametrize("way", WAYS)
async def test_a_write_has_no_effect(
    database: Database, backend: str, way: Callable[[AsyncSession], Awaitable[None]]
) -> None:
    """Whatever the way, a write is refused before it takes effect, and the session goes on."""
    if way is by_function and backend not in FUNCTIONS:
        pytest.skip("it has no functions that write")
    kind = Exception if way is by_driver else ReadOnlyError
    async with database.read_session() as session:
        with pytest.raises(kind):
            await way(session)
        await session.rollback()
        assert await session.scalar(select(Account.owner)) == "ada"
        await session.commit()
    assert await effects(database) == (1, False)


@pytest.mark.parametrize("way", WAYS)
async def test_autocommit_lets_it_pass(
    database: Database,
    backend: str,
    autocommit: async_sessionmaker[AsyncSession],
    way: Callable[[AsyncSession], Awaitable[None]],
) -> None:
    """A session in autocommit alone writes without a word."""
    if way is by_function and backend not in FUNCTIONS:
        pytest.skip("it has no functions that write")
    async with autocommit() as session:
        await way(session)
    assert await effects(database) != (1, False)


async def test_objects_are_not_written(database: Database) -> None:
    """Objects that were added or changed are refused when they would be written."""
    async with database.read_session() as session:
        session.add(Account(owner="bob"))
        with pytest.raises(ReadOnlyError, match="only reads") as caught:
            await session.commit()
    assert isinstance(caught.value, sa_exc.InvalidRequestError)
    async with database.read_session() as session:
        account = await session.get_one(Account, 1)
        account.balance = 7
        with pytest.raises(ReadOnlyError, match="only reads"):
            await session.scalar(select(Account.balance))
        await session.delete(await session.get_one(Account, 1))
        with pytest.raises(ReadOnlyError, match="only reads"):
            await session.flush()
        assert await session.scalar(select(Account.balance)) == 0
    assert await balances(database) == [0]


@pytest.mark.parametrize(
    "statement", ["SET x = 1", " begin", "-- note\nStart transaction", "USE x"]
)
async def test_what_would_outlive_the_session_is_refused(
    database: Database, statement: str
) -> None:
    """A statement whose effect stays on the connection is not sent, and the error says why."""
    async with database.read_session() as session:
        with pytest.raises(ReadOnlyError, match="outlive") as caught:
            await session.execute(text(statement))
        assert "unit_of_work(read_only=True)" in caught.value.hint
        assert await session.scalar(select(Account.owner)) == "ada"


async def test_an_isolation_level_is_refused(database: Database) -> None:
    """A read session has no isolation level, and says what has one."""
    async with database.read_session() as session:
        with pytest.raises(SettingsError, match="no isolation level"):
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})


async def test_each_statement_sees_what_is_committed(database: Database) -> None:
    """Two statements of a read session see different data when somebody commits in between."""

    async def seen(session: AsyncSession) -> list[int]:
        values = []
        for _ in range(2):
            values.append(await session.scalar(select(Account.balance)))
            async with database.unit_of_work() as other:
                (await other.get_one(Account, 1)).balance += 1
        return [value for value in values if value is not None]

    async with database.read_session() as session:
        assert await seen(session) == [0, 1]
    levels = database.connector.capabilities.isolation_levels
    level = "REPEATABLE READ" if "REPEATABLE READ" in levels else "SERIALIZABLE"
    async with database.unit_of_work(read_only=True, isolation_level=level) as session:
        assert await seen(session) == [2, 2]


async def test_rows_are_streamed(make_database: DatabaseFactory) -> None:
    """Rows can be fetched piece by piece, to the end or not; no transaction stays behind."""
    database = make_database(pool_size=1, max_overflow=0)
    for stop_early in (False, True):
        async with database.read_session() as session:
            stream = await session.stream_scalars(
                select(Account.owner).execution_options(yield_per=10)
            )
            async for owner in stream:
                assert owner == "ada"
                if stop_early:
                    break
        async with database.read_session() as session:
            connection = await (await session.connection()).get_raw_connection()
            assert not database.connector.in_transaction(connection.driver_connection)
            with pytest.raises(ReadOnlyError):
                await by_text(session)


@pytest.mark.parametrize("happened", ["reset", "checkin"])
async def test_who_listens_to_a_returning_connection_may_talk_to_the_server(
    make_database: DatabaseFactory, happened: str
) -> None:
    """A listener of the pool runs a statement where a read session gives its connection back."""
    database = make_database(pool_size=1, max_overflow=0)
    connections: list[Any] = []

    def talk(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        connections.append(connection)

    event.listen(database.engine.sync_engine, happened, talk)
    for _ in range(2):
        async with database.read_session() as session:
            await session.get_one(Account, 1)
    first, second = connections
    assert first is second, "a listener that failed costs the connection"


async def test_what_a_driver_was_told_ends_with_the_session(
    make_database: DatabaseFactory,
) -> None:
    """A transaction that was opened behind SQLAlchemy's back does not meet the next session."""
    database = make_database(pool_size=1, max_overflow=0)
    for _ in range(2):
        async with database.read_session() as session:
            connection = await session.connection()
            assert not await connection.run_sync(is_in_transaction, database)
            await connection.run_sync(begin_behind)
            assert await connection.run_sync(is_in_transaction, database)


def begin_behind(connection: Connection) -> None:
    """Begin a transaction by a cursor of the DBAPI."""
    cursor = connection.connection.cursor()
    cursor.execute("BEGIN")
    cursor.close()


def is_in_transaction(connection: Connection, database: Database) -> bool:
    """Return what the driver knows."""
    return bool(database.connector.in_transaction(connection.connection.driver_connection))


async def representative(database: Database) -> None:
    """Read, stream, read again."""
    async with database.read_session() as session:
        await session.get(Account, 1)
        async for _ in await session.stream(select(Account).execution_options(yield_per=5)):
            pass
        await session.scalars(select(Entry))


async def test_reads_and_writes_do_not_mix(make_database: DatabaseFactory) -> None:
    """Wherever a read session is cancelled, later units write, and later read sessions do not."""
    database = make_database(pool_size=1, max_overflow=0)
    await representative(database)  # opens the connection
    clean = Stepper(representative(database))
    await clean
    for point in range(1, clean.points + 1):
        stepper = Stepper(representative(database), point)

        async def work(stepper: Stepper = stepper) -> None:
            await stepper

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        assert database.pool_statistics().in_use == 0
        async with database.unit_of_work() as session:
            (await session.get_one(Account, 1)).balance += 1
        async with database.read_session() as session:
            with pytest.raises(ReadOnlyError):
                await by_text(session)
            await session.rollback()
            assert await session.scalar(select(Account.balance)) == point


async def test_their_connections_are_counted_and_closed(make_database: DatabaseFactory) -> None:
    """Connections of read sessions are their own, are in the statistics and end with the rest."""
    database = make_database(pool_size=2, max_overflow=1)
    await database.ping()
    assert database.pool_statistics().capacity == 3
    async with database.read_session() as session, database.session() as other:
        await session.scalar(select(Account.id))
        await other.scalar(select(Account.id))
        statistics = database.pool_statistics()
        assert (statistics.capacity, statistics.in_use) == (6, 2)
    assert database.pool_statistics().idle == 2
    await database.dispose()
    assert database.state == "disposed"


async def test_listeners_see_read_sessions(database: Database) -> None:
    """A listener on the engine sees the statements of read sessions."""
    seen: list[str] = []

    @event.listens_for(database.engine.sync_engine, "after_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    async with database.read_session() as session:
        await session.scalar(select(Account.id))
    assert any("account" in statement for statement in seen)


async def test_compiled_schema_changes_are_refused(database: Database) -> None:
    """CREATE TABLE of SQLAlchemy's is refused as well."""
    async with database.read_session() as session:
        with pytest.raises(ReadOnlyError):
            await session.execute(CreateTable(Base.metadata.tables["account"]))
