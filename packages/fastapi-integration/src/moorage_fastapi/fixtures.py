"""
Fixtures for tests of applications: ``pytest_plugins: list[str] = ["moorage_fastapi.fixtures"]``.

They stand on those of ``moorage.testing.fixtures``, which come with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from moorage.testing import RolledBackDatabase
from moorage_fastapi.testing import make_client, override_database

__all__ = ["db_app", "db_client"]

pytest_plugins: list[str] = ["moorage.testing.fixtures"]


@pytest.fixture
def db_app() -> FastAPI:
    """Return the application; override it."""
    raise pytest.UsageError(
        "moorage_fastapi.fixtures: override the fixture db_app by one that returns the application"
    )


@pytest.fixture
def db_client(db_app: FastAPI, db_database: RolledBackDatabase) -> Iterator[httpx.AsyncClient]:
    """
    Return a client of the application, of whose commits nothing stays.

    It shares its transaction with ``db_session`` and the other fixtures of the test. The lifespan
    of the application is not run.
    """
    with override_database(db_app, db_database):
        yield make_client(db_app)  # it holds nothing that would have to be closed
