"""Projects that are there already: found out, and not changed but where it was shown."""

import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from moorage import ScaffoldError
from moorage.scaffold.discovery import discover
from tests.scaffold.projects import content, make_plan, run, write
from tests.scaffold.test_init_command import init

FACTORY = {
    "pyproject.toml": """
        [project]
        name = "harbour"
        version = "1.0"
        dependencies = ["fastapi>=0.123"]  # ours
        [tool.uv]
        package = false
        """,
    "src/harbour/__init__.py": "",
    "src/harbour/application.py": """
        from fastapi import FastAPI


        def create_app() -> FastAPI:
            app = FastAPI(title="Harbour")
            return app
        """,
}
LIFESPAN = {
    "requirements.txt": "fastapi\nuvicorn[standard]==0.54.0\n",
    "app/__init__.py": "",
    "app/main.py": """
        from contextlib import asynccontextmanager

        from fastapi import FastAPI


        @asynccontextmanager
        async def lifespan(app: FastAPI):
            yield {"started": True}


        app = FastAPI(
            title="Harbour",
            lifespan=lifespan,
        )
        """,
    ".gitignore": "dist\n",
}
ROUTERS = {
    "pyproject.toml": """
        [tool.poetry]
        name = "harbour"
        version = "1.0"
        description = ""
        [tool.poetry.dependencies]
        python = "^3.11"
        fastapi = "*"
        moorage = ">=0.1.0"
        """,
    "harbour/__init__.py": "",
    "harbour/main.py": """
        import fastapi
        from harbour.routers import boats

        api = fastapi.FastAPI()
        api.include_router(boats.router)
        """,
    "harbour/routers/__init__.py": "",
    "harbour/routers/boats.py": "from fastapi import APIRouter\n\nrouter = APIRouter()\n",
    "harbour/db.py": "BOATS = {}\n",
    "README.md": "# Harbour\n",
}
SYNC_CODE = {
    "requirements.txt": "flask\nsqlalchemy\n",
    "database.py": """
        from sqlalchemy import create_engine
        from sqlalchemy.orm import DeclarativeBase, sessionmaker

        engine = create_engine("sqlite:///old.db")
        SessionLocal = sessionmaker(engine)


        class Base(DeclarativeBase):
            pass
        """,
    "main.py": "from database import SessionLocal\n",
    "docker-compose.yml": "services: {}\n",
}
ALEMBIC = {
    "pyproject.toml": """
        [project]
        name = "harbour"
        version = "1.0"
        dependencies = []
        [dependency-groups]
        dev = ["pytest"]
        [tool.pdm]
        [tool.pytest.ini_options]
        addopts = "-ra"
        """,
    "app/__init__.py": "",
    "app/models.py": """
        from sqlalchemy.orm import declarative_base

        Base = declarative_base()
        """,
    "alembic.ini": "[alembic]\nscript_location = alembic\n",
    "alembic/env.py": "from app.models import Base\n\ntarget_metadata = Base.metadata\n",
    "alembic/versions/1_first.py": "revision = '1'\ndown_revision = None\n",
    "tests/test_app.py": "def test_nothing():\n    pass\n",
}
MEMBER = {
    "pyproject.toml": """
        [project]
        name = "api"
        version = "1.0"
        dependencies = ["fastapi"]
        [tool.hatch.envs.default]
        """,
    "api/__init__.py": "",
    "api/app.py": "from fastapi import FastAPI\n\napp = FastAPI()\n",
}
MONOREPO = {
    "README.md": "# Everything\n",
    **{f"services/api/{path}": text for path, text in MEMBER.items()},
    "services/worker/pyproject.toml": '[project]\nname = "worker"\nversion = "1.0"\n',
}
SHAPES = {
    "app factory": FACTORY,
    "lifespan": LIFESPAN,
    "routers": ROUTERS,
    "sync code": SYNC_CODE,
    "alembic": ALEMBIC,
    "member": MEMBER,
}


