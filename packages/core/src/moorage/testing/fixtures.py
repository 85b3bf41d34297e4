"""
Fixtures for tests of applications: ``pytest_plugins = ["moorage.testing.fixtures"]``.

The line belongs in the ``conftest.py`` at the root of the project. Everything is ready with it if
the project has an ``alembic.ini``; one without overrides the fixture ``db_schema``. The tests never
touch the application's own database: theirs are named after it, and dropped when they are done.

They bind to no event loop before a session is used, and so work under every loop scope of
pytest-asyncio and with anyio's plugin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.database import Database
from moorage.default import replace_database
from moorage.settings import DatabaseSettings
from moorage.testing.isolation import RolledBackDatabase
from moorage.testing.storage import Schema, Storage, run_in_thread
from moorage.unit_of_work import UnitOfWork

__all__ = [
    "db_committed",
    "db_database",
    "db_empty",
    "db_schema",
    "db_session",
    "db_settings",
    "db_storage",
    "db_unit_of_work",
]


@pytest.fixture(scope="session")
def db_settings() -> DatabaseSettings:
    """Return the application's settings, from the environment; override it for others."""
    return DatabaseSettings()


@pytest.fixture(scope="session")
def db_schema(pytestconfig: pytest.Config) -> Schema:
    """Return what makes the tables: the migrations of the project; override it for others."""
    config = pytestconfig.rootpath / "alembic.ini"
    if not config.is_file():
        raise pytest.UsageError(
            f"moorage.testing: there is no {config} to make the tables with; override the fixture"
            " db_schema by one that returns an async function of the Database"
        )

    async def migrate(database: Database) -> None:
        from moorage import migrations

        await migrations.upgrade("heads", config=config, database=database)

    return migrate


@pytest.fixture(scope="session")
def db_storage(
    db_settings: DatabaseSettings,
    db_schema: Schema,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Storage]:
    """Return the databases of this run; those of an earlier run that was killed are replaced."""
    folder, worker = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        folder = folder.parent  # which the workers share
    storage = Storage(db_settings, db_schema, worker or "main", Path(folder))
    with storage.template():
        yield storage


@pytest.fixture(scope="session")
def _db_of_worker(db_storage: Storage) -> Iterator[RolledBackDatabase]:
    with db_storage.database("tests") as settings:
        database = RolledBackDatabase(settings)
        yield database
        run_in_thread(database.dispose(drain_seconds=0))


@pytest.fixture
def db_database(_db_of_worker: RolledBackDatabase) -> Iterator[RolledBackDatabase]:
    """
    Return a database of which nothing stays, and make it the one of the process.

    ``UnitOfWork()``, ``get_sessionmaker()`` and what stands on them use it during the test.
    """
    database = _db_of_worker
    with replace_database(database):
        try:
            yield database
        finally:
            database.roll_back_after_test()


@pytest.fixture
def db_session(db_database: RolledBackDatabase) -> AsyncSession:
    """Return a session, in which the test may commit; it ends with the test."""
    return db_database.session()


@pytest.fixture
def db_unit_of_work(db_database: RolledBackDatabase) -> Callable[..., UnitOfWork]:
    """Return what makes units of work: ``async with db_unit_of_work() as session:``."""
    return db_database.unit_of_work


@pytest.fixture
def db_committed(db_storage: Storage) -> Iterator[Database]:
    """
    Return a database of this test's own, in which sessions run at once and commits are real.

    It is a copy of the template where the backend can copy, else it is emptied for the test. It is
    the database of the process during the test.
    """
    with db_storage.committed() as settings:
        yield from _used(Database(settings))


@pytest.fixture
def db_empty(db_storage: Storage) -> Iterator[Database]:
    """Return an empty database of this test's own, for tests of migrations."""
    with db_storage.database("empty", empty=True) as settings:
        yield from _used(Database(settings))


def _used(database: Database) -> Iterator[Database]:
    with replace_database(database):
        try:
            yield database
        finally:
            run_in_thread(database.dispose(drain_seconds=0))
