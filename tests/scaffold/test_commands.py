"""What holds for every command of the command line, those that are added later included."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from moorage.cli import make_app
from tests.scaffold.projects import content

PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
# Commands that print no data. There are none, and a new one needs a reason.
WITHOUT_JSON: dict[str, str] = {}
# Of each shape that keys have, and found nowhere else.
SECRETS = {
    "DB_PASSWORD": "kestrel-osprey-merlin",
    "SUPABASE_KEY": "sb_secret_Kestrel0Osprey1Merlin2",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJrZXN0cmVsIn0.b3NwcmV5bWVybGlu",
    "AWS_ACCESS_KEY_ID": "AKIAKESTRELOSPREY123",
    "OTHER_URL": "postgresql://ann:goshawk-hobby@db.example.org/shop",
}
KEY_SHAPES = re.compile(
    r"sb_secret_\w{8}|\beyJ[\w-]{8,}\.[\w-]{8,}\.|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{20}|\bsk_live_\w{8}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|\w://[^\s:/@<{]+:[^\s:/@<{$]+@"
)
_numbers = itertools.count()


REVISION = {"revision", "down_revisions", "message", "path", "is_head"}


def leaves(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, by the words that call it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, *words, name)
    else:
        yield " ".join(words), command


COMMANDS: dict[str, Any] = dict(leaves(typer.main.get_command(make_app())))
DOCUMENTED = {
    name: re.findall(r"`(\w+)`", printed.partition(";")[0])
    for name, printed in re.findall(
        r"^\| \[?`([a-z ]+)`(?:\]\S+)? \| ([^|]*) \|", PAGE, re.MULTILINE
    )
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the working directory, with no settings from outside."""
    for name in list(os.environ):
        if name.startswith(("DB_", "WEB_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def leaked(text: str) -> list[str]:
    """Return what looks like a key in a text, and each planted secret."""
    return [*KEY_SHAPES.findall(text), *(value for value in SECRETS.values() if value in text)]


def moorage(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return the exit code, what it printed, and what it told on the way."""
    result = CliRunner().invoke(make_app(), arguments, catch_exceptions=False)
    assert leaked(result.output) == [], (arguments, result.output)
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def plan_of(package: str) -> list[tuple[str, str, int]]:
    """Return commands with arguments and exit codes, in an order in which each of them works."""
    return [
        ("init", f"sqlite --yes --tool pip --no-fastapi --package {package}", 0),
        ("skill install", "", 0),
        ("connectors", "", 0),
        ("connector new", "heron --into ../moorage-heron", 0),
        ("db upgrade", "", 0),
        ("db current", "", 0),
        ("db heads", "", 0),
        ("db history", "", 0),
        ("db check", "", 0),
        ("db sql", "", 0),
        ("db lint", "", 1),  # there is nothing that it knows of this backend
        ("db seed", "--env dev", 0),
        ("supabase lint", "", 1),  # it is none of its databases
        ("doctor", "", 0),
        ("db revision", "-m more --empty", 0),
        ("db stamp", "head", 0),
        ("db downgrade", "base", 0),
        ("db current", "", 1),
        ("doctor", "", 1),
        ("supabase lint", "", 1),  # this is another database
        ("db init", "", 0),
    ]


def test_every_command_has_json() -> None:
    """A script can ask every command for JSON."""
    without = {
        name
        for name, command in COMMANDS.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT_JSON.keys()


def test_every_command_is_documented() -> None:
    """The page on the command line has a row for each command."""
    assert DOCUMENTED.keys() == COMMANDS.keys()


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
def test_every_command_answers_without_a_secret(
    as_json: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No command prints or writes a secret; with `--json` each prints one document, as documented.

    The secrets stand where projects have them, and in the environment.
    """
    lines = "".join(f"{name}={value}\n" for name, value in SECRETS.items())
    (folder / ".env").write_text(f"DB_TYPE=sqlite\nDB_NAME=app.db\n{lines}")
    (folder / ".gitignore").write_text(".env\n")
    (folder / "README.md").write_text(f"export JWT={SECRETS['JWT']}\n")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (folder / "seeds").mkdir()
    (folder / "seeds/nothing.py").write_text(
        "from moorage.seeding import seed\n\n\n@seed()\nasync def nothing(session): ...\n"
    )
    before = content(folder)
    plan = plan_of(f"shop_of_commands_{next(_numbers)}")
    assert {name for name, *_ in plan} == COMMANDS.keys()
    for name, arguments, expected in plan:
        if name == "db init":
            (folder.parent / "empty").mkdir()
            monkeypatch.chdir(folder.parent / "empty")
        words = [*name.split(), *arguments.split(), *(["--json"] if as_json else [])]
        code, output, told = moorage(*words)
        assert code == expected, (words, output, told)
        if as_json:
            answer = json.loads(output)
            for one in answer if isinstance(answer, list) else [answer]:
                assert set(one) in (set(DOCUMENTED[name]), {"error", "hint"}, REVISION), name
    for path, data in content(folder.parent).items():
        if before.get(path.removeprefix("shop/")) != data and not path.endswith("README.md"):
            assert leaked(data.decode("utf-8", "replace")) == [], path
    assert (folder / "README.md").read_text().count(SECRETS["JWT"]) == 1


FAILURES = [
    "init --yes --answers nowhere.json",
    "skill install --into skills",
    "connector new Heron",
    *(f"db {name}" for name in ("upgrade", "downgrade base", "current", "heads", "history")),
    *(f"db {name}" for name in ("check", "sql", "stamp head", "revision -m more", "init .")),
    *("db lint", "db seed --env dev", "supabase lint"),
]


@pytest.mark.parametrize("command", FAILURES)
def test_what_fails_says_so_to_a_script(command: str, folder: Path) -> None:
    """An error is an object with the next step, on standard output, and the exit code is 1."""
    if command.startswith("skill"):
        (folder / "skills/setup-database").mkdir(parents=True)
        (folder / "skills/setup-database/SKILL.md").write_text("mine")
    if command == "db init .":
        (folder / "alembic.ini").write_text("")
    code, output, _ = moorage(*command.split(), "--json")
    answer = json.loads(output)
    assert (code, set(answer)) == (1, {"error", "hint"})
    assert answer["error"]
    assert answer["hint"]
    code, output, told = moorage(*command.split())
    assert code == 1
    assert told.startswith("error: ")
    assert "Next step: " in told


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_command_is_told_apart(name: str, folder: Path) -> None:
    """An option that does not exist exits with 2, and nothing was done."""
    assert moorage(*name.split(), "--no-such-option")[:2] == (2, "")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "codes"),
    [
        ({"DB_URL": "postgres://ann:kestrel-osprey-merlin@127.0.0.1:1/app"}, {"C402"}),
        ({"DB_URL": "postgres://ann:kestrel-osprey-merlin@@127.0.0.1:1/app"}, {"S301"}),
        ({"DB_PORT": "kestrel-osprey-merlin"}, {"S301"}),
        ({"DB_TYPE": "postgres", "DB_PASSWORD_FILE": "nowhere"}, {"S301"}),
    ],
    ids=["no server", "two at signs", "in another field", "a file"],
)
def test_what_goes_wrong_tells_no_secret(
    variables: dict[str, str], codes: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that fails on its way to the database repeats the password, in words or as JSON."""
    assert moorage("db", "init")[0] == 0
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "DB_URL" not in variables and "DB_PASSWORD_FILE" not in variables:
        monkeypatch.setenv("DB_PASSWORD", SECRETS["DB_PASSWORD"])
    for command in ("upgrade", "current", "check", "revision -m more"):
        assert moorage("db", *command.split())[0] == 1
        assert moorage("db", *command.split(), "--json")[0] == 1
    moorage("doctor")
    found = {item["code"] for item in json.loads(moorage("doctor", "--json")[1])["findings"]}
    assert found >= codes


def test_a_traceback_shows_no_values(folder: Path) -> None:
    """What fails in a project's own code is shown with its lines, and without what they hold."""
    assert moorage("db", "init")[0] == 0
    (folder / "migrations/env.py").write_text(
        "import os\n\n\ndef fail(secret):\n    raise LookupError('no such thing')\n\n\n"
        "fail(os.environ['DB_PASSWORD'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from moorage.cli import main; main()", "db", "upgrade"],
        env={**os.environ, **SECRETS, "DB_TYPE": "sqlite", "FORCE_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no such thing" in done.stderr
    assert leaked(done.stdout + done.stderr) == []


@pytest.mark.parametrize("name", SECRETS)
def test_the_shapes_are_those_of_keys(name: str) -> None:
    """Negative control: each planted secret is noticed, by its shape where it has one."""
    assert leaked(f"x {SECRETS[name]} y")
    assert (KEY_SHAPES.search(SECRETS[name]) is None) is (name == "DB_PASSWORD")
