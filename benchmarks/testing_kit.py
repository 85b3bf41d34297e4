"""
What the test kit costs: the session fixture over an empty test, and a worker's own database.

A pytest of its own runs empty tests and tests that read by the session, in turns, in a project of
twenty tables; what is printed is how much longer the latter take, set-up and tear-down included.
The database of a worker is a copy of a template where the backend can copy, else it is made.
Medians, and in brackets the fastest tenth: other work on the machine only adds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.schema import Place
from tests.servers import ServerUnavailable, throwaway

TESTS = 100
DATABASES = 9
AIMS = {
    ("session fixture over an empty test", "sqlite"): 5,
    ("session fixture over an empty test", "postgres"): 15,
    ("a worker's database", "sqlite"): 100,
    ("a worker's database", "postgres"): 100,
}

CONFTEST = """
import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table

pytest_plugins = ["moorage.testing.fixtures"]
tables = MetaData()
for number in range(20):
    columns = [Column(f"c{n}", String(20), index=n == 0) for n in range(5)]
    Table(f"t{number}", tables, Column("id", Integer, primary_key=True), *columns)
spent = defaultdict(list)


@pytest.fixture(scope="session")
def db_schema():
    async def create(database):
        async with database.engine.begin() as connection:
            await connection.run_sync(tables.create_all)

    return create


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    begin = time.perf_counter()
    try:
        return (yield)
    finally:
        spent[item.name.partition("[")[0]].append(time.perf_counter() - begin)


def pytest_sessionfinish(session):
    Path("spent.json").write_text(json.dumps(spent))


@pytest.fixture(scope="session")
def copies(db_storage):
    for number in range(%(databases)d):
        begin = time.perf_counter()
        with db_storage.database(f"copy{number}"):
            spent["database"].append(time.perf_counter() - begin)
"""
TEST = """
import pytest
from sqlalchemy import text

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("turn", range(2))
def test_first(turn, db_database, copies):
    "What the first test pays for all."


@pytest.mark.parametrize("turn", range(%(tests)d))
class TestTurns:
    async def test_empty(self, turn):
        pass

    async def test_session(self, turn, db_session):
        assert await db_session.scalar(text("SELECT 1")) == 1
        await db_session.commit()
"""


def measure(place: Place, folder: Path) -> dict[str, tuple[float, float]]:
    """Return milliseconds: the median, and the fastest tenth."""
    values = {"databases": DATABASES, "tests": TESTS}
    (folder / "conftest.py").write_text(CONFTEST % values)
    (folder / "test_it.py").write_text(TEST % values)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    settings = {
        "DB_TYPE": place.backend,
        "DB_NAME": place.database,
        **({"DB_HOST": place.host, "DB_PORT": str(place.port)} if place.host else {}),
        **({"DB_USER": place.user, "DB_PASSWORD": place.password} if place.user else {}),
    }
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    spent = json.loads((folder / "spent.json").read_text())
    tenths = {name: statistics.quantiles(times, n=10) for name, times in spent.items()}

    def between(name: str, base: str | None = None) -> tuple[float, float]:
        taken = ((tenths[name][n], tenths[base][n] if base else 0.0) for n in (4, 0))
        middle, fastest = (1000 * (longer - shorter) for longer, shorter in taken)
        return middle, fastest

    return {
        "session fixture over an empty test": between("test_session", "test_empty"),
        "a worker's database": between("database"),
    }


def main() -> None:
    """Measure and print."""
    print(f"the test kit, {TESTS} tests and {DATABASES} databases:")
    with ExitStack() as stack:
        for backend in ("sqlite", "postgres", "mysql"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place = Place("sqlite", str(folder / "app.db"))
            if backend != "sqlite":
                try:
                    address = stack.enter_context(throwaway(backend)).address
                except ServerUnavailable as error:
                    print(f"  {backend}: {error}")
                    continue
                login = (address.host, address.port, address.user, address.password)
                place = Place(backend, "app", *login)
            for what, (middle, fastest) in measure(place, folder).items():
                aim = AIMS.get((what, backend))
                said = f"{backend}: {what}{f' (aim: at most {aim} ms)' if aim else ''}"
                print(f"  {said:66} {middle:7.1f} ms ({fastest:.1f})", flush=True)


if __name__ == "__main__":
    main()
