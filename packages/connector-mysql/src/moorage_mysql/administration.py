"""Making and dropping databases, and who may migrate one: what the server does on request."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import Database, DBConnector

__all__ = [
    "create_database",
    "database_exists",
    "drop_database",
    "try_lock_migrations",
    "unlock_migrations",
]

# There on every server, and open to every user.
_ALWAYS_THERE = "information_schema"


async def database_exists(connector: DBConnector) -> bool:
    """Return whether the database of the settings is there, and this user may know it."""
    statement = text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name")
    async with _connection_to_server(connector) as connection:
        found = await connection.execute(statement, {"name": connector.settings.name})
        return found.first() is not None


async def create_database(connector: DBConnector) -> None:
    """Create the database of the settings, for all of Unicode whatever the server's default is."""
    async with _connection_to_server(connector) as connection:
        name = connection.dialect.identifier_preparer.quote_identifier(connector.settings.name)
        await connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")


async def drop_database(connector: DBConnector) -> None:
    """Drop the database of the settings; waits for open transactions on it, to a limit."""
    async with _connection_to_server(connector) as connection:
        name = connection.dialect.identifier_preparer.quote_identifier(connector.settings.name)
        # Dropping what is not there is a warning, which the driver would print.
        await connection.exec_driver_sql("SET SESSION sql_notes=0")
        await connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")


async def try_lock_migrations(connector: DBConnector, connection: AsyncConnection) -> bool:
    """Take the lock of the session, which outlives its transactions."""
    return bool(await _ask(connection, func.get_lock(_lock_name(connector), 0)))


async def unlock_migrations(connector: DBConnector, connection: AsyncConnection) -> None:
    """Give the lock of the session back."""
    await _ask(connection, func.release_lock(_lock_name(connector)))


def _lock_name(connector: DBConnector) -> str:
    # Names of locks belong to the server, and have at most 64 characters.
    digest = hashlib.sha256(connector.settings.name.encode()).hexdigest()
    return f"moorage-migrations-{digest[:32]}"


async def _ask(connection: AsyncConnection, question: object) -> object:
    statement = select(question)  # type: ignore[call-overload]  # a function of the server
    if connection.in_transaction():
        return await connection.scalar(statement)
    async with connection.begin():
        return await connection.scalar(statement)


@asynccontextmanager
async def _connection_to_server(connector: DBConnector) -> AsyncIterator[AsyncConnection]:
    """Connect for a moment, and not to the database of the settings."""
    beside = copy.copy(connector)
    beside.settings = connector.settings.replaced("the server's own database", name=_ALWAYS_THERE)
    async with Database(connector=beside) as server, server.engine.connect() as connection:
        yield connection
