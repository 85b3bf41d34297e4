"""What `import moorage` does: nothing but import, and not much of that."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from moorage._requirements import check_sqlalchemy

# Run in a fresh interpreter: import what moorage stands on, then watch it being imported.
PROGRAM = """
import json, os, sys

import sqlalchemy.ext.asyncio, pydantic_settings
import importlib.metadata

before = set(sys.modules)
asked, events, scans = [], [], []


class Watched(dict):
    def __getitem__(self, key):
        asked.append(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        asked.append(key)
        return super().get(key, default)

    def __contains__(self, key):
        asked.append(key)
        return super().__contains__(key)

    def __iter__(self):
        asked.append("all of them")
        return super().__iter__()

    def items(self):
        asked.append("all of them")
        return super().items()

    def copy(self):
        asked.append("all of them")
        return super().copy()


def listen(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
        events.append([event, str(arguments[0])])
    elif event.partition(".")[0] in {"socket", "subprocess", "sqlite3"} or event == "os.system":
        events.append([event, repr(arguments)])


def refuse(*arguments, **keywords):
    scans.append(repr(keywords))
    return ()


def start():
    os.environ = Watched(os.environ)
    importlib.metadata.entry_points = refuse
    importlib.metadata.distributions = refuse
    sys.addaudithook(listen)


start()
STATEMENT
modules = sorted(set(sys.modules) - before)
print(json.dumps({"modules": modules, "asked": asked, "events": events, "scans": scans}))
"""


def observe(statement: str) -> dict[str, Any]:
    """Run a statement in a fresh interpreter with a hostile environment; return what it did."""
    poison = {
        "DB_TYPE": "nobody",
        "DB_PORT": "tcp://10.0.0.1:1",
        "DB_URL": "://",
        "DB_POOLSIZE": "-1",
        "DATABASE_URL": "://",
    }
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROGRAM.replace("STATEMENT", statement)],
        env={**os.environ, **poison},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Return what `import moorage` did."""
    return observe("import moorage")


def test_import_brings_only_its_own_modules(seen: dict[str, Any]) -> None:
    """Beyond SQLAlchemy and pydantic-settings, `import moorage` imports itself and no other."""
    tops = {module.partition(".")[0] for module in seen["modules"]}
    assert tops - sys.stdlib_module_names == {"moorage"}


def test_import_brings_a_known_list_of_modules(seen: dict[str, Any]) -> None:
    """What is imported of moorage itself is this list, so that nothing joins it unnoticed."""
    own = {module for module in seen["modules"] if module.partition(".")[0] == "moorage"}
    assert own == {
        "moorage",
        "moorage._requirements",
        "moorage.abilities",
        "moorage.address",
        "moorage.answers",
        "moorage.bulk",
        "moorage.by_key",
        "moorage.commit",
        "moorage.connector",
        "moorage.diagnosis",
        "moorage.database",
        "moorage.deadline",
        "moorage.default",
        "moorage.engine",
        "moorage.environment",
        "moorage.errors",
        "moorage.hooks",
        "moorage.json_codec",
        "moorage.notes",
        "moorage.identity",
        "moorage.binding",
        "moorage.pool",
        "moorage.pool.connecting",
        "moorage.pool.holders",
        "moorage.pool.liveness",
        "moorage.pool.loop_pool",
        "moorage.pool.place",
        "moorage.pool.transport",
        "moorage.reading",
        "moorage.registry",
        "moorage.retry",
        "moorage.rows",
        "moorage.server_facts",
        "moorage.session",
        "moorage.settings",
        "moorage.shield",
        "moorage.statements",
        "moorage.tls",
        "moorage.unit_of_work",
    }


def test_import_reads_no_environment(seen: dict[str, Any]) -> None:
    """No variable is looked at, but pydantic's own, and wrong ones do no harm."""
    assert set(seen["asked"]) <= {"PYDANTIC_DISABLE_PLUGINS"}


def test_import_opens_nothing(seen: dict[str, Any]) -> None:
    """No file but source code is opened, no socket, no process, no database."""
    assert seen["events"] == []


def test_import_scans_nothing(seen: dict[str, Any]) -> None:
    """The metadata of installed distributions is left alone."""
    assert seen["scans"] == []


def test_the_watch_sees() -> None:
    """Negative control: what the tests above deny is noticed where it happens."""
    seen = observe(
        "import socket, importlib.metadata as m, moorage; socket.socket().close();"
        " os.environ.get('DB_TYPE'); m.entry_points(group='x'); open(os.devnull).close();"
        " import zipapp"
    )
    assert "zipapp" in seen["modules"]
    assert "DB_TYPE" in seen["asked"]
    assert [event for event, _ in seen["events"]] == ["socket.__new__", "open"]
    assert seen["scans"] == ["{'group': 'x'}"]


def test_listing_connectors_imports_no_driver() -> None:
    """Also the first scan imports neither a connector nor a driver."""
    seen = observe("import moorage; moorage.installed_connectors()")
    tops = {module.partition(".")[0] for module in seen["modules"]}
    assert tops - sys.stdlib_module_names == {"moorage"}
    assert seen["scans"] == ["{'group': 'moorage.connectors'}"]


@pytest.mark.parametrize(
    "version",
    ["1.3.24", "1.4.54", "2.0.0", "2.0.57", "2.1.0", "2.1.0b1", "2.1.8"],
)
def test_unfit_sqlalchemy_is_refused(version: str) -> None:
    """A SQLAlchemy without the fixes that moorage stands on is refused by its version."""
    with pytest.raises(ImportError) as caught:
        check_sqlalchemy(version)
    assert str(caught.value) == (
        f"moorage needs SQLAlchemy >=2.0.58 or >=2.1.9, and {version} is installed; run:"
        " pip install -U 'sqlalchemy[asyncio]'"
    )


@pytest.mark.parametrize(
    "version", ["2.0.58", "2.0.100", "2.1.9", "2.1.9.post1", "2.1.10", "2.2.0b1", "dev"]
)
def test_fit_sqlalchemy_is_accepted(version: str) -> None:
    """Versions with the fixes, newer lines and development builds are accepted."""
    check_sqlalchemy(version)


def test_installed_sqlalchemy_is_checked_first() -> None:
    """`import moorage` fails at once, before anything else of it, where SQLAlchemy is too old."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlalchemy; sqlalchemy.__version__ = '2.0.57'; import moorage",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ImportError: moorage needs SQLAlchemy" in done.stderr
    assert "errors.py" not in done.stderr


def test_migrations_name_their_extra() -> None:
    """Without Alembic, the import of `moorage.migrations` says what to install."""
    program = (
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'alembic' else f(name, *a)\n"
        "import moorage.migrations"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'moorage[migrations]'" in done.stderr
