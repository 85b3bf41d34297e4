"""These tests are about one backend, and run on what stands in for a project of Supabase."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from moorage import Database
from moorage_postgres.testing import create_supabase_stand_in


@pytest.fixture
def backend() -> str:
    """Return the backend that has row level security."""
    return "postgres"


@pytest.fixture(params=[False, True], ids=["new-grants", "old-grants"])
def default_grants(request: pytest.FixtureRequest) -> bool:
    """Return whether the project is one from before October 2026, whose tables are given away."""
    given: bool = request.param
    return given


@pytest.fixture
async def project(database: Database) -> Database:
    """Return the database of a project as it is made today."""
    async with database.engine.begin() as connection:
        await create_supabase_stand_in(connection)
    return database


async def within(database: Database, work: Callable[[Connection], Any]) -> Any:
    """Do synchronous work on a connection, as migrations do, in one transaction."""
    async with database.engine.begin() as connection:
        return await connection.run_sync(work)
