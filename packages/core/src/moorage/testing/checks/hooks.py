"""Checks of the hooks about the driver's own connections, each where a connector overrides it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.database import Database
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Owner
from moorage.testing.check import check
from moorage.testing.relay import relayed

__all__ = ["HookChecks"]

# What is closed on this machine is seen at once; this is for one that is very busy.
_NOTICE_SECONDS = 10.0


class HookChecks:
    """What core asks of a connection between two uses, and behind the back of its loop."""

    @check(
        "ping: it has to ask the server, and to leave no transaction open",
        capability="networked",
        hook="ping",
    )
    async def test_a_ping_asks_the_server(self, settings: DatabaseSettings) -> None:
        """A ping comes back while the server is there, and raises when the link was cut."""
        async with relayed(settings) as (relay, through), Database(through) as database:
            connector = database.connector
            async with database.engine.connect() as connection:
                driver_connection = await _driver_connection(connection)
                await connector.ping(driver_connection)
                assert connector.in_transaction(driver_connection) is not True
                assert await connection.scalar(select(1)) == 1
                await connection.rollback()
                relay.cut()
                with pytest.raises(Exception) as caught:  # whatever the driver has
                    await connector.ping(driver_connection)
                await connection.invalidate()
            # Core takes these for a mistake of the connector.
            assert not isinstance(caught.value, (AttributeError, NameError, TypeError))

    @check("is_closed: false for a connection in use, true once it was closed", hook="is_closed")
    async def test_what_was_closed_is_known(self, settings: DatabaseSettings) -> None:
        """The driver's connection is known to be closed when it is, and not before."""
        async with Database(settings) as database:
            connector = database.connector
            async with database.engine.connect() as connection:
                await connection.execute(select(1))
                driver_connection = await _driver_connection(connection)
                assert not connector.is_closed(driver_connection)
        assert connector.is_closed(driver_connection)

    @check(
        "in_transaction: what the server has said; None where that is not known",
        hook="in_transaction",
    )
    async def test_open_transactions_are_known(self, database: Database) -> None:
        """An open transaction is not taken for none, and one that is over not for an open one."""
        connector = database.connector
        async with database.engine.connect() as connection:
            driver_connection = await _driver_connection(connection)
            for end in (connection.commit, connection.rollback):
                await connection.execute(update(Owner).values(balance=1))
                assert connector.in_transaction(driver_connection) is not False
                await end()
                assert connector.in_transaction(driver_connection) is not True

    @check(
        "abandon: release_descriptor(), without the event loop and without a word to the server",
        capability="networked",
        hook="abandon",
    )
    async def test_connections_of_a_dead_loop_are_let_go(self, settings: DatabaseSettings) -> None:
        """What a loop that was killed has left is closed, and its server hears no goodbye."""
        async with relayed(settings) as (relay, through), Database(through) as database:
            await asyncio.to_thread(_use_in_a_loop_that_dies, database)
            sent = relay.bytes_sent
            assert database.pool_statistics().idle == 0  # it looks for loops that are gone
            async with asyncio.timeout(_NOTICE_SECONDS):
                await relay.closed()
            assert relay.bytes_sent == sent
            await database.ping()


async def _driver_connection(connection: AsyncConnection) -> object:
    return (await connection.get_raw_connection()).driver_connection


def _use_in_a_loop_that_dies(database: Database) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(database.ping())
    loop.close()
