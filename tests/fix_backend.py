"""
The databases that tests run on.

``MOORAGE_TEST_BACKENDS`` (comma-separated; default: all three) chooses the backends. A backend that
was chosen and cannot be had is a failure with the command that installs it, never a skip.
``MOORAGE_TEST_POSTGRES_DRIVER=psycopg`` runs what is about PostgreSQL on the other driver.
"""

import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.servers import Server, ServerUnavailable, throwaway, url_variable

VARIABLE = "MOORAGE_TEST_BACKENDS"
DRIVER_VARIABLE = "MOORAGE_TEST_POSTGRES_DRIVER"
DRIVER_SETTING = "DB_POSTGRES_DRIVER"
BACKENDS = ("sqlite", "postgres", "mysql")
DRIVERS = ("aiosqlite", "asyncpg", "aiomysql", "PyMySQL", "psycopg", "asyncmy")


def chosen_backends() -> list[str]:
    """Return the backends of this run, in their usual order."""
    wanted = os.environ.get(VARIABLE) or ",".join(BACKENDS)
    names = [name.strip() for name in wanted.split(",")]
    if unknown := set(names) - set(BACKENDS):
        raise pytest.UsageError(f"{VARIABLE}: unknown {sorted(unknown)}, expected {BACKENDS}")
    return [name for name in BACKENDS if name in names]


class Servers:
    """The servers of one run, each started when a test first asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, Server] = {}
        self._failed: dict[str, str] = {}

    def get(self, backend: str) -> Server:
        """
        Return the server of a backend.

        The first failure is remembered: the backend's other tests fail at once with the same
        message, rather than each waiting for a server that will not come.
        """
        if backend in self._failed:
            pytest.fail(self._failed[backend], pytrace=False)
        if backend not in self._started:
            try:
                self._started[backend] = self._stack.enter_context(throwaway(backend))
            except ServerUnavailable as error:
                self._failed[backend] = f"no {backend} server: {error}"
                pytest.fail(self._failed[backend], pytrace=False)
        return self._started[backend]


def pytest_configure() -> None:
    """Choose the driver for every connector of this run, and of its processes."""
    if driver := os.environ.get(DRIVER_VARIABLE):
        os.environ[DRIVER_SETTING] = driver


def pytest_report_header() -> list[str]:
    """Say what this run is made of."""
    present = []
    for driver in DRIVERS:
        with suppress(PackageNotFoundError):
            present.append(f"{driver} {version(driver)}")
    sqlalchemy = "absent"
    with suppress(PackageNotFoundError):
        sqlalchemy = version("sqlalchemy")
    lines = [
        f"moorage: Python {platform.python_version()}, SQLAlchemy {sqlalchemy}",
        f"moorage: drivers {', '.join(present) or 'none'}",
    ]
    for backend in chosen_backends():
        if backend == "sqlite":
            import sqlite3

            lines.append(f"moorage: sqlite is SQLite {sqlite3.sqlite_version}")
        elif os.environ.get(url_variable(backend)):
            try:
                with throwaway(backend) as server:
                    lines.append(f"moorage: {backend} is {server.version()}, running")
            except ServerUnavailable as error:
                lines.append(f"moorage: {backend} is out of reach: {error}")
        else:
            lines.append(f"moorage: {backend} is started when a test asks for it")
    return lines


@pytest.fixture(params=chosen_backends())
def backend(request: pytest.FixtureRequest) -> str:
    """Run the test once on each chosen backend."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Hand out the run's servers and end them with the run."""
    with ExitStack() as stack:
        yield Servers(stack)


@contextmanager
def new_database(backend: str, servers: Servers, folder: Path) -> Iterator[dict[str, str | int]]:
    """Yield the settings of a new, empty database, which is dropped afterwards."""
    if backend == "sqlite":
        yield {"type": "sqlite", "name": str(folder / "app.db")}
        return
    server = servers.get(backend)
    name = f"test_{secrets.token_hex(6)}"
    server.create_database(name)
    try:
        yield {
            "type": backend,
            "host": server.address.host,
            "port": server.address.port,
            "user": server.address.user,
            "password": server.address.password,
            "name": name,
        }
    finally:
        server.drop_database(name)


@pytest.fixture
def fresh_database(
    backend: str, servers: Servers, tmp_path: Path
) -> Iterator[dict[str, str | int]]:
    """
    Return the settings of a new, empty database, by field name.

    SQLite gets a file. On a server the database is dropped after the test, with whatever
    connections the test left open.
    """
    with new_database(backend, servers, tmp_path) as settings:
        yield settings
