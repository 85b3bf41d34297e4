"""A project that owns its layer: nothing of moorage is left in it, and all of its names are."""

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import moorage
import moorage_fastapi
from moorage import InstalledConnector, ScaffoldError
from moorage.doctor import examine
from moorage.scaffold.imports import arrange_imports
from moorage.scaffold.standalone import place_of
from tests.fix_backend import Servers, new_database
from tests.scaffold.projects import BACKENDS, make_plan, run, write
from tests.scaffold.test_existing import ALEMBIC, LIFESPAN, make
from tests.scaffold.test_init_command import init
from tests.servers.server import Address

LAYER = (
    "configuration/settings.py",
    "configuration/types.py",
    "core/connector.py",
    "core/engine.py",
    "core/factory.py",
    "session/__init__.py",
    "session/dependencies.py",
    "session/unit_of_work.py",
)


@pytest.mark.parametrize("backend", BACKENDS["backend"])
def test_nothing_of_moorage_is_left(backend: str, tmp_path: Path) -> None:
    """No source, dependency or command of the project names moorage; the layer has its parts."""
    plan = write(tmp_path / "shop", backend=backend, tool="uv", auth=True, standalone=True)
    written = {change.path: change.after for change in plan.changes}
    assert {f"app/db/{name}" for name in LAYER} <= written.keys()
    assert f"app/db/connectors/{backend}.py" in written
    for path, source in written.items():
        if path.endswith((".py", ".mako", ".toml", ".yaml")):
            assert "moorage" not in source, path
    assert not [one for one in (*plan.requirements, *plan.development) if "moorage" in one]
    assert plan.commands[1] == "uv run alembic upgrade head"


def names(source: str) -> set[str]:
    """Return the public names that a module defines or imports."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target) for target in node.targets}
    return found


def test_the_names_are_those_of_moorage(tmp_path: Path) -> None:
    """What the layer hands out is called as in moorage, and is where imports look for it."""
    plan = write(tmp_path, backend="postgres", tool="uv", standalone=True)
    modules = {
        change.path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): change.after
        for change in plan.changes
        if change.path.startswith("app/db/") and change.path.endswith(".py")
    }
    exported = ast.literal_eval(modules["app.db.core"].partition("__all__ = ")[2])
    assert set(exported) <= set(moorage.__all__)
    for name in [*exported, "DatabaseSettings", "DatabaseType", "SSLMode", "UnitOfWork"]:
        assert name in names(modules[place_of("moorage", name, "app.db")]), name
    shared = {"DBSession", "DBReadSession", "DBUnitOfWork", "get_db_session", "get_unit_of_work"}
    for name in [*shared, "lifespan", "health_router", "add_problem_handlers"]:
        assert name in moorage_fastapi.__all__
        assert name in names(modules[place_of("moorage_fastapi", name, "app.db")]), name


def test_notes_lead_to_the_layer(tmp_path: Path) -> None:
    """What is to be changed by hand imports from the project's own layer."""
    folder = make(tmp_path / "lifespan", LIFESPAN)
    (note,) = make_plan(folder, backend="sqlite", example=True, standalone=True).notes
    line = "from app.db.web import add_problem_handlers, lifespan as database_lifespan"
    assert line in note.add
    folder = make(tmp_path / "alembic", ALEMBIC)
    notes = make_plan(folder, backend="sqlite", example=True, standalone=True).notes
    assert "from app.db.migrations import run" in [line for note in notes for line in note.add]
    assert not [line for note in notes for line in note.add if "moorage" in line]


def test_a_project_is_one_or_the_other(tmp_path: Path) -> None:
    """A later run does not put a layer beside moorage, nor the other way round."""
    write(tmp_path / "with", backend="sqlite", tool="uv")
    write(tmp_path / "without", backend="sqlite", tool="uv", standalone=True)
    with pytest.raises(ScaffoldError, match="without a layer of its own"):
        make_plan(tmp_path / "with", standalone=True)
    with pytest.raises(ScaffoldError, match="with a layer of its own"):
        make_plan(tmp_path / "without", standalone=False)
    assert not make_plan(tmp_path / "without").changes


def test_doctor_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with a layer of its own that was set up and migrated has no findings."""
    for name in ("DB_TYPE", "DB_NAME", "DB_URL", "DATABASE_URL", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    options = ["--standalone", "--upgrade", "--no-fastapi", "--tool", "uv"]
    code, output = init(tmp_path, "sqlite", "--yes", *options)
    assert code == 0, output
    assert "migrations are applied: yes" in output
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q", "."], check=True)
    report = asyncio.run(examine())
    assert report.findings == []


def test_a_stranger_has_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a connector of somebody else's there is no layer to write."""
    backends = "moorage.scaffold.backends"
    heron = [InstalledConnector("heron", "moorage-heron", "1.0", "moorage_heron:Heron")]
    monkeypatch.setattr(f"{backends}.installed_connectors", lambda: heron)
    assert make_plan(tmp_path, backend="heron", tool="uv").changes
    with pytest.raises(ScaffoldError, match="no source of a layer for heron"):
        make_plan(tmp_path, backend="heron", tool="uv", standalone=True)


UNSORTED = '''"""A module."""

from shop.b import x
import sys
from zlib import crc32, adler32, DEF_BUF_SIZE
from thirdparty import Name as Other  # type: ignore[import-untyped]
from alembic import op
from alembic.config import Config
from thirdparty import value, Kind
import abc as letters

x(crc32, adler32, DEF_BUF_SIZE, Other, op, Config, value, Kind, letters, sys)
'''


def test_imports_are_in_the_order_of_ruff(tmp_path: Path) -> None:
    """Sections, order and lines of imports are those that ruff asks for."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/b.py").write_text("def x(*args): ...\n")
    (tmp_path / "alembic").mkdir()
    (tmp_path / "alembic/env.py").touch()
    long = f"from shop.b import {', '.join(f'a_rather_long_name_{n}' for n in range(6))}\n"
    for number, text in enumerate(
        (UNSORTED, UNSORTED.replace("import sys\n", f"import sys\n{long}"))
    ):
        (tmp_path / f"m{number}.py").write_text(arrange_imports(text, ["shop"], ["alembic"]))
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "I", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


BEHIND_A_POOLER = """
import asyncio
import os

from sqlalchemy import text

from app.db.connectors import supabase
from app.db.core import Database

LOOK = "SELECT current_setting('statement_timeout'), count(*) FROM pg_prepared_statements"


async def ask(database):
    async with database.unit_of_work() as session:
        await session.execute(text("SELECT 1"))
        return tuple((await session.execute(text(LOOK))).one())


async def main(port):
    supabase._TRANSACTION_MODE_PORT = port
    async with Database() as database:
        return set(await asyncio.gather(*(ask(database) for _ in range(20))))


print(asyncio.run(main(int(os.environ["DB_PORT"]))) == {("30s", 0)})
print(max(prepared for _, prepared in asyncio.run(main(1))) > 0)
"""


def test_supabase_works_behind_its_pooler(
    servers: Servers, poolers: dict[str, Address], tmp_path: Path
) -> None:
    """In transaction mode nothing is prepared, as it is elsewhere, and limits hold."""
    folder, pooler = tmp_path / "shop", poolers["transaction"]
    write(folder, backend="supabase", tool="uv", standalone=True, fastapi=False, example=False)
    with new_database("postgres", servers, tmp_path) as direct:
        database = {**direct, "type": "supabase", "host": pooler.host, "port": pooler.port}
        assert run(folder, "-c", BEHIND_A_POOLER, database=database) == "True\nTrue\n"
