"""What ``moorage db`` prints, and how it exits."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moorage.cli import make_app

MODELS = """
from moorage.models import Conventions, IntegerKey
from sqlalchemy.orm import DeclarativeBase, Mapped

class Base(Conventions, DeclarativeBase):
    pass

class Boat(IntegerKey, Base):
    __tablename__ = "boats"
    name: Mapped[str]
"""


@pytest.fixture
def folder(tmp_path: Path, fresh_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project, which is the working directory, with a database."""
    for name, value in fresh_database.items():
        monkeypatch.setenv(f"DB_{name.upper()}", str(value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "boats_of_db_commands.py").write_text(MODELS)
    monkeypatch.delitem(sys.modules, "boats_of_db_commands", raising=False)
    return tmp_path


def moorage(*arguments: str) -> tuple[int, str]:
    """Run the command line; return the exit code and what was printed."""
    result = CliRunner().invoke(make_app(), ["db", *arguments], catch_exceptions=False)
    return result.exit_code, result.output.strip()


def test_from_nothing_to_a_table_and_back(folder: Path) -> None:
    """Each command says what it did and what comes next, and its exit code tells a script."""
    code, output = moorage("init", "--models", "boats_of_db_commands:Base")
    assert (code, output.splitlines()[-1]) == (
        0,
        'Next step: moorage db revision -m "first tables"',
    )
    assert moorage("check") == (
        1,
        "table boats: in the models only\nNext step: moorage db revision -m MESSAGE",
    )
    code, output = moorage("revision", "-m", "first tables")
    assert (code, "Next step: read it, then moorage db upgrade" in output) == (0, True)
    (path,) = (folder / "migrations/versions").glob("*.py")
    key = path.name.partition("_")[0]
    assert moorage("current") == (
        1,
        f"at no revision; head is {key}\nNext step: moorage db upgrade",
    )
    assert moorage("check") == (1, f"not applied: {key}\nNext step: moorage db upgrade")
    code, output = moorage("upgrade")
    assert (code, output.splitlines()) == (
        0,
        [f"applied {key} first tables", "1 revision applied"],
    )
    assert moorage("upgrade", "--json") == (0, '{\n  "applied": []\n}')
    assert moorage("upgrade") == (0, "nothing to do")
    assert moorage("current") == (0, f"at {key}, which is head")
    assert moorage("check") == (0, "models and database agree")
    code, output = moorage("check", "--json")
    assert (code, json.loads(output)["is_clean"]) == (0, True)
    code, output = moorage("history")
    assert (code, f"{key} (head)" in output, "first tables" in output) == (0, True, True)
    code, output = moorage("heads", "--json")
    assert (code, json.loads(output)[0]["revision"]) == (0, key)
    code, output = moorage("sql")
    assert (code, "CREATE TABLE boats" in output) == (0, True)
    assert moorage("downgrade", "base")[0] == 0
    assert moorage("stamp", "head") == (0, f"stamped {key} first tables")
    assert moorage("current")[0] == 0


def test_several_databases(
    folder: Path, fresh_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each section of Alembic's settings is a database, with a prefix and a folder of its own."""
    if fresh_database["type"] == "sqlite":
        monkeypatch.setenv("ANALYTICS_DB_NAME", str(folder / "analytics.db"))
        monkeypatch.setenv("ANALYTICS_DB_TYPE", "sqlite")
    else:  # the same server; where the first database is said to be, nothing answers
        for name, value in fresh_database.items():
            monkeypatch.setenv(f"ANALYTICS_DB_{name.upper()}", str(value))
        monkeypatch.setenv("DB_PORT", "1")
    moorage("init", "--models", "boats_of_db_commands:Base")
    ini = folder / "alembic.ini"
    ini.write_text(
        f"{ini.read_text()}\n[analytics]\nscript_location = %(here)s/migrations\n"
        "path_separator = os\nprepend_sys_path = %(here)s\nsettings_prefix = ANALYTICS_DB_\n"
    )
    assert moorage("revision", "--autogenerate", "-m", "first tables", "-d", "analytics")[0] == 0
    assert moorage("upgrade", "--database", "analytics")[1].endswith("1 revision applied")
    assert moorage("check", "-d", "analytics") == (0, "models and database agree")
    assert moorage("current")[0] == 1  # the other one is where it was, or out of reach
    code, output = moorage("upgrade", "--database", "archive")
    assert (code, "has no section [archive]" in output) == (1, True)
    assert "it has alembic, analytics" in output


def test_errors_are_told_with_the_next_step(folder: Path) -> None:
    """What goes wrong is one message with what to do, and no traceback."""
    code, output = moorage("upgrade")
    assert code == 1
    assert output.startswith("error: there is no file alembic.ini")
    assert "Next step: " in output
    assert moorage("no-such-command")[0] == 2
