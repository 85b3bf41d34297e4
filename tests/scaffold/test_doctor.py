"""Each fault is found under its own code, and nothing is found where nothing is wrong."""

import asyncio
import datetime as dt
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from moorage import Database
from moorage.cli import make_app
from moorage.doctor import CODES, examine
from moorage_postgres.testing import create_supabase_stand_in
from tests.fix_backend import Servers, new_database
from tests.scaffold.projects import write
from tests.scaffold.test_doctor_servers import SERVER_FAULTS

Plant = Callable[[Path, pytest.MonkeyPatch], None]
_numbers = itertools.count()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project that was just set up on SQLite, which is the working directory."""
    return enter(tmp_path / "shop", monkeypatch, "sqlite")


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch, backend: str, **variables: str) -> Path:
    """Set up a project, go there, and let nothing of this machine's settings in."""
    # Its package is imported by migrations, and must not be that of another test.
    write(folder, backend=backend, tool="uv", package=f"shop{next(_numbers)}", fastapi=False)
    for name in list(os.environ):
        if name.startswith(("DB_", "WEB_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return folder


def upgrade() -> None:
    """Apply the migrations."""
    result = CliRunner().invoke(make_app(), ["db", "upgrade"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def package(folder: Path) -> Path:
    """Return the package of a project."""
    (found,) = folder.glob("shop*/")
    return found


def code(name: str, text: str) -> Plant:
    """Return a fault that is a module."""

    def plant(folder: Path, _: pytest.MonkeyPatch) -> None:
        (package(folder) / name).write_text(text)

    return plant


def variable(**variables: str) -> Plant:
    """Return a fault that is a variable."""

    def plant(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return plant


def track_env(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Commit the file of variables."""
    subprocess.run(["git", "add", "--force", ".env"], cwd=folder, check=True)


def forget_to_ignore(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Ignore nothing."""
    (folder / ".gitignore").write_text("")


def track_secret(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Commit a password."""
    (folder / "deploy.sh").write_text("cd /srv\nexport DB_PASSWORD=correct-horse-battery\n")
    subprocess.run(["git", "add", "deploy.sh"], cwd=folder, check=True)


def lose_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Remove a file that was written by init."""
    (package(folder) / "db/queries.py").unlink()


def other_version(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connector be of a later version than the core."""
    real = _version()
    monkeypatch.setattr(
        "moorage.doctor.project.metadata.version",
        lambda name: "7.0.0" if name == "moorage-sqlite" else real(name),
    )


def bad_version(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a driver have a version that is known to fail."""
    real = _version()
    monkeypatch.setattr(
        "moorage.doctor.project.metadata.version",
        lambda name: "1.2.0" if name == "pymysql" else real(name),
    )


def _version() -> Callable[[str], str]:
    from importlib import metadata

    return metadata.version


def wrong_clock(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this host be an hour late."""

    class Late(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Late":
            return super().now(tz) - dt.timedelta(hours=1)

    class Clock:
        datetime = Late
        UTC = dt.UTC

    monkeypatch.setattr("moorage.doctor.server.dt", Clock)


def second_head(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Add a revision beside the first one, in a database that is at none of them."""
    first = folder / "alembic/versions/0001_first_tables.py"
    for number in ("0002", "0003"):
        text = first.read_text().replace('revision: str = "0001"', f'revision: str = "{number}"', 1)
        text = text.replace("str] | None = None", 'str] | None = "0001"', 1)
        text = text.partition("def upgrade")[0] + "def upgrade() -> None: ...\n"
        (folder / f"alembic/versions/{number}_more.py").write_text(text)


def pending(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Undo the migrations."""
    result = CliRunner().invoke(make_app(), ["db", "downgrade", "base"], catch_exceptions=False)
    assert result.exit_code == 0


def drift(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Add a column to a model, and no revision; what was imported is forgotten."""
    for name in [name for name in sys.modules if name.startswith(package(folder).name)]:
        del sys.modules[name]
    path = package(folder) / "db/models.py"
    column = "    subtitle: Mapped[str | None] = mapped_column()\n"
    path.write_text(path.read_text().replace('"books"\n', f'"books"\n\n{column}', 1))


def broken_env(folder: Path, _: pytest.MonkeyPatch) -> None:
    """Let env.py import what is not there."""
    (folder / "alembic/env.py").write_text("import no_such_module_of_a_project\n")


def two_urls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say twice where the database is, and differently."""
    (folder / ".env").unlink()
    monkeypatch.setenv("DB_URL", "sqlite:///a.db")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///b.db")


ELSEWHERE = {"DB_TYPE": "postgres", "DB_HOST": "db.example.org"}
ASYNC = "async def handle():\n    {}\n"

FAULTS: dict[str, tuple[str, Plant]] = {
    ".env is committed": ("P101", track_env),
    ".env is not ignored": ("P102", forget_to_ignore),
    "a password is committed": ("P103", track_secret),
    "a file is gone": ("P104", lose_file),
    "a syntax error": ("P105", code("wrong.py", "def (:\n")),
    "versions differ": ("V201", other_version),
    "a version that fails": ("V202", bad_version),
    "a number that is none": ("S301", variable(DB_POOL_SIZE="many")),
    "a slip in a variable": ("S302", variable(DB_POOL_SIZ="5")),
    "a placeholder": ("S303", variable(DB_USER="<user>")),
    "no password": ("S304", variable(**ELSEWHERE)),
    "no proof of the server": ("S305", variable(**ELSEWHERE, DB_SSL_MODE="require")),
    "no limit": ("S306", variable(DB_STATEMENT_TIMEOUT_SECONDS="0")),
    "too many connections": ("S307", variable(DB_TYPE="postgres", WEB_CONCURRENCY="8")),
    "statements are logged": ("S308", variable(DB_ECHO="1")),
    "two URLs": ("S309", two_urls),
    "several connectors": ("S310", lambda folder, _: (folder / ".env").unlink()),
    "no ping": ("S311", variable(DB_POOL_PRE_PING="never")),
    "no such connector": ("C401", variable(DB_TYPE="heron")),
    "no server": ("C402", variable(DB_TYPE="postgres", DB_PORT="1")),
    "another time": ("C403", wrong_clock),
    "not migrated": ("M501", pending),
    "two heads": ("M502", second_head),
    "models ahead of tables": ("M503", drift),
    "a model that nobody imports": (
        "M504",
        code("lost.py", 'class Lost:\n    __tablename__ = "lost"\n'),
    ),
    "migrations do not load": ("M505", broken_env),
    "a blocking driver": (
        "A601",
        code("a.py", "import sqlite3\n" + ASYNC.format("sqlite3.connect('x')")),
    ),
    "a blocking session": (
        "A601",
        code(
            "a.py",
            "from sqlalchemy.orm import sessionmaker\nmake = sessionmaker()\n"
            "async def handle():\n    with make() as session:\n        session.commit()\n",
        ),
    ),
    "sleep": ("A602", code("a.py", "from time import sleep\n" + ASYNC.format("sleep(1)"))),
    "blocking HTTP": (
        "A603",
        code("a.py", "import requests\n" + ASYNC.format("requests.get('x')")),
    ),
    "an engine for each call": (
        "A604",
        code(
            "a.py",
            "from sqlalchemy.ext.asyncio import create_async_engine as make\n"
            + ASYNC.format("make('x')"),
        ),
    ),
    "a global session": (
        "A605",
        code("a.py", "from sqlalchemy.ext.asyncio import AsyncSession\nsession = AsyncSession()\n"),
    ),
    "no await": (
        "A607",
        code(
            "a.py",
            "from sqlalchemy.ext.asyncio import AsyncSession\n"
            "async def handle(session: AsyncSession):\n    session.commit()\n",
        ),
    ),
    "a session after its request": (
        "A608",
        code(
            "a.py",
            "from sqlalchemy.ext.asyncio import AsyncSession\n"
            "async def handle(session: AsyncSession, tasks):\n"
            "    tasks.add_task(mail, session)\n",
        ),
    ),
    "attributes that expire": (
        "A609",
        code(
            "a.py",
            "from sqlalchemy.ext.asyncio import async_sessionmaker\nmake = async_sessionmaker()\n",
        ),
    ),
    "a shared session": (
        "A606",
        code(
            "a.py",
            "import asyncio\n" + ASYNC.format("await asyncio.gather(f(session), g(session))"),
        ),
    ),
}
# These bring another finding along: both are true.
ALSO = {"S305": {"S304"}, "M502": {"M501"}}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault is found under its code, with why and what to do, and no secret is told."""
    expected, plant = FAULTS[fault]
    shows_on_a_connection = expected[0] in {"C", "M"}
    if shows_on_a_connection:
        upgrade()
    plant(project, monkeypatch)
    report = asyncio.run(examine(connect=shows_on_a_connection))
    found = {finding.code for finding in report.findings}
    assert expected in found, report.findings
    assert found <= {expected} | ALSO.get(expected, set()), report.findings
    for finding in report.findings:
        assert finding.what
        assert "\n    do: " in str(finding)
        assert "correct-horse" not in str(finding)


def test_every_code_is_planted_and_documented() -> None:
    """Every code has a planted fault, and a line in the documentation that says the same."""
    planted = {code for code, *_ in (*FAULTS.values(), *SERVER_FAULTS.values())}
    assert planted == CODES.keys()
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\d+) \| [^|]+ \| (.+) \| (.+) \| (\w+) \|$", page, re.MULTILINE)
    documented = {code: (why, fix, severity) for code, why, fix, severity in rows}
    assert documented == {name: (code.why, code.fix, code.severity) for name, code in CODES.items()}


def test_the_line_is_told(project: Path) -> None:
    """What is found in the source has the file and the line; tests are not read."""
    text = "import time\n\n\nasync def handle():\n    x = 1\n    time.sleep(x)\n"
    (package(project) / "slow.py").write_text(text)
    (project / "tests/test_slow.py").write_text(text)
    report = asyncio.run(examine(connect=False))
    (finding,) = report.findings
    assert (finding.path, finding.line) == (f"{package(project).name}/slow.py", 6)


async def make_roles() -> None:
    """Make the roles that policies name, as Supabase has them."""
    async with Database() as database, database.engine.begin() as connection:
        await create_supabase_stand_in(connection)


def test_each_placeholder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied from .env.example is told by variable, also where no setting can be it."""
    folder = enter(tmp_path / "shop", monkeypatch, "supabase")
    (folder / ".env").write_text((folder / ".env.example").read_text())
    monkeypatch.setenv("DB_POOL_SIZE", "many")
    report = asyncio.run(examine(connect=False))
    told = {finding.what.partition(" ")[0]: finding.code for finding in report.findings}
    assert told.pop("DB_POOL_SIZE") == "S301"
    assert set(told.values()) == {"S303"}
    assert told.keys() >= {"DB_HOST", "DB_USER", "DB_PASSWORD", "DB_DIRECT_URL"}


def test_odd_files_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other encodings are told of or passed over; a folder `.env` is no file of secrets."""
    folder = enter(tmp_path / "shop", monkeypatch, "sqlite")
    shutil.rmtree(folder / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (folder / ".gitignore").write_bytes(b"\xff\xfe")
    (package(folder) / "odd.py").write_bytes(b"# -*- coding: nothing -*-\n")
    (folder / ".env").write_bytes("DB_USER=Zoë\nDB_POOL_SIZE=<pool size>\n".encode("latin-1"))
    report = asyncio.run(examine(connect=False))
    assert [finding.code for finding in report.findings] == ["P102", "P105", "S303", "S301"]
    (folder / ".env").unlink()
    (folder / ".env").mkdir()
    report = asyncio.run(examine(connect=False))
    assert {finding.code for finding in report.findings} == {"P105", "S310"}


def test_a_url_is_taken_apart(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a URL is told what it says, and not the password."""
    (project / ".env").unlink()
    monkeypatch.setenv("DATABASE_URL", "postgres://ann:correct-horse@db.example.org/shop")
    report = asyncio.run(examine(connect=False))
    assert report.facts["DATABASE_URL"] == (
        "host db.example.org, name shop, password •••, user ann"
    )


def test_people_get_what_is_alike_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, findings of one kind share their reason and their advice."""
    text = "import time\n\n\nasync def handle():\n    time.sleep(1)\n    time.sleep(2)\n"
    (package(project) / "slow.py").write_text(text)
    monkeypatch.setattr("moorage.cli.doctor.is_for_people", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    result = CliRunner().invoke(make_app(), ["doctor", "--offline"], catch_exceptions=False)
    assert result.exit_code == 1
    lines = [line.rstrip() for line in result.output.splitlines()]
    name = package(project).name
    start = lines.index("A602 error, 2 times")
    assert lines[start + 1 :] == [
        f"       {name}/slow.py:5  time.sleep() in async def handle",
        f"       {name}/slow.py:6  time.sleep() in async def handle",
        "  why  while it runs, no other request of this process is served",
        "  do   use `await asyncio.sleep(…)`",
        "",
        "2 errors",
    ]


@pytest.mark.parametrize("server", ["sqlite", "postgres", "supabase", "mysql"])
def test_nothing_is_found_in_a_clean_project(
    server: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A project that was just set up and migrated has no findings, on every backend.

    On Supabase its tables are protected as its models declare, and the API gives nothing away.
    """
    backend = "postgres" if server == "supabase" else server
    with new_database(backend, servers, tmp_path) as database:
        database["type"] = server
        variables = {f"DB_{name.upper()}": str(value) for name, value in database.items()}
        enter(tmp_path / "shop", monkeypatch, server, **variables)
        if server == "supabase":
            asyncio.run(make_roles())
        upgrade()
        result = CliRunner().invoke(make_app(), ["doctor", "--json", "--strict"])
        report: dict[str, Any] = json.loads(result.stdout)
        assert report["findings"] == []
        assert (result.exit_code, report["is_clean"]) == (0, True)
        assert report["facts"]["connector"].startswith(server)
        password = str(database.get("password", ""))
        assert not password or password not in result.output
        if server == "supabase":
            protected_as_declared()


def protected_as_declared() -> None:
    """See that the API is given what the models declare, and that this is looked at at all."""
    commands = (["db", "check"], ["supabase", "lint", "--fail-on", "info"])
    for command in commands:
        done = CliRunner().invoke(make_app(), command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    asyncio.run(open_to_everybody("books"))
    for command in commands:
        done = CliRunner().invoke(make_app(), command, catch_exceptions=False)
        assert (done.exit_code, "books" in done.output) == (1, True), done.output


async def open_to_everybody(table: str) -> None:
    """Switch a table's protection off, as somebody in a dashboard may."""
    async with Database() as database, database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"))


def test_exit_codes_tell_errors_from_warnings(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings exit with 0 unless the run is strict; errors exit with 1."""
    upgrade()

    def doctor(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(make_app(), ["doctor", *arguments])
        return result.exit_code, result.output

    assert doctor()[1].endswith("all is well\n")
    monkeypatch.setenv("DB_ECHO", "true")
    status, output = doctor("--offline")
    assert (status, "S308 warning: DB_ECHO is on" in output) == (0, True)
    assert doctor("--offline", "--strict")[0] == 1
    monkeypatch.setenv("DB_TYPE", "heron")
    status, output = doctor("--offline", "--json")
    assert (status, json.loads(output)["findings"][0]["code"]) == (1, "C401")
