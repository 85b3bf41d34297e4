"""The tests of this connector run on its own backend, whichever others were chosen."""

import pytest


@pytest.fixture
def backend() -> str:
    """Return the backend of this connector."""
    return "postgres"


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Run the test once on each driver."""
    name: str = request.param
    return name
