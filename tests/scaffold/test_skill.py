"""The skill for coding agents says what the command line can do, and is installed on demand."""

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from moorage.cli import make_app
from moorage.scaffold.discovery import discover
from moorage.scaffold.questions import questions

SKILL = files("moorage.scaffold") / "templates/skill/setup-database/SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")


def invoke(*arguments: str) -> tuple[int, str]:
    """Run the command line; return the exit code and what was printed."""
    result = CliRunner().invoke(make_app(), arguments)
    return result.exit_code, result.output


def test_the_head_is_in_the_common_format() -> None:
    """A name that is the folder's, and a description that says when to use it."""
    head = re.match(r"---\nname: ([a-z-]+)\ndescription: (.+)\n---\n", TEXT)
    assert head is not None
    assert head[1] == "setup-database"
    assert len(head[2]) <= 1024
    assert "Use it when" in head[2]


def test_every_command_is_one() -> None:
    """Each command of the skill exists, with each of its options."""
    root: Any = typer.main.get_command(make_app())
    lines = re.findall(r"^moorage .+$", TEXT, re.MULTILINE)
    lines += re.findall(r"`(moorage [^`]+)`", TEXT)
    assert len(lines) >= 4
    seen = set()
    for line in lines:
        command = root
        words = shlex.split(line)[1:]
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        used = {word for word in words if word.startswith("-")}
        assert used <= known, line
        seen |= used
    init = root.commands["init"]
    known = {name for parameter in init.params for name in parameter.opts}
    for option in re.findall(r"`(--[a-z-]+)", TEXT):
        assert option in known
    assert {"--questions", "--answers", "--dry-run", "--yes", "--json"} <= seen


def test_the_questions_are_those_of_the_command(tmp_path: Path) -> None:
    """The skill lists the questions of `moorage init`, in their order, and knows their kinds."""
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", TEXT, re.MULTILINE)
    listed = dict(rows[1:])
    asked = {one.name: one for one in questions(discover(tmp_path))}
    assert list(listed) == list(asked)
    for name, answer in listed.items():
        assert (answer == "true or false") is (asked[name].kind == "yes or no")
        assert (answer == "a number") is (asked[name].kind == "number")
    for key in ("found", "is_asked", "recommended", "options", "text"):
        assert f"`{key}`" in TEXT


def test_it_is_installed_once(tmp_path: Path) -> None:
    """It goes where the project has its skills; one that was changed is kept unless forced."""
    options = ["skill", "install", "--project", str(tmp_path)]
    path = tmp_path / ".agents/skills/setup-database/SKILL.md"
    assert invoke(*options) == (0, "wrote .agents/skills/setup-database/SKILL.md\n")
    assert path.read_text() == TEXT
    assert invoke(*options)[1].startswith("is there already")
    path.write_text("mine")
    code, output = invoke(*options)
    assert (code, "--force" in output, path.read_text()) == (1, True, "mine")
    assert invoke(*options, "--force")[0] == 0
    assert path.read_text() == TEXT


@pytest.mark.parametrize("folder", [".claude/skills", "skills"])
def test_it_goes_where_skills_are(folder: str, tmp_path: Path) -> None:
    """A folder of skills that is there, or that was named, is used."""
    arguments = ["skill", "install", "--project", str(tmp_path)]
    if folder.startswith("."):
        (tmp_path / folder).mkdir(parents=True)
    else:
        arguments += ["--into", folder]
    assert invoke(*arguments)[0] == 0
    assert (tmp_path / folder / "setup-database/SKILL.md").is_file()


@pytest.mark.usefixtures("unverified")
def test_init_does_not_install_it(tmp_path: Path) -> None:
    """Nobody gets the skill who did not ask for it."""
    assert invoke("init", "sqlite", "--yes", "--tool", "pip", "--project", str(tmp_path))[0] == 0
    assert not list(tmp_path.rglob("SKILL.md"))
