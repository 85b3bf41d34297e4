"""
``moorage init``: set up the database layer of a project, new or existing.

It looks, asks what is not given, shows what it would write, and writes it after a yes. Without a
terminal it never waits. It exits with 0, with 1 where it could not be done or was declined, and
with 2 where the command itself was wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.cli.answering import print_json
from moorage.errors import MissingExtraError, ScaffoldError
from moorage.scaffold.changes import Manifest, apply_changes, tree
from moorage.scaffold.discovery import Found, discover
from moorage.scaffold.key_shapes import hide_secrets
from moorage.scaffold.project import ProjectPlan, plan_project
from moorage.scaffold.questions import Question, make_answers, questions
from moorage.scaffold.verification import Checked, verify

if TYPE_CHECKING:
    import typer

__all__ = ["add_init_command"]


def add_init_command(app: typer.Typer) -> None:
    """Add the command ``init`` to the command line."""
    import typer

    force_file = typer.Option(
        [], "--force-file", help="Overwrite this file although it is yours; repeatable."
    )

    @app.command()
    def init(
        backend: str = typer.Argument("", help="The database; a connector that is installed."),
        project: str = typer.Option(".", "--project", help="Folder of the project."),
        fastapi: bool | None = typer.Option(None, "--fastapi/--no-fastapi", help="With FastAPI."),
        unit_of_work: bool | None = typer.Option(
            None, "--unit-of-work/--no-unit-of-work", help="Units of work, or plain sessions."
        ),
        example: bool | None = typer.Option(
            None, "--example/--no-example", help="Example models, queries, routes and tests."
        ),
        auth: bool | None = typer.Option(
            None, "--auth/--no-auth", help="A table of users with hashed passwords."
        ),
        standalone: bool | None = typer.Option(
            None,
            "--standalone/--no-standalone",
            help="The layer as source of your own, without moorage.",
        ),
        pool_size: int | None = typer.Option(
            None, "--pool-size", help="Connections that stay open in each event loop."
        ),
        max_overflow: int | None = typer.Option(
            None, "--max-overflow", help="More of them at peaks."
        ),
        layout: str = typer.Option("", "--layout", help="package, src or flat."),
        package: str = typer.Option("", "--package", help="Name of the package."),
        tool: str = typer.Option("", "--tool", help="uv, poetry, hatch, pdm or pip."),
        answers: str = typer.Option(
            "", "--answers", help="Answers from a JSON file; - is standard input."
        ),
        yes: bool = typer.Option(False, "--yes", "-y", help="Take what is recommended; write."),
        dry_run: bool = typer.Option(False, "--dry-run", help="Show the plan; write nothing."),
        diff: bool = typer.Option(False, "--diff", help="Show the plan as a diff as well."),
        force_file: list[str] = force_file,
        upgrade: bool = typer.Option(
            False, "--upgrade", help="Apply the migrations when the files are written."
        ),
        list_questions: bool = typer.Option(
            False, "--questions", help="List the questions with their answers; write nothing."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Set up the database layer of a project, new or existing."""
        options = {
            "backend": backend or None,
            "fastapi": fastapi,
            "unit_of_work": unit_of_work,
            "example": example,
            "auth": auth,
            "standalone": standalone,
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "layout": layout or None,
            "package": package or None,
            "tool": tool or None,
        }
        run = _Run(Path(project), as_json, shows_diff=diff)
        given = {**_read_answers(answers), **_given(options)}
        if list_questions:
            run.tell_questions(given)
        else:
            run.prepare(given, force_file, asks=not (yes or dry_run or as_json))
            run.carry_out(yes=yes, dry_run=dry_run, upgrade=upgrade)


