"""Projects as they are found: what is told of them is so, and what worked before works after."""

import subprocess
import sys
import tomllib
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage import ScaffoldError
from moorage.scaffold.discovery import Found, discover
from moorage.scaffold.project import ProjectPlan
from tests.scaffold.projects import LAYOUTS, TOOLS, content, make_plan, run, write
from tests.scaffold.test_existing import make
from tests.scaffold.test_init_command import init

PROJECT = '[project]\nname = "harbour"\nversion = "1.0"\ndependencies = ["fastapi>=0.123"]\n'
APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"
PACKAGE = {"app/__init__.py": "", "app/main.py": APP}
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
DYNAMIC = '[project]\nname = "harbour"\nversion = "1.0"\ndynamic = ["dependencies"]\n'
LISTED = '[tool.setuptools.dynamic]\ndependencies = {file = ["requirements.txt"]}\n'
EVENTS = """
    from fastapi import FastAPI

    started = []
    app = FastAPI()


    @app.on_event("startup")
    async def start():
        started.append("began")


    @app.on_event("shutdown")
    def stop():
        started.append("ended")
    """


def plan_of(folder: Path, files: dict[str, str], **options: Any) -> ProjectPlan:
    """Return the plan for a project with an example, on SQLite."""
    return make_plan(make(folder, files), **{"backend": "sqlite", "example": True, **options})


def added(plan: ProjectPlan, line: str) -> bool:
    """Return whether a note says to write a line."""
    return any(line in note.add for note in plan.notes)


# What is there, and what is to be told of it.
SOURCES: dict[str, tuple[dict[str, str], Callable[[Found], object], object]] = {
    "a namespace": (
        {"src/acme/harbour/__init__.py": "", "src/acme/harbour/main.py": APP},
        lambda found: (found.layout, found.package),
        ("src", "acme.harbour"),
    ),
    "modules in src": (
        {"src/main.py": APP},
        lambda found: (found.layout, found.package),
        ("src", ""),
    ),
    "another alias": (
        {"app/asgi.py": "from fastapi import FastAPI as API\n\nservice: API = API()\n"},
        lambda found: (found.applications[0].name, found.applications[0].target),
        ("service", "service"),
    ),
    "a method": (
        {"app/a.py": "import fastapi\nclass S:\n    def f(self): return fastapi.FastAPI()"},
        lambda found: (found.applications[0].factory, found.applications[0].target),
        ("S.f", ""),
    ),
    "a factory that is called": (
        {"app/main.py": "import fastapi\ndef f():\n    return fastapi.FastAPI()\n\napi = f()\n"},
        lambda found: (found.applications[0].factory, found.applications[0].target),
        ("f", "api"),
    ),
    "a factory with arguments": (
        {"app/main.py": "import fastapi\ndef f(settings):\n    return fastapi.FastAPI()\n"},
        lambda found: found.applications[0].target,
        "",
    ),
    "one in another": (
        {"app/main.py": f"{APP}admin = FastAPI()\napp.mount('/admin', admin)\n"},
        lambda found: [one.is_mounted for one in found.applications],
        [False, True],
    ),
    "Windows variables": (
        {".env": 'export DB_TYPE="sqlite"\r\n  A = \'b\'\r\nMANY="x\r\ny=z"\r\n# c=d\r\n'},
        lambda found: found.env_variables,
        ("DB_TYPE", "A", "MANY"),
    ),
    "Flask's": (
        {"app.py": "from flask_sqlalchemy import SQLAlchemy\n\ndb = SQLAlchemy()\n"},
        lambda found: [(one.name, one.kind) for one in found.database_code],
        [("db", "sessions (blocking)")],
    ),
    "migrations elsewhere": (
        {
            "alembic.ini": "[alembic]\nscript_location = %(here)s/app/migrations\n",
            "app/migrations/env.py": "target_metadata = None\n",
            "app/migrations/versions/a.py": "revision = 'a'\ndown_revision = None\n",
            "app/migrations/versions/b.py": "revision = 'b'\ndown_revision = 'a'\n",
            "app/migrations/versions/c.py": "revision: str = 'c'\ndown_revision: str = 'a'\n",
        },
        lambda found: str(found.alembic),
        "alembic.ini, app/migrations/, 2 heads: b, c",
    ),
    "split requirements": (
        {"requirements/base.txt": "fastapi\n", "requirements/dev.txt": "-r base.txt\n"},
        lambda found: (found.dependencies.path, found.dependencies.development),
        ("requirements/base.txt", "requirements/dev.txt"),
    ),
    "setup.cfg": (
        {"setup.cfg": "[options]\ninstall_requires =\n    fastapi\n"},
        lambda found: (found.dependencies.path, found.dependencies.is_edited, found.uses_fastapi),
        ("setup.cfg", False, True),
    ),
    "computed elsewhere": (
        {"pyproject.toml": DYNAMIC},
        lambda found: (found.dependencies.path, found.dependencies.is_edited),
        ("pyproject.toml", False),
    ),
    "computed from a file": (
        {"pyproject.toml": DYNAMIC + LISTED, "requirements.txt": "fastapi\n"},
        lambda found: found.dependencies.path,
        "requirements.txt",
    ),
    "with hashes": (
        {"requirements.txt": "fastapi==0.123 \\\n    --hash=sha256:ab\n"},
        lambda found: found.dependencies.is_edited,
        False,
    ),
}


