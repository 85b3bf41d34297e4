"""Projects that were just written work: they import, migrate, pass their tests, and answer."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
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
    BACKENDS,
    FLAGS,
    LAYOUTS,
    TOOLS,
    environment,
    pairwise,
    product,
    run,
    write,
)
from tests.servers.supervision import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 240.0
# What the usual run tries: with moorage and without, the latter where tables are protected.
FEW: list[dict[str, Any]] = [
    {
        "backend": "sqlite",
        "fastapi": True,
        "unit_of_work": True,
        "example": True,
        "auth": True,
        "standalone": False,
        "layout": "src",
        "tool": "pip",
    },
    {
        "backend": "supabase",
        "fastapi": True,
        "unit_of_work": False,
        "example": True,
        "auth": False,
        "standalone": True,
        "layout": "package",
        "tool": "uv",
    },
]
LEAST = 24


def cover() -> list[dict[str, Any]]:
    """Return projects in which any two choices meet, two dozen at least."""
    choices = {**BACKENDS, **FLAGS, **LAYOUTS, **TOOLS}
    chosen = pairwise(choices, FEW)
    everything = product(choices)
    more = max(LEAST - len(chosen), 0)
    return [*chosen, *everything[7 :: len(everything) // (more + 1)][:more]]


@contextmanager
def served(
    folder: Path, target: str, source: str, database: dict[str, Any], python: str, **more: str
) -> Iterator[str]:
    """Yield the address of an application under uvicorn."""
    port = free_port()
    command = [python, "-m", "uvicorn", target, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--app-dir", source or "."],
        cwd=folder,
        env={**environment(database), **more},
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
    """Ask until the application is ready, or the deadline is over: the first ping may be late."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            response = httpx.get(url, timeout=30, trust_env=False)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response
        time.sleep(0.1)
    raise AssertionError(f"nobody answers at {url}")


