"""A database lives from its settings to its disposal, on every backend."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import (
    AuthenticationError,
    ConnectError,
    Database,
    DatabaseDisposedError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    ReadOnlyError,
    UnitOfWork,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, balances, count_accounts, create_tables


async def test_making_one_opens_nothing(make_database: DatabaseFactory) -> None:
    """A database that nobody used has opened no connection, and its engine neither."""
    database = make_database()
    assert database.engine is database.engine
    assert database.pool_statistics().idle == 0
    assert database.pool_statistics().capacity == 30


async def test_ping(database: Database) -> None:
    """A database that answers can be pinged, and the connection goes back."""
    await database.ping()
    assert (database.pool_statistics().in_use, database.pool_statistics().idle) == (0, 1)


async def test_session_rolls_back_what_was_not_committed(database: Database) -> None:
    """A session that ends without a commit leaves nothing behind."""
    await create_tables(database)
    async with database.session() as session:
        session.add(Account(owner="bob"))
        await session.flush()
    assert await count_accounts(database) == 0


async def test_read_session_refuses_writes(database: Database) -> None:
    """A write in a read session is refused with our error, which is SQLAlchemy's as well."""
    await create_tables(database, "ada")
    with pytest.raises(ReadOnlyError, match="only reads") as caught:
        async with database.read_session() as session:
            assert (await session.scalars(select(Account.owner))).all() == ["ada"]
            await session.execute(text("UPDATE account SET balance = 1"))
    assert isinstance(caught.value, sa_exc.SQLAlchemyError)
    assert await balances(database) == [0]


async def test_listeners_of_others_see_the_error(database: Database) -> None:
    """A listener for errors that somebody else attached is called with the error of ours."""
    await create_tables(database)
    seen: list[object] = []

    @event.listens_for(database.engine.sync_engine, "handle_error")
    def watch(context: ExceptionContext) -> None:
        seen.append(context.chained_exception)

    with pytest.raises(ReadOnlyError) as caught:
        async with database.read_session() as session:
            await session.execute(text("UPDATE account SET balance = 1"))
    assert seen == [caught.value]


async def test_writing_works_after_a_read_session_on_the_same_connection(
    make_database: DatabaseFactory,
) -> None:
    """Nothing of a read session stays on its connection."""
    database = make_database(pool_size=1, max_overflow=0)
    await create_tables(database, "ada")
    async with database.read_session() as session:
        await session.scalars(select(Account.owner))
    async with database.session() as session:
        await session.execute(text("UPDATE account SET balance = 1"))
        await session.commit()
    assert await balances(database) == [1]


async def test_disposed_database_opens_nothing(make_database: DatabaseFactory) -> None:
    """After its disposal a database says so at every use, and disposing again does nothing."""
    async with make_database() as database:
        await database.ping()
    await database.dispose()
    for use in (database.session, database.read_session, database.unit_of_work):
        with pytest.raises(DatabaseDisposedError, match="was disposed"):
            use()
    with pytest.raises(DatabaseDisposedError):
        await database.ping()
    assert "disposed" in repr(database)


async def test_dispose_waits_for_sessions_in_use(make_database: DatabaseFactory) -> None:
    """A session in use when the database is disposed can finish its work."""
    database = make_database()
    await create_tables(database, "ada")
    session = database.session()
    await session.execute(text("UPDATE account SET balance = 1"))
    disposing = asyncio.create_task(database.dispose(drain_seconds=30))
    while database.state != "closing":
        await asyncio.sleep(0)
    await session.commit()
    await session.close()
    await disposing
    assert await balances(make_database()) == [1]


async def test_what_is_returned_after_the_disposal_is_closed(
    make_database: DatabaseFactory,
) -> None:
    """A connection that was busy when its database was disposed is closed on its return."""
    database = make_database()
    connection = await database.engine.connect()
    raw = await connection.get_raw_connection()
    closed = []
    event.listen(database.engine.sync_engine, "close", lambda *_: closed.append(1))
    event.listen(database.engine.pool, "invalidate", lambda *_: closed.append(1))
    assert raw.driver_connection is not None
    await database.dispose(drain_seconds=0)
    assert database.state == "disposed"
    await connection.close()
    assert closed


async def test_repr_and_url_show_no_password(database: Database) -> None:
    """Neither the database nor its engine shows the password."""
    secret = database.settings.password
    shown = f"{database!r} {database.engine!r} {database.engine.url} {database.settings!r}"
    assert secret is None or secret.get_secret_value() not in shown


async def test_dead_idle_connection_is_replaced(make_database: DatabaseFactory) -> None:
    """A connection that died while it idled is noticed before it is used."""
    database = make_database(pool_ping_idle_seconds=0, pool_size=1, max_overflow=0)
    await _break_idle_connection(database)
    await database.ping()