@pytest.mark.parametrize("shape", SOURCES)
def test_what_is_there_is_found(shape: str, tmp_path: Path) -> None:
    """Less usual shapes of projects are told for what they are, and can be set up."""
    files, look, expected = SOURCES[shape]
    assert look(discover(make(tmp_path, files))) == expected
    write(tmp_path, backend="sqlite", example=True)
    assert not make_plan(tmp_path).changes


INSTALLED: dict[str, dict[str, str]] = {
    "package": {"pyproject.toml": PROJECT, **PACKAGE},
    "package-setuptools": {
        "pyproject.toml": DYNAMIC + LISTED + SETUPTOOLS,
        "requirements.txt": "fastapi\n",
        **PACKAGE,
    },
    "flat": {"pyproject.toml": PROJECT, "main.py": APP},
}


GUESS = """
import os
import setuptools

for folder in sorted(os.listdir()):
    os.chdir(folder)
    distribution = setuptools.Distribution()
    distribution.parse_config_files()
    distribution.set_defaults()
    print(distribution.packages, distribution.py_modules)
    os.chdir("..")
"""


def test_a_project_can_still_be_installed(tmp_path: Path) -> None:
    """Folders of ours do not keep setuptools from guessing what a project's own packages are."""
    for shape, files in INSTALLED.items():
        make(tmp_path / "before" / shape, files)
        write(make(tmp_path / "after" / shape, files), backend="sqlite", example=True)
    before = run(tmp_path / "before", "-c", GUESS).splitlines()
    assert before == ["[] ['main']", "['app'] None", "['app'] None"]
    after = run(tmp_path / "after", "-c", GUESS).splitlines()
    assert after == ["['db'] ['books', 'main']", *["['app', 'app.db'] None"] * 2]


@pytest.mark.parametrize("tool", TOOLS["tool"])
def test_the_second_run_is_empty_for_every_tool(tool: str, tmp_path: Path) -> None:
    """What a first run wrote for a tool is what the second one finds right, in any layout."""
    for layout in LAYOUTS["layout"]:
        folder = tmp_path / layout
        write(folder, backend="sqlite", tool=tool, layout=layout)
        assert not make_plan(folder).changes, layout


def test_what_is_listed_elsewhere_is_said(tmp_path: Path) -> None:
    """A list that is not ours to edit is kept, with what it lacks, until it has that."""
    plan = plan_of(tmp_path, {"setup.cfg": "[options]\ninstall_requires =\n    fastapi\n"})
    assert plan.kept["setup.cfg"].startswith("add to it by hand: moorage[")
    assert plan.commands[0].startswith("pip install 'moorage[fastapi,migrations,sqlite]")
    assert not {change.path for change in plan.changes} & {"requirements.txt", "pyproject.toml"}
    (tmp_path / "setup.cfg").write_text(plan.kept["setup.cfg"])
    assert not make_plan(tmp_path, backend="sqlite").kept


def test_an_extra_for_development_is_used(tmp_path: Path) -> None:
    """What tests need goes where a project of pip's has it, and is installed from there."""
    extra = '\n[project.optional-dependencies]\ndev = ["pytest>=7"]\n'
    plan = plan_of(tmp_path, {"pyproject.toml": PROJECT + extra, **PACKAGE})
    (after,) = (change.after for change in plan.changes if change.path == "pyproject.toml")
    project = tomllib.loads(after)
    assert "pytest-asyncio>=1" in project["project"]["optional-dependencies"]["dev"]
    assert "dependency-groups" not in project
    assert plan.commands[0] == "pip install --editable '.[dev]'"


def test_poetry_is_asked_in_its_own_words(tmp_path: Path) -> None:
    """Where poetry's table has the dependencies of a `[project]`, they are added there."""
    poetry = f'{DYNAMIC}[tool.poetry.dependencies]\nfastapi = "^0.123"\n'
    plan = plan_of(tmp_path, {"pyproject.toml": poetry, **PACKAGE})
    (after,) = (change.after for change in plan.changes if change.path == "pyproject.toml")
    assert "moorage" in tomllib.loads(after)["tool"]["poetry"]["dependencies"]


