"""
Ways to bring about the errors that only a PostgreSQL server has, for the conformance suite.

For tests of connectors, of this one and of any other for the same server; nothing here is for
production::

    class TestConformance(ConnectorSuite):
        provocations = PROVOCATIONS

The user of the database must be allowed to create roles. Each leaves the database as it was.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pydantic import SecretStr
from sqlalchemy import text

from moorage import (
    Database,
    DatabaseError,
    ExclusionViolationError,
    PermissionDeniedError,
    StalePlanError,
    StatementCancelledError,
    TooManyConnectionsError,
)

__all__ = ["PROVOCATIONS"]


def _runs(*statements: str) -> Callable[[Database], Awaitable[object]]:
    async def provoke(database: Database) -> None:
        async with database.session() as session:  # nothing of it is committed
            for statement in statements:
                await session.execute(text(statement))

    return provoke


async def _has_no_connection_left(database: Database) -> None:
    name = f"moorage_{secrets.token_hex(6)}"
    settings = database.connector.settings
    log_in = settings.replaced("the suite", user=name, password=SecretStr(name))
    async with database.unit_of_work() as session:
        await session.execute(
            text(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 0 PASSWORD '{name}'")
        )
    try:
        async with Database(log_in) as other:
            await other.ping()
    finally:
        async with database.unit_of_work() as session:
            await session.execute(text(f"DROP ROLE {name}"))


PROVOCATIONS: Final[Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]] = {
    ExclusionViolationError: _runs(
        "CREATE TABLE moorage_stay (during int4range, EXCLUDE USING gist (during WITH &&))",
        "INSERT INTO moorage_stay VALUES (int4range(1, 5)), (int4range(2, 6))",
    ),
    # A role that every server has, and that may read nothing of the suite's.
    PermissionDeniedError: _runs("SET LOCAL ROLE pg_monitor", "SELECT * FROM moorage_owner"),
    StalePlanError: _runs(
        "PREPARE moorage_plan AS SELECT * FROM moorage_owner",
        "ALTER TABLE moorage_owner ADD COLUMN later INTEGER",
        "EXECUTE moorage_plan",
    ),
    # The server looks for requests to cancel when the statement goes on, and finds its own.
    StatementCancelledError: _runs("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(20)"),
    TooManyConnectionsError: _has_no_connection_left,
}
"""A way to bring about each class, given a ``Database`` with the tables of the suite."""