def try_out(
    folder: Path, options: dict[str, Any], database: dict[str, Any], wheels: Path | None = None
) -> None:
    """
    Write a project, and do with it what its owner would do first.

    With wheels, it is installed into an environment of its own, from what it says of itself.
    """
    plan = write(folder, **options)
    where: dict[str, Any] = {"database": database, "python": sys.executable}
    if wheels is not None:
        python = install(folder, options["tool"], wheels)
        where.update(python=python, PYTHONDONTWRITEBYTECODE="")
    has_tables = options["example"] or options["auth"]
    plugins: list[str] = []
    if wheels is None:  # those that this environment has beside are none of the project's
        plugins = ["-p", "pytest_asyncio.plugin"]
        where["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    tests = run(folder, "-W", "error", "-m", "pytest", "-q", *plugins, **where)
    assert "skipped" not in tests
    if has_tables:
        run(folder, "-c", COMMANDS, json.dumps(commands(options)), **where)
    if options["backend"] == "supabase" and has_tables:
        # moorage keeps the version table outside of what is served; Alembic alone does not.
        is_own = options["standalone"]
        expected = {"alembic_version": True} if is_own else {}
        expected |= {"authors": True, "books": True} if options["example"] else {}
        expected |= {"users": is_own} if options["auth"] else {}
        assert protected(database) == expected
    if options["fastapi"]:
        app = f"{plan.answers.package}.main:app".removeprefix(".")
        with served(folder, app, plan.source, **where) as url:
            assert ask(f"{url}/health/ready").json()["status"] == "ready"
            if options["example"]:
                assert len(ask(f"{url}/books").json()) > 1  # the seeds
    assert not write(folder).changes


# One after the other in one process, each as its own program would call it.
COMMANDS = """
import json, runpy, sys

for command, *arguments in json.loads(sys.argv[1]):
    sys.argv = [command, *arguments]
    try:
        if command.endswith(".py"):
            runpy.run_path(command, run_name="__main__")
        elif command == "alembic":
            from alembic.config import main
            main()
        else:
            from moorage.cli import main
            main()
    except SystemExit as error:
        assert not error.code, (command, arguments)
"""


def commands(options: dict[str, Any]) -> list[list[str]]:
    """Return commands of ours and Alembic's own: up, down and up again, and then the seeds."""
    first, seed = ["moorage", "db", "upgrade"], ["moorage", "db", "seed", "--env", "dev"]
    if options["standalone"]:
        first, seed = ["alembic", "upgrade", "head"], ["seeds/books.py"]
    again = [["alembic", "downgrade", "base"], ["alembic", "upgrade", "head"]]
    after = [seed] if options["example"] else []
    if options["backend"] == "supabase" and not options["standalone"]:
        after += [["moorage", "db", "check"], ["moorage", "supabase", "lint", "--fail-on", "info"]]
    return [first, *again, *after]


def install(folder: Path, tool: str, wheels: Path) -> str:
    """Install what a project lists, as its tool reads it; return the Python that has it."""
    python = folder.parent / "venv/bin/python"
    uv("venv", "--python", sys.executable, str(python.parents[1]))
    listed = ["-r", "requirements.txt", "-r", "requirements-dev.txt"]
    if tool != "pip":
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        development = project.get("dependency-groups", {}).get("dev")
        if tool == "hatch":
            development = project["tool"]["hatch"]["envs"]["default"]["dependencies"]
        listed = [*project["project"]["dependencies"], *development]
    place = ["--python", str(python), "--find-links", str(wheels)]
    uv("pip", "install", *place, *listed, folder=folder)
    share_bytecode(wheels.parent / "venv", python.parents[1])
    return str(python)


def uv(*arguments: str, folder: Path | None = None) -> None:
    """Run uv, whose cache is what all projects share."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else "uv"
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [program, *arguments, "--quiet"]
    done = subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def build_wheels(folder: Path) -> Path:
    """Build our distributions, in a copy of the tree, into a folder of wheels."""
    rubbish = shutil.ignore_patterns("__pycache__", "dist", ".*")
    shutil.copytree(ROOT / "packages", folder / "tree", ignore=rubbish)
    for project in sorted((folder / "tree").iterdir()):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        command = [*build, "-d", str(folder / "wheels")]
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    return folder / "wheels"


def compile_once(wheels: Path) -> None:
    """Install what projects use into an environment beside the wheels, and compile it."""
    venv = wheels.parent / "venv"
    uv("venv", "--python", sys.executable, str(venv))
    ours = "moorage[cli,fastapi,migrations,mysql,postgres,sqlite]"
    others = ["httpx", "pwdlib[argon2]", "pytest", "pytest-asyncio", "uvicorn"]
    place = ["--python", str(venv / "bin/python"), "--find-links", str(wheels)]
    uv("pip", "install", "--compile-bytecode", *place, ours, *others)


def share_bytecode(donor: Path, venv: Path) -> None:
    """
    Let an environment have what another one has compiled.

    Both have the same files, linked from uv's cache, so that Python takes the bytecode of one for
    the other; where they differ, it compiles anew.
    """
    for cache in donor.rglob("__pycache__"):
        place = venv / cache.relative_to(donor)
        if place.parent.is_dir() and not place.exists():
            shutil.copytree(cache, place, copy_function=os.link)


@contextmanager
def place_for(options: dict[str, Any], servers: Servers, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings of a database for a project."""
    backend = options["backend"]
    is_supabase = backend == "supabase"
    with new_database("postgres" if is_supabase else backend, servers, folder) as database:
        if is_supabase:
            asyncio.run(be_supabase(database))
        yield {**database, "type": backend}


async def be_supabase(settings: dict[str, Any]) -> None:
    """Make the roles that Supabase has."""
    database = Database(DatabaseSettings(**settings, _env_file=None))
    async with database, database.engine.begin() as connection:
        await create_supabase_stand_in(connection)


PROTECTED = """
    SELECT relname, EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid) AS has_policy
    FROM pg_class AS c
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relrowsecurity
    """


def protected(settings: dict[str, Any]) -> dict[str, bool]:
    """Return the tables that have row level security, and whether any policy lets somebody in."""

    async def look() -> dict[str, bool]:
        database = Database(DatabaseSettings(**settings, _env_file=None))
        async with database, database.engine.connect() as connection:
            rows = await connection.execute(text(PROTECTED))
            return {row.relname: row.has_policy for row in rows}

    return asyncio.run(look())


def test_the_cover_is_one() -> None:
    """In the projects of the long run, two dozen, any two choices meet."""
    rows = cover()
    assert len(rows) >= LEAST
    assert rows[: len(FEW)] == FEW
    names: Sequence[str] = list(rows[0])
    choices = {**BACKENDS, **FLAGS, **LAYOUTS, **TOOLS}
    for first in names:
        for second in names:
            if first != second:
                met = {(row[first], row[second]) for row in rows}
                assert len(met) == len(choices[first]) * len(choices[second]), (first, second)


@pytest.mark.scaled
@pytest.mark.timeout(1500)
def test_new_projects_work(scale: Scale, servers: Servers, tmp_path: Path) -> None:
    """
    A project passes its tests, migrates up and down, serves, protects its tables, and stays.

    The long run has a pairwise cover of all choices, each project installed from wheels into an
    environment of its own.
    """
    rows = cover()
    chosen = rows[: scale(small=len(FEW), full=len(rows))]
    wheels = None
    if len(chosen) > len(FEW):
        wheels = build_wheels(tmp_path / "ours")
        compile_once(wheels)
    work = []
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for number, options in enumerate(chosen):
            folder = tmp_path / str(number)
            folder.mkdir()
            database = stack.enter_context(place_for(options, servers, folder))
            work.append(pool.submit(try_out, folder / "shop", options, database, wheels))
        for done in as_completed(work):
            done.result()