def test_an_old_python_is_told(tmp_path: Path) -> None:
    """A project for Pythons that moorage is not for gets a note with the line."""
    text = PROJECT + 'requires-python = ">=3.9"\n'
    (note, *_) = plan_of(tmp_path, {"pyproject.toml": text, **PACKAGE}).notes
    assert (note.path, note.line) == ("pyproject.toml", 5)
    assert note.add == ('requires-python = ">=3.11"',)


def test_functions_of_on_event_go_on(tmp_path: Path) -> None:
    """Beside a lifespan FastAPI calls none of them; the note's code, as it is written, does."""
    folder = make(tmp_path, {"app/__init__.py": "", "app/main.py": EVENTS})
    write(folder, backend="sqlite", example=True)
    made, first, second = make_plan(folder).notes
    assert (first.remove, second.remove) == (
        ('@app.on_event("startup")',),
        ('@app.on_event("shutdown")',),
    )
    main = folder / "app/main.py"
    source = main.read_text()
    for note in (made, first, second):
        source = source.replace("\n".join(note.remove), "\n".join(note.add))
    main.write_text(source)
    program = (
        "import asyncio\nfrom app.main import app, started\n\n\nasync def drive():\n"
        "    async with app.router.lifespan_context(app):\n        pass\n    print(started)\n\n\n"
        "asyncio.run(drive())\n"
    )
    assert run(folder, "-c", program) == "['began', 'ended']\n"


def test_notes_show_whole_statements(tmp_path: Path) -> None:
    """A note has all lines of what it is about, without a secret, and code that can be pasted."""
    url = "postgresql://ann:heron-egret-stork@db.example.org/shop"
    files = {
        "app/__init__.py": "",
        "app/main.py": "import fastapi\n\n\ndef make():\n    return fastapi.FastAPI()\n",
        "app/api.py": (
            "from fastapi import FastAPI as API\n\napi = API(\n    title='x',  # the title\n)\n"
        ),
        "app/store.py": (
            f'from sqlmodel import create_engine\n\nengine = create_engine(\n    "{url}",\n)\n'
        ),
    }
    notes = {note.path: note for note in plan_of(tmp_path, files).notes}
    assert notes["app/main.py"].remove == ("    return fastapi.FastAPI()",)
    made = "    app = fastapi.FastAPI(lifespan=database_lifespan())"
    assert made in notes["app/main.py"].add
    assert notes["app/main.py"].add[-2:] == ("    add_problem_handlers(app)", "    return app")
    assert notes["app/api.py"].remove == ("api = API(", "    title='x',  # the title", ")")
    assert "    lifespan=database_lifespan()," in notes["app/api.py"].add
    assert len(notes["app/store.py"].remove) == 3
    assert "heron-egret-stork" not in str(notes["app/store.py"])


def test_a_part_of_an_application_has_no_lifespan(tmp_path: Path) -> None:
    """The lifespan of what is mounted never runs: its note is about errors alone."""
    files = {**PACKAGE, "app/main.py": f"{APP}part = FastAPI()\napp.mount('/part', part)\n"}
    whole, part = plan_of(tmp_path, files).notes
    assert "app = FastAPI(lifespan=database_lifespan())" in whole.add
    assert part.add[-2:] == ("part = FastAPI()", "add_problem_handlers(part)")


def test_source_says_how_it_is_encoded(tmp_path: Path) -> None:
    """A file that is no UTF-8 and says so is read as what it is."""
    folder = make(tmp_path, PACKAGE)
    text = (
        "# -*- coding: latin-1 -*-\nfrom fastapi import FastAPI\n\napp = FastAPI(title='Grüße')\n"
    )
    (folder / "app/main.py").write_bytes(text.encode("latin-1"))
    (folder / "app/broken.py").write_bytes("x = 'ü'\n".encode("latin-1"))
    plan = make_plan(folder, backend="sqlite")
    assert added(plan, "app = FastAPI(title='Grüße', lifespan=database_lifespan())")


def test_other_encodings_stop_nothing_but_what_they_must(tmp_path: Path) -> None:
    """A mark before a file stays its first; a README of another encoding is left alone."""
    folder = make(tmp_path, {"pyproject.toml": PROJECT, **PACKAGE})
    (folder / ".gitignore").write_bytes(BOM_UTF8 + b"dist\r\n")
    (folder / "README.md").write_bytes("# Grüße\n".encode("latin-1"))
    plan = write(folder, backend="sqlite")
    assert (folder / ".gitignore").read_bytes().startswith(BOM_UTF8 + b".env\r\ndist\r\n")
    assert plan.kept["README.md"] == "no section is added to what is no UTF-8 text"


def test_an_environment_may_be_called_env(tmp_path: Path) -> None:
    """A folder `.env`, as some call a virtual environment, is no file of variables."""
    folder = make(tmp_path, {**PACKAGE, ".env/pyvenv.cfg": ""})
    plan = write(folder, backend="sqlite")
    assert ".env" not in {change.path for change in plan.changes}


