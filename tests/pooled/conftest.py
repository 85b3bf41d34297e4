"""These tests are about one backend, whichever others were chosen."""

import pytest


@pytest.fixture
def backend() -> str:
    """Return the backend that has poolers in front of it."""
    return "postgres"


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Run the test once on each driver."""
    name: str = request.param
    return name
