"""
Ways to bring about the errors that only a MySQL or MariaDB server has, for the conformance suite.

For tests of connectors, of this one and of any other for the same server; nothing here is for
production::

    class TestConformance(ConnectorSuite):
        provocations = PROVOCATIONS

The user of the database must be allowed to create users. Each leaves the database as it was.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import (
    Database,
    DatabaseError,
    PermissionDeniedError,
    SerializationError,
    StalePlanError,
    StatementCancelledError,
    TooManyConnectionsError,
)

__all__ = ["PROVOCATIONS"]


def _runs(statement: str) -> Callable[[Database], Awaitable[object]]:
    async def provoke(database: Database) -> None:
        async with database.engine.connect() as connection:
            await _run(connection, statement)

    return provoke


async def _run(connection: AsyncConnection, *statements: str) -> None:
    for statement in statements:
        await connection.execute(text(statement))


async def _changes_what_another_one_changed(database: Database) -> None:
    change = "UPDATE moorage_owner SET balance = balance + 1 WHERE id = 1"
    snapshot = "SET SESSION innodb_snapshot_isolation"  # off by default before MariaDB 11.6
    async with database.engine.connect() as one, database.engine.connect() as other:
        await one.execution_options(isolation_level="REPEATABLE READ")
        dialect: Any = one.dialect
        if not dialect.is_mariadb:
            # It has the error, and no storage engine that would raise it.
            await _run(one, "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1020")
        try:
            await _run(one, f"{snapshot} = ON", "SELECT * FROM moorage_owner")
            await _run(other, change)
            await other.commit()
            await _run(one, change)
        finally:
            await one.rollback()
            await _run(one, f"{snapshot} = DEFAULT")


async def _reads_a_table_that_is_too_new(database: Database) -> None:
    async with database.engine.connect() as one, database.engine.connect() as other:
        await one.execution_options(isolation_level="REPEATABLE READ")
        await _run(one, "SELECT * FROM moorage_owner")
        await _run(other, "CREATE TABLE moorage_new (id INTEGER)")
        try:
            await _run(one, "SELECT * FROM moorage_new")
        finally:
            await one.rollback()
            await _run(other, "DROP TABLE moorage_new")


async def _has_no_connection_left(database: Database) -> None:
    name = f"moorage_{secrets.token_hex(6)}"
    settings = database.connector.settings
    log_in = settings.replaced("the suite", user=name, password=SecretStr(name))
    async with database.engine.connect() as connection:
        await _run(
            connection,
            f"CREATE USER {name}@'%' IDENTIFIED BY '{name}' WITH MAX_USER_CONNECTIONS 1",
            f"GRANT SELECT ON `{settings.name}`.* TO {name}@'%'",
        )
    try:
        async with Database(log_in) as other, other.engine.connect(), other.engine.connect():
            pass
    finally:
        async with database.engine.connect() as connection:
            await _run(connection, f"DROP USER {name}@'%'")


PROVOCATIONS: Final[Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]] = {
    PermissionDeniedError: _runs("CREATE TABLE information_schema.moorage_denied (id INTEGER)"),
    SerializationError: _changes_what_another_one_changed,
    StalePlanError: _reads_a_table_that_is_too_new,
    StatementCancelledError: _runs("KILL QUERY CONNECTION_ID()"),
    TooManyConnectionsError: _has_no_connection_left,
}
"""A way to bring about each class, given a ``Database`` with the tables of the suite."""