def make(folder: Path, files: dict[str, str]) -> Path:
    """Write a project that somebody might have."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))
    return folder


@pytest.mark.parametrize("standalone", [False, True], ids=["moorage", "standalone"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_theirs_is_changed_but_what_was_shown(
    shape: str, standalone: bool, tmp_path: Path
) -> None:
    """What differs afterwards are the files of the plan; code is never one of them."""
    folder = make(tmp_path / "harbour", SHAPES[shape])
    before = content(folder)
    answers = {"backend": "sqlite", "example": True, "auth": True, "standalone": standalone}
    plan = make_plan(folder, **answers)
    assert content(folder) == before
    shown = {change.path: change for change in plan.changes}
    write(folder, **answers)
    after = content(folder)
    assert {path for path in after if after[path] != before.get(path)} == shown.keys()
    for path in before.keys() & shown.keys():
        assert path in {"pyproject.toml", "requirements.txt", ".gitignore", "README.md"}
        lines = after[path].decode().splitlines()
        gone = [line for line in before[path].decode().splitlines() if line not in lines]
        assert all(_is_mended(path, line, lines) for line in gone), gone
    assert not make_plan(folder).changes


def _is_mended(path: str, line: str, after: list[str]) -> bool:
    """Return whether a line is a dependency, or a list of them, that was extended."""
    if path == "requirements.txt":
        return f"{line}[asyncio]" in after
    is_list = "dependencies = [" in line or "dev = [" in line or "moorage" in line
    return path == "pyproject.toml" and is_list


def test_an_app_factory_gets_a_note(tmp_path: Path) -> None:
    """The line with the application is shown as it is and as it should be."""
    folder = make(tmp_path, FACTORY)
    found = discover(folder)
    assert (found.layout, found.package, found.dependencies.tool) == ("src", "harbour", "uv")
    (application,) = found.applications
    assert (application.name, application.factory) == ("app", "create_app")
    plan = make_plan(folder, backend="postgres", example=True)
    (note,) = plan.notes
    assert (note.path, note.line) == ("src/harbour/application.py", 5)
    assert note.remove == ('    app = FastAPI(title="Harbour")',)
    assert '    app = FastAPI(title="Harbour", lifespan=database_lifespan())' in note.add
    assert "from harbour.books import router" in note.add
    assert plan.commands == (
        "uv sync",
        "uv run moorage db upgrade",
        "uv run uvicorn --app-dir src harbour.application:create_app --factory --reload",
    )
    file = next(change for change in plan.changes if change.path == "pyproject.toml")
    project = tomllib.loads(file.after)["project"]
    assert project["dependencies"][0] == "fastapi>=0.123"
    assert project["dependencies"][1].startswith("moorage[fastapi,migrations,postgres]")
    assert "# ours" in file.after


def test_a_lifespan_of_theirs_is_kept(tmp_path: Path) -> None:
    """A lifespan that is there runs inside of ours, and the note's code works as it is written."""
    folder = make(tmp_path, LIFESPAN)
    write(folder, backend="sqlite", example=True)
    (note,) = make_plan(folder).notes
    assert "    lifespan=database_lifespan(inner=lifespan)," in note.add
    imports = [line for line in note.add if line.startswith("from ")]
    after = [line for line in note.add if line.startswith(("app.", "add_problem"))]
    call = [line for line in note.add if line not in {*imports, *after}]
    main = folder / "app/main.py"
    source = main.read_text().replace("\n".join(note.remove), "\n".join(call))
    main.write_text("\n".join([*imports, source, *after, ""]))
    (folder / "app/__init__.py").touch()
    program = """
        import asyncio
        from app.main import app
        from moorage import get_database

        async def drive():
            async with app.router.lifespan_context(app) as state:
                print(state["started"], get_database().state)

        asyncio.run(drive())
        """
    assert run(folder, "-c", dedent(program)) == "True started\n"
    assert (folder / ".gitignore").read_text().splitlines()[:2] == [".env", "dist"]
    assert "uvicorn[standard]==0.54.0" in (folder / "requirements.txt").read_text()


def test_names_that_are_taken_are_avoided(tmp_path: Path) -> None:
    """A module `db` of theirs is left alone; ours is called `database`; poetry gets the extras."""
    folder = make(tmp_path, ROUTERS)
    plan = write(folder, backend="mysql", example=True, auth=True)
    assert plan.modules == ("harbour.database.models",)
    assert (folder / "harbour/db.py").read_text() == "BOATS = {}\n"
    poetry = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["poetry"]
    ours = poetry["dependencies"]["moorage"]
    assert (ours["version"], set(ours["extras"])) == (">=0.1.0", {"fastapi", "migrations", "mysql"})
    assert "pytest" in poetry["group"]["dev"]["dependencies"]
    assert "<!-- moorage -->" in (folder / "README.md").read_text()


def test_database_code_of_theirs_gets_notes(tmp_path: Path) -> None:
    """Engine, sessions and base are each named with their line, and with what to write there."""
    folder = make(tmp_path, SYNC_CODE)
    plan = write(folder, backend="sqlite", fastapi=False)
    assert plan.answers.layout == "flat"
    lines = {(note.path, note.line) for note in plan.notes}
    assert lines == {("database.py", 4), ("database.py", 5), ("database.py", 8)}
    text = (folder / "db/MIGRATION.md").read_text()
    assert '- engine = create_engine("sqlite:///old.db")' in text
    assert "+ from moorage import get_engine" in text
    assert "+ class Base(Conventions, DeclarativeBase):" in text


def test_alembic_of_theirs_stays(tmp_path: Path) -> None:
    """Their alembic.ini, env.py and revisions stay; the note says what env.py should do."""
    folder = make(tmp_path, ALEMBIC)
    plan = write(folder, backend="sqlite", example=True)
    assert not [one for one in plan.changes if one.path.startswith("alembic")]
    note = next(note for note in plan.notes if note.path == "alembic/env.py")
    assert note.line == 3
    assert "run([DatabaseBase.metadata, Base.metadata])" in note.add
    assert not (folder / "pytest.ini").exists()
    tests = ["-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", "tests/database"]
    assert "passed" in run(folder, *tests, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


@pytest.mark.usefixtures("unverified")
def test_a_monorepo_asks_for_one_of_its_projects(tmp_path: Path) -> None:
    """In a folder of several projects nothing is written; in one of them all works as usual."""
    folder = make(tmp_path, MONOREPO)
    before = content(folder)
    code, output = init(folder, "sqlite", "--yes")
    assert code == 1
    assert "services/api, services/worker" in output
    assert "moorage init --project services/api" in output
    assert content(folder) == before
    assert init(folder / "services/api", "sqlite", "--yes")[0] == 0
    for path, data in content(folder).items():
        assert path.startswith("services/api/") or before[path] == data


def test_files_in_the_way_are_named(tmp_path: Path) -> None:
    """A file of theirs where ours would go stops everything, with the ways out."""
    folder = make(tmp_path, {**MEMBER, "api/books.py": "BOOKS = []\n"})
    with pytest.raises(ScaffoldError, match=r"api/books\.py: there is such a file") as caught:
        make_plan(folder, backend="sqlite", example=True)
    assert "--force-file api/books.py" in caught.value.hint
    assert make_plan(folder, ["api/books.py"], backend="sqlite", example=True).changes


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    """A file with CRLF keeps it, in the lines that were added as well."""
    (tmp_path / "requirements.txt").write_bytes(b"fastapi\r\n")
    write(tmp_path, backend="sqlite")
    data = (tmp_path / "requirements.txt").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") > 1