class _Run:
    """One run of the command."""

    found: Found
    plan: ProjectPlan

    def __init__(self, root: Path, as_json: bool, *, shows_diff: bool) -> None:
        self._root = root
        self._as_json = as_json
        self._shows_diff = shows_diff

    def prepare(self, given: Mapping[str, Any], force: list[str], *, asks: bool) -> None:
        """Look, ask and plan."""
        manifest, asked = self._look(given)
        self._refuse_monorepo(given, manifest)
        self._say_found()
        if asks and _is_terminal():
            answers = make_answers(asked, {**_ask(asked, given), **given})
        else:
            answers = make_answers(asked, given)
        self.plan = plan_project(self.found, answers, manifest, force)

    def carry_out(self, *, yes: bool, dry_run: bool, upgrade: bool) -> None:
        """Show the plan, and write it if that is wanted."""
        import typer

        plan = self.plan
        self._show_plan(shows_diff=self._shows_diff or dry_run or not (yes or self._as_json))
        if dry_run or not plan.changes:
            self._finish([], written=False)
            return
        if not yes:
            if self._as_json or not _is_terminal():
                raise ScaffoldError(
                    "there is no terminal to ask at, and nothing was written",
                    hint="add --yes to write this, or --dry-run to look only",
                )
            import questionary

            if not questionary.confirm("Write this?", default=True).ask():
                self._print("nothing was written")
                raise typer.Exit(1)
        apply_changes(self.found.root, plan.changes)
        checked = verify(self.found.root, plan)
        if upgrade:
            checked.append(self._upgrade())
        self._finish(checked, written=True)
        if any(one.result == "no" for one in checked):
            raise typer.Exit(1)

    def tell_questions(self, given: Mapping[str, Any]) -> None:
        """List the questions, for a person or a program."""
        _, asked = self._look(given)
        make_answers(asked, given)
        if self._as_json:
            data = {
                "found": _found_json(self.found),
                "questions": [asdict(one) for one in asked],
            }
            print_json(data)
            return
        for one in asked:
            options = f" ({', '.join(one.options)})" if one.options else ""
            print(f"{one.name}: {one.text}{options}")
            print(f"    recommended: {_shown(one.recommended)}; option: {one.option}")

    def _look(self, given: Mapping[str, Any]) -> tuple[Manifest, list[Question]]:
        manifest = Manifest.read(self._root)
        self.found = discover(self._root, frozenset(manifest.files))
        return manifest, questions(self.found, {**manifest.answers, **given})

    def _refuse_monorepo(self, given: Mapping[str, Any], manifest: Manifest) -> None:
        is_chosen = manifest.files or {"layout", "package"} & given.keys()
        is_a_project = self.found.layout in {"package", "src"} and self.found.dependencies.path
        if self.found.members and not is_chosen and not is_a_project:
            raise ScaffoldError(
                f"this folder holds several projects: {', '.join(self.found.members)}",
                hint=f"choose one of them: moorage init --project {self.found.members[0]}",
            )

    def _say_found(self) -> None:
        self._print("Found:")
        for line in self.found.summary():
            self._print(f"  {line}")

    def _show_plan(self, *, shows_diff: bool) -> None:
        plan = self.plan
        if not plan.changes:
            self._print("\nNothing to change.")
        else:
            self._print(f"\nPlan, in {self.found.root.resolve()}:")
            self._print("\n".join(f"  {line}" for line in tree(plan.changes).splitlines()))
        for path, reason in sorted(plan.kept.items()):
            self._print(f"  {path} is left as it is: {reason}")
        if shows_diff:
            for change in plan.changes:
                self._print(f"\n{change.diff()}".rstrip())
        if plan.notes:
            self._print("\nTo change by hand (also in MIGRATION.md beside the models):")
            for note in plan.notes:
                self._print(f"  {note}")

    def _upgrade(self) -> Checked:
        command = ["-c", "from moorage.cli import main; main()", "db", "upgrade"]
        if self.plan.answers.standalone:
            command = ["-m", "alembic", "upgrade", "head"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.found.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        detail = hide_secrets(" ".join(lines))[:500]
        return Checked("migrations are applied", "no" if done.returncode else "yes", detail)

    def _finish(self, checked: list[Checked], *, written: bool) -> None:
        plan = self.plan
        if self._as_json:
            print_json(self._report(checked, written=written))
            return
        if not written:
            return
        self._print(f"\nWrote {len(plan.changes)} files.")
        self._print(f"Dependencies: {', '.join(plan.requirements)}")
        self._print(f"  for development: {', '.join(plan.development)}")
        if plan.variables:
            self._print("Variables to fill in (cp .env.example .env):")
            for variable in plan.variables:
                self._print(f"  {variable.name}: {variable.meaning}")
        self._print("Verified:")
        for one in checked:
            self._print(f"  {one.what}: {one.result}{f' ({one.detail})' if one.detail else ''}")
        self._print("Next:")
        for command in plan.commands:
            self._print(f"  {command}")

    def _report(self, checked: list[Checked], *, written: bool) -> dict[str, Any]:
        plan = self.plan
        return {
            "found": _found_json(self.found),
            "answers": plan.answers.to_json(),
            "written": written,
            "files": [{"path": one.path, "action": one.verb} for one in plan.changes],
            "diff": "".join(one.diff() for one in plan.changes) if self._shows_diff else "",
            "kept": dict(plan.kept),
            "notes": [asdict(one) for one in plan.notes],
            "dependencies": list(plan.requirements),
            "development_dependencies": list(plan.development),
            "variables": [asdict(one) for one in plan.variables],
            "verified": [asdict(one) for one in checked],
            "next": list(plan.commands),
        }

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _read_answers(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise ScaffoldError(
            f"the answers in {path} cannot be read: {type(error).__name__}",
            hint='write a JSON object such as {"backend": "…", "fastapi": true}',
        ) from error
    if not isinstance(data, dict):
        raise ScaffoldError(
            f"the answers in {path} are no JSON object",
            hint='write one such as {"backend": "…", "fastapi": true}',
        )
    return data


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _ask(asked: list[Question], given: Mapping[str, Any]) -> dict[str, Any]:
    """Ask at the terminal what was not given; the recommended answer comes first."""
    import typer

    try:
        import questionary
    except ImportError as error:
        raise MissingExtraError(
            f"asking at a terminal needs an optional package: {error}",
            hint="pip install 'moorage[cli]', or add --yes",
        ) from error
    answers: dict[str, Any] = {}
    for one in asked:
        if one.name in given or not one.is_asked:
            continue
        prompt: Any
        if one.kind == "yes or no":
            prompt = questionary.confirm(one.text, default=bool(one.recommended))
        elif one.kind == "choice":
            first = [one.recommended, *(o for o in one.options if o != one.recommended)]
            prompt = questionary.select(one.text, choices=[str(option) for option in first])
        else:
            prompt = questionary.text(one.text, default=str(one.recommended))
        answer = prompt.ask()
        if answer is None:
            print("nothing was written")
            raise typer.Exit(1)
        is_number = one.kind == "number" and str(answer).strip().isdecimal()
        answers[one.name] = int(answer) if is_number else answer
    return answers


def _found_json(found: Found) -> dict[str, Any]:
    return {**asdict(found), "root": str(found.root.resolve())}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
