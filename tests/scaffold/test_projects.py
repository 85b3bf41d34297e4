"""Projects that were just written work: they import, migrate, pass their tests, and answer."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from moorage import Database, DatabaseSettings
from moorage_postgres.testing import create_supabase_stand_in
from tests.fix_backend import Servers, new_database
from tests.fix_scale import Scale
from tests.scaffold.projects import (
    FLAGS,
    LAYOUTS,
    MOORAGE,
    TOOLS,
    environment,
    name_of,
    pairwise,
    product,
    run,
    write,
)
from tests.servers.supervision import free_port

START_SECONDS = 240.0
# Each of them starts a dozen programs.
pytestmark = pytest.mark.timeout(900)
# One of each kind for the usual run; the long run has a cover of everything with everything.
FEW = [
    {"fastapi": True, "unit_of_work": True, "example": True, "auth": True, "layout": "src"},
    {"fastapi": False, "unit_of_work": True, "example": False, "auth": True, "layout": "package"},
]
CHOICES = {"backend": ("sqlite", "postgres", "mysql"), **FLAGS, **LAYOUTS, **TOOLS}
COVER = pairwise(CHOICES)
ALL = [*COVER, *product(CHOICES)[:: 720 // (24 - len(COVER)) + 1]]


@contextmanager
def served(folder: Path, target: str, database: dict[str, Any], source: str) -> Iterator[str]:
    """Yield the address of an application under uvicorn."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--app-dir", source or "."],
        cwd=folder,
        env=environment(database),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()


def ask(url: str) -> httpx.Response:
    """Ask until somebody answers, or the deadline is over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=10, trust_env=False)
        time.sleep(0.1)
    raise AssertionError(f"nobody answers at {url}")


def try_out(folder: Path, options: dict[str, Any], database: dict[str, Any]) -> None:
    """Write a project, and do with it what its owner would do first."""
    plan = write(folder, **options)
    has_tables = options["example"] or options["auth"]
    tests = run(folder, "-W", "error", "-m", "pytest", "-q", database=database)
    assert "skipped" not in tests
    if has_tables:
        # By our command and by Alembic's own, up and down.
        run(folder, *MOORAGE, "db", "upgrade", database=database)
    app = f"{plan.answers.package}.main:app".removeprefix(".")
    if options["fastapi"]:
        with served(folder, app, database, plan.source) as url:
            assert ask(f"{url}/health/ready").json()["status"] == "ready"
            if options["example"]:
                assert ask(f"{url}/books").json() == []
    if has_tables:
        run(folder, "-m", "alembic", "downgrade", "base", database=database)
    assert not write(folder).changes


@pytest.mark.parametrize("options", FEW, ids=name_of)
def test_a_new_project_works(options: dict[str, Any], tmp_path: Path) -> None:
    """A project on SQLite passes its tests, migrates up and down, serves, and stays as it is."""
    database = {"type": "sqlite", "name": "app.db"}
    try_out(tmp_path / "shop", {"backend": "sqlite", "tool": "pip", **options}, database)


def test_a_project_on_supabase_protects_its_tables(servers: Servers, tmp_path: Path) -> None:
    """A project works on PostgreSQL with Supabase's roles; each table has a policy."""
    with new_database("postgres", servers, tmp_path) as database:
        asyncio.run(be_supabase(database))
        options = {"backend": "supabase", "tool": "pip", **FEW[0]}
        project = {**database, "type": "supabase"}
        try_out(tmp_path / "shop", options, project)
        run(tmp_path / "shop", *MOORAGE, "db", "upgrade", database=project)
        protected = asyncio.run(rows(database, PROTECTED))
    assert {tuple(row) for row in protected} == {
        (name, True, 1) for name in ("authors", "books", "users")
    }


PROTECTED = """
    SELECT relname, relrowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid)
    FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    """


async def be_supabase(settings: dict[str, Any]) -> None:
    """Make the roles that Supabase has."""
    database = Database(DatabaseSettings(**settings, _env_file=None))
    async with database, database.engine.begin() as connection:
        await create_supabase_stand_in(connection)


async def rows(settings: dict[str, Any], statement: str) -> list[Any]:
    """Return what a statement finds."""
    database = Database(DatabaseSettings(**settings, _env_file=None))
    async with database, database.engine.connect() as connection:
        return list(await connection.execute(text(statement)))


def test_the_cover_is_one() -> None:
    """In the projects of the long run, two dozen, any two choices meet."""
    assert len(ALL) >= 24
    for first in ("backend", "layout", "tool"):
        for second in ("fastapi", "auth", "unit_of_work"):
            met = {(row[first], row[second]) for row in ALL}
            assert len(met) == 2 * len({row[first] for row in ALL})


@pytest.mark.scaled
def test_all_kinds_of_projects_work(scale: Scale, servers: Servers, tmp_path: Path) -> None:
    """Each of a pairwise cover of all choices works, on its own backend."""
    work = []
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for number, options in enumerate(ALL[: scale(small=0, full=len(ALL))]):
            folder = tmp_path / str(number)
            folder.mkdir()
            database = stack.enter_context(new_database(options["backend"], servers, folder))
            work.append(pool.submit(try_out, folder / "shop", options, database))
        for done in as_completed(work):
            done.result()
