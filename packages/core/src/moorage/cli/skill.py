"""``moorage skill install``: copy the skill for coding agents into a project, when asked to."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.cli.answering import answer
from moorage.errors import ScaffoldError
from moorage.scaffold.changes import Change, apply_changes, read_text

if TYPE_CHECKING:
    import typer

__all__ = ["add_skill_commands"]

_NAME = "setup-database"
# Where agents look for the skills of a project; the first one that is there is used.
_FOLDERS = (".agents/skills", ".claude/skills", ".github/skills")


def add_skill_commands(app: typer.Typer) -> None:
    """Add the group ``skill`` to the command line."""
    import typer

    skill = typer.Typer(no_args_is_help=True, help="The skill for coding agents.")
    app.add_typer(skill, name="skill")

    @skill.callback()
    def group() -> None:
        """The skill for coding agents."""

    @skill.command()
    def install(
        project: str = typer.Option(".", "--project", help="Folder of the project."),
        into: str = typer.Option(
            "", "--into", help=f"Folder of its skills; default: {', '.join(_FOLDERS)}."
        ),
        force: bool = typer.Option(False, "--force", help="Replace one that was changed."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Write the skill setup-database into the skills of a project."""
        root = Path(project)
        folder = into or next((f for f in _FOLDERS if (root / f).is_dir()), _FOLDERS[0])
        path = f"{folder}/{_NAME}/SKILL.md"
        source = files("moorage.scaffold") / "templates" / "skill" / _NAME / "SKILL.md"
        after = source.read_text(encoding="utf-8")
        before = read_text(root / path)
        if before not in {None, after} and not force:
            raise ScaffoldError(
                f"{path} is there already, and differs",
                hint="compare them, then add --force to replace it",
            )
        is_new = before != after
        if is_new:
            apply_changes(root, [Change(path, before, after)])
        text = f"{'wrote' if is_new else 'is there already:'} {path}"
        answer(as_json, {"path": path, "written": is_new}, text)