async def test_dead_idle_connection_hurts_without_the_ping(
    make_database: DatabaseFactory,
) -> None:
    """Without the check, the first user of a connection that died gets an error."""
    database = make_database(pool_pre_ping="never", pool_size=1, max_overflow=0)
    await _break_idle_connection(database)
    with pytest.raises((sa_exc.DBAPIError, ValueError)):
        await database.ping()


async def _break_idle_connection(database: Database) -> None:
    """Cut the one connection of a pool, idle in it, without telling the pool."""
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        victim: Any = raw.driver_connection
    if hasattr(victim, "terminate"):
        victim.terminate()
    elif (closing := victim.close()) is not None:
        await closing


async def test_wait_until_ready_returns_at_once_when_it_is(database: Database) -> None:
    """A database that answers is ready."""
    await database.wait_until_ready(30)


async def test_wait_until_ready_gives_up_on_what_does_not_pass(
    backend: str, make_database: DatabaseFactory, tmp_path: object
) -> None:
    """A missing database is an error at once, not after the deadline."""
    name = f"{tmp_path}/nowhere/app.db" if backend == "sqlite" else "nonesuch"
    database = make_database(name=name)
    async with asyncio.timeout(30):
        with pytest.raises(DatabaseMissingError) as caught:
            await database.wait_until_ready(600)
    assert "nowhere" in str(caught.value) or "'nonesuch'" in str(caught.value)
    assert caught.value.hint


class TestServers:
    """Ways to fail that only a server has."""

    @pytest.fixture(autouse=True)
    def only_servers(self, make_database: DatabaseFactory, backend: str) -> None:
        """Leave the embedded backend out: it has no network to fail."""
        if not make_database().connector.capabilities.networked:
            pytest.skip(f"{backend} is not reached over a network")

    async def test_wrong_password(self, make_database: DatabaseFactory) -> None:
        """A wrong password is our error, SQLAlchemy's too, raised at once and without the word."""
        database = make_database(password="wr0ng-secret")
        with pytest.raises(AuthenticationError) as caught:
            await database.wait_until_ready(600)
        assert isinstance(caught.value, sa_exc.DBAPIError)
        assert "DB_PASSWORD" in caught.value.hint
        assert "wr0ng-secret" not in f"{caught.value} {caught.value!r}"

    async def test_refused(self, make_database: DatabaseFactory, unused_port: int) -> None:
        """A port where nobody listens is "unavailable", which may pass."""
        database = make_database(port=unused_port)
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached") as caught:
            await database.ping()
        assert isinstance(caught.value, sa_exc.OperationalError)
        assert isinstance(caught.value, ConnectError)
        assert caught.value.is_transient
        assert caught.value.__cause__ is not None
        assert "DB_PORT" in caught.value.hint

    async def test_unknown_host(self, make_database: DatabaseFactory) -> None:
        """A host that no name server knows is "unavailable"."""
        database = make_database(host="nonesuch.invalid")
        with pytest.raises(DatabaseUnavailableError, match=r"nonesuch\.invalid"):
            await database.ping()

    async def test_silent_server(self, make_database: DatabaseFactory, silent_port: int) -> None:
        """A server that accepts and never speaks costs no more than the connect deadline."""
        database = make_database(port=silent_port, connect_timeout_seconds=0.2)
        async with asyncio.timeout(30):
            with pytest.raises(
                DatabaseUnavailableError,
                match=r"no connection within 0\.2 s \(DB_CONNECT_TIMEOUT_SECONDS\)",
            ):
                await database.ping()

    async def test_silent_server_holds_the_plain_engine_up(
        self, database: Database, silent_port: int
    ) -> None:
        """Negative control: long after our deadline the plain engine is still waiting."""
        url = database.connector.get_url().set(port=silent_port)
        plain = create_async_engine(url, connect_args={})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await plain.connect()
        await plain.dispose()

    async def test_wait_until_ready_ends_with_its_deadline(
        self, make_database: DatabaseFactory, unused_port: int, silent_port: int
    ) -> None:
        """Waiting for a server that never comes ends with "unavailable"."""
        for port in (unused_port, silent_port):
            async with asyncio.timeout(30):
                with pytest.raises(DatabaseUnavailableError):
                    await make_database(port=port).wait_until_ready(0.3)

    async def test_a_unit_takes_no_connection_before_its_first_statement(
        self, database: Database
    ) -> None:
        """A unit that has not spoken to the database holds no connection."""
        async with UnitOfWork(database.sessionmaker) as session:
            assert database.pool_statistics().in_use == 0
            await session.execute(text("SELECT 1"))
            assert database.pool_statistics().in_use == 1
