"""Making and dropping databases, and who may migrate one: what the server does on request."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

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

# Advisory locks are numbers, and belong to one database: all programs that use moorage on it must
# ask for the same one, whatever their version.
_LOCK: Final = int.from_bytes(b"moorage", "big")


async def database_exists(connector: DBConnector, maintenance_database: str) -> bool:
    """Return whether the database of the settings is there."""
    statement = text("SELECT 1 FROM pg_database WHERE datname = :name")
    async with _connection_to(connector, maintenance_database) as connection:
        found = await connection.execute(statement, {"name": connector.settings.name})
        return found.first() is not None


async def create_database(
    connector: DBConnector, maintenance_database: str, template: str | None
) -> None:
    """Create the database of the settings, as a copy of ``template`` if that is given."""
    async with _connection_to(connector, maintenance_database) as connection:
        quote = connection.dialect.identifier_preparer.quote_identifier
        source = "" if template is None else f" TEMPLATE {quote(template)}"
        await connection.exec_driver_sql(
            f"CREATE DATABASE {quote(connector.settings.name)}{source}"
        )


async def drop_database(connector: DBConnector, maintenance_database: str) -> None:
    """Drop the database of the settings, and end the connections to it."""
    async with _connection_to(connector, maintenance_database) as connection:
        quote = connection.dialect.identifier_preparer.quote_identifier
        name = quote(connector.settings.name)
        await connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def try_lock_migrations(connection: AsyncConnection) -> bool:
    """Take the lock of the session, which outlives its transactions."""
    return bool(await _ask(connection, func.pg_try_advisory_lock(_LOCK)))


async def unlock_migrations(connection: AsyncConnection) -> None:
    """Give the lock of the session back."""
    await _ask(connection, func.pg_advisory_unlock(_LOCK))


async def _ask(connection: AsyncConnection, question: object) -> object:
    statement = select(question)  # type: ignore[call-overload]  # a function of the server
    if connection.in_transaction():
        return await connection.scalar(statement)
    async with connection.begin():
        return await connection.scalar(statement)


@asynccontextmanager
async def _connection_to(connector: DBConnector, database: str) -> AsyncIterator[AsyncConnection]:
    """Connect for a moment to another database of the server, outside of transactions."""
    beside = copy.copy(connector)
    beside.settings = connector.settings.replaced("the maintenance database", name=database)
    async with Database(connector=beside) as server, server.engine.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")
