"""What drivers and the operating system raise by themselves reaches nobody as it is."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import text

from moorage import (
    ConnectionLostError,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    DataError,
)
from tests.chaos.test_restart import database_on
from tests.fix_backend import chosen_backends
from tests.servers import own_server
from tests.servers.postgres import OwnPostgres


@pytest.mark.skipif("postgres" not in chosen_backends(), reason="its way of shutting down")
async def test_a_server_that_takes_no_logins_may_do_so_later() -> None:
    """A server that is starting up or shutting down is unavailable, which is worth waiting for."""
    with own_server("postgres") as server:
        assert isinstance(server, OwnPostgres)
        held, refused = database_on(server), database_on(server)
        async with held.session() as session:
            await session.execute(text("SELECT 1"))
            server.refuse_logins()
            async with asyncio.timeout(30):
                while True:  # until the signal has arrived
                    try:
                        await refused.ping()
                    except DatabaseError as error:
                        failure = error
                        break
            assert type(failure).__name__ == "DatabaseUnavailableError"
            assert isinstance(failure, sa_exc.SQLAlchemyError)
            assert failure.backend_code == "57P03"
            assert failure.is_transient
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        for database in (held, refused):
            await database.dispose()


async def _close_behind_our_back(driver_connection: Any, backend: str) -> None:
    if backend == "postgres":
        psycopg = getattr(driver_connection, "pgconn", None)
        psycopg.finish() if psycopg else driver_connection.terminate()
    elif backend == "mysql":
        driver_connection.close()
    else:
        await driver_connection.close()


@pytest.mark.parametrize("when", ["before a statement", "before COMMIT", "before ROLLBACK"])
async def test_a_connection_that_somebody_closed_is_lost(
    database: Database, backend: str, when: str
) -> None:
    """A driver's connection that is closed behind moorage's back is a lost one, not a riddle."""
    unit = database.unit_of_work()

    async def work() -> None:
        async with unit as session:
            await session.execute(text("SELECT 1"))
            raw = await (await session.connection()).get_raw_connection()
            await _close_behind_our_back(raw.driver_connection, backend)
            if when == "before a statement":
                await session.execute(text("SELECT 1"))
            if when == "before ROLLBACK":
                raise LookupError

    with pytest.raises((DatabaseError, LookupError)) as caught:
        await work()
    if when == "before ROLLBACK":
        assert type(caught.value) is LookupError
    else:
        assert isinstance(caught.value, sa_exc.SQLAlchemyError)
    if when == "before a statement":
        assert isinstance(caught.value, ConnectionLostError)
        assert unit.outcome == "rolled_back"
    assert database.pool_statistics().in_use == 0
    await database.ping()


async def test_a_number_that_no_column_holds_is_a_data_error(database: Database) -> None:
    """Python's and the driver's own complaints about a value are a DataError."""
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE number (value BIGINT)"))
    with pytest.raises(DataError) as caught:
        async with database.unit_of_work() as session:
            await session.execute(text("INSERT INTO number VALUES (:value)"), {"value": 2**70})
    assert isinstance(caught.value, sa_exc.SQLAlchemyError)


@pytest.mark.parametrize("backend", [name for name in chosen_backends() if name != "sqlite"])
async def test_a_server_that_speaks_another_language_is_unavailable(
    backend: str, make_database: Any
) -> None:
    """A port where something else listens is no database, and says nothing but that."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        for mode in ("disable", "prefer"):
            database = make_database(host="127.0.0.1", port=port, ssl_mode=mode)
            with pytest.raises(DatabaseError) as caught:
                await database.ping()
            assert isinstance(caught.value, DatabaseUnavailableError)
            assert isinstance(caught.value, sa_exc.SQLAlchemyError)