def test_links_are_followed_inside_alone(tmp_path: Path) -> None:
    """A package is where it is, not where a link shows it; what is outside is told at once."""
    folder = make(tmp_path / "in side", {"real/__init__.py": "", "real/main.py": APP})
    (folder / "app").symlink_to("real")
    assert write(folder, backend="sqlite").modules == ("real.db.models",)
    assert not make_plan(folder).changes
    (tmp_path / "outside").mkdir()
    other = make(tmp_path / "other", {"pyproject.toml": PROJECT})
    (other / "app").symlink_to(tmp_path / "outside")
    before = content(other)
    with pytest.raises(ScaffoldError, match="leads out of the project"):
        make_plan(other, backend="sqlite", example=True)
    assert content(other) == before


@pytest.mark.usefixtures("unverified")
def test_alembic_of_theirs_decides_the_next_steps(tmp_path: Path) -> None:
    """Where migrations are theirs, the first step is a revision of ours, and heads are told."""
    _, look, _ = SOURCES["migrations elsewhere"]
    files = {**SOURCES["migrations elsewhere"][0], **PACKAGE}
    plan = plan_of(tmp_path / "ini", files, tool="pip")
    assert plan.commands[1:] == ('moorage db revision -m "first tables"', "moorage db upgrade")
    note = next(note for note in plan.notes if note.path == "app/migrations/env.py")
    assert "alembic merge heads" in note.why
    assert added(plan, "run(DatabaseBase.metadata)")
    section = next(change for change in plan.changes if change.path == "README.md")
    assert "moorage db seed --env dev --models app.db.models:Base" in section.after
    toml = {
        "pyproject.toml": f'{PROJECT}[tool.alembic]\nscript_location = "%(here)s/migrations"\n',
        "migrations/env.py": "target_metadata = None\n",
        **PACKAGE,
    }
    plan = plan_of(tmp_path / "toml", toml)
    assert plan.commands[1] == 'alembic revision --autogenerate -m "first tables"'
    assert "alembic.ini" not in {change.path for change in plan.changes}
    assert look(discover(tmp_path / "toml")) == "pyproject.toml, migrations/"
    assert init(tmp_path / "toml", "sqlite", "--example", "--yes")[0] == 0
    assert not make_plan(tmp_path / "toml").changes


def test_seeds_work_beside_their_alembic(tmp_path: Path) -> None:
    """The command of the README plants the seeds before any note was followed, in src/ as well."""
    folder = make(
        tmp_path,
        {
            "alembic.ini": "[alembic]\nscript_location = alembic\n",
            "alembic/env.py": "target_metadata = None\n",
            "src/harbour/__init__.py": "",
            "requirements.txt": "sqlalchemy\n",
        },
    )
    plan = write(folder, backend="sqlite", example=True)
    section = next(change for change in plan.changes if change.path == "README.md").after
    command = section.partition("Rows to begin with: `moorage ")[2].partition("`")[0]
    program = (
        "import asyncio, sys\nsys.path.append('src')\nfrom harbour.db.models import Base\n"
        "sys.path.remove('src')\nfrom moorage import Database\nfrom moorage.cli import main\n\n\n"
        "async def make():\n    async with Database() as d, d.engine.begin() as c:\n"
        "        await c.run_sync(Base.metadata.create_all)\n\n\nasyncio.run(make())\nmain()\n"
    )
    assert "1 of 1 seeds run" in run(folder, "-c", program, *command.split())


def test_work_that_is_not_committed_is_kept(tmp_path: Path) -> None:
    """In a repository with changes that are not committed, only lines of ours are added."""
    folder = make(tmp_path, {"pyproject.toml": PROJECT, "README.md": "# Mine\n", **PACKAGE})
    for arguments in (["init", "-q", "."], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    (folder / "README.md").write_text("# Mine\n\nNot committed.\n")
    write(folder, backend="sqlite")
    assert (folder / "README.md").read_text().startswith("# Mine\n\nNot committed.\n\n<!-- moorage")
    numbers = subprocess.run(
        ["git", "diff", "--numstat"], cwd=folder, capture_output=True, text=True, check=True
    )
    removed = {line.split("\t")[2]: line.split("\t")[1] for line in numbers.stdout.splitlines()}
    assert removed == {"README.md": "0", "pyproject.toml": "1"}


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are those of POSIX")
def test_the_mode_of_a_file_stays(tmp_path: Path) -> None:
    """A file that only its owner may read is so afterwards."""
    folder = make(tmp_path, {"requirements.txt": "fastapi\n", **PACKAGE})
    (folder / "requirements.txt").chmod(0o440)
    write(folder, backend="sqlite")
    assert (folder / "requirements.txt").stat().st_mode & 0o777 == 0o440
