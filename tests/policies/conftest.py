"""These tests are about one backend, and run on what stands in for a project of Supabase."""

import pytest

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


@pytest.fixture
async def either_project(database: Database, default_grants: bool) -> Database:
    """Return the database of a new project, and then of an old one."""
    async with database.engine.begin() as connection:
        await create_supabase_stand_in(connection, default_grants=default_grants)
    return database
