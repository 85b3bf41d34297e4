"""
The commands below ``moorage db``: migrations and seeds from the command line.

They print what a person wants to read, or JSON for a script, and exit with 0, with 1 where
something failed or is not as it should be, and with 2 where the command itself was wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moorage.cli.answering import answer, is_for_people, print_json, tell
from moorage.cli.seeds import add_seed_command

if TYPE_CHECKING:
    import typer

__all__ = ["add_db_commands"]

_T = TypeVar("_T")


def add_db_commands(app: typer.Typer) -> None:
    """
    Add the group ``db`` to the command line.

    Alembic is needed when a command runs, and not before.
    """
    import typer

    db = typer.Typer(no_args_is_help=True, help="Migrate the database, and fill it.")
    config = typer.Option("alembic.ini", "--config", "-c", help="Alembic's settings.")
    database = typer.Option(
        None, "--database", "-d", help="Section of Alembic's settings, if there are several."
    )
    as_json = typer.Option(False, "--json", help="Print JSON, for scripts.")
    _add_files(db, config, database, as_json)
    _add_changes(db, config, database, as_json)
    _add_questions(db, config, database, as_json)
    _add_lint(db, config, database, as_json)
    add_seed_command(db, config, database, as_json)
    app.add_typer(db, name="db")


def _add_files(db: typer.Typer, config: Any, database: Any, as_json: Any) -> None:
    import typer

    @db.command()
    def init(
        directory: str = typer.Argument("migrations", help="Folder of env.py and the revisions."),
        models: str = typer.Option(
            "moorage.models:Base", help="Base of the models, as module:name."
        ),
        as_json: bool = as_json,
    ) -> None:
        """Write alembic.ini, env.py and the template of revisions."""
        made = _do(lambda m: m.init(directory=directory, metadata=models))
        written = [str(path) for path in made]
        following = 'Next step: moorage db revision -m "first tables"'
        text = "\n".join([*(f"wrote {path}" for path in written), following])
        answer(as_json, {"written": written}, text)

    @db.command()
    def revision(
        message: str = typer.Option(..., "--message", "-m", help="What it does."),
        autogenerate: bool = typer.Option(
            True, "--autogenerate/--empty", help="Compare models and database, or write none."
        ),
        head: str = typer.Option("head", help="What it comes after."),
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Write a revision from the differences between models and database."""
        made = _await(
            lambda m: m.revision(
                message,
                autogenerate=autogenerate,
                head=head,
                config=m.configuration(config, database),
            )
        )
        text = f"wrote {made.path}\nNext step: read it, then moorage db upgrade"
        answer(as_json, asdict(made), text)

    @db.command()
    def sql(
        target: str = typer.Argument("head", help="A revision, or a range from:to."),
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Print the SQL of an upgrade; nothing is connected to."""
        made = _await(lambda m: m.sql(target, config=m.configuration(config, database)))
        answer(as_json, {"sql": made}, made)


def _add_changes(db: typer.Typer, config: Any, database: Any, as_json: Any) -> None:
    import typer

    wait = typer.Option(
        None, "--wait", help="Seconds to wait for another process that migrates.", min=0
    )

    @db.command()
    def upgrade(
        target: str = typer.Argument("head"),
        wait: float = wait,
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Apply revisions; safe to be run by many processes at once."""
        applied = _await(
            lambda m: m.upgrade(
                target, config=m.configuration(config, database), wait_seconds=wait, report=tell
            )
        )
        answer(as_json, {"applied": applied}, _count(applied, "applied"))

    @db.command()
    def downgrade(
        target: str = typer.Argument(..., help="A revision, -1, or base."),
        wait: float = wait,
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Undo revisions."""
        undone = _await(
            lambda m: m.downgrade(
                target, config=m.configuration(config, database), wait_seconds=wait, report=tell
            )
        )
        answer(as_json, {"undone": undone}, _count(undone, "undone"))

    @db.command()
    def stamp(
        target: str,
        wait: float = wait,
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Say where the database is, without running anything."""
        _await(
            lambda m: m.stamp(
                target, config=m.configuration(config, database), wait_seconds=wait, report=tell
            )
        )
        if as_json:
            print_json({"stamped": target})


def _add_questions(db: typer.Typer, config: Any, database: Any, as_json: Any) -> None:
    import typer

    @db.command()
    def current(config: Path = config, database: str = database, as_json: bool = as_json) -> None:
        """Say where the database is; exits with 1 if that is not at head."""
        status = _await(lambda m: m.current(config=m.configuration(config, database)))
        data = {**asdict(status), "is_at_head": status.is_at_head}
        answer(as_json, data, _where_it_is(status))
        if not status.is_at_head:
            raise typer.Exit(1)

    @db.command()
    def heads(config: Path = config, database: str = database, as_json: bool = as_json) -> None:
        """List the revisions that nothing comes after; exits with 1 if there are several."""
        found = _do(lambda m: m.heads(config=m.configuration(config, database)))
        _list_revisions(found, as_json)
        if len(found) > 1:
            raise typer.Exit(1)

    @db.command()
    def history(config: Path = config, database: str = database, as_json: bool = as_json) -> None:
        """List all revisions, the newest first."""
        _list_revisions(_do(lambda m: m.history(config=m.configuration(config, database))), as_json)

    @db.command()
    def check(config: Path = config, database: str = database, as_json: bool = as_json) -> None:
        """Compare models and database, and look for models that nobody imports."""
        found = _await(lambda m: m.check(config=m.configuration(config, database)))
        lines = [
            *(f"not applied: {one}" for one in found.pending),
            *(f"several heads: {one}" for one in found.heads),
            *found.differences,
            *map(str, found.unreached),
        ]
        if found.pending:
            lines.append("Next step: moorage db upgrade")
        elif found.differences:
            lines.append("Next step: moorage db revision -m MESSAGE")
        elif found.unreached:
            lines.append("Next step: import these modules in env.py")
        text = "\n".join(lines) or "models and database agree"
        answer(as_json, {**asdict(found), "is_clean": found.is_clean}, text)
        if not found.is_clean:
            raise typer.Exit(1)


def _add_lint(db: typer.Typer, config: Any, database: Any, as_json: Any) -> None:
    import typer

    fail_on = typer.Option(
        "danger", help="What is a failure: danger, advice (both), or never.", metavar="WHAT"
    )

    @db.command()
    def lint(
        target: str = typer.Argument(None, help="A revision, or those in from:to; all of them."),
        pending: bool = typer.Option(False, "--pending", help="Only what the database lacks."),
        fail_on: str = fail_on,
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Find statements in revisions that would stop or break a service that runs."""
        if fail_on not in ("danger", "advice", "never"):
            raise typer.BadParameter("choose danger, advice or never", param_hint="--fail-on")
        found = _await(
            lambda m: m.lint(target, pending=pending, config=m.configuration(config, database))
        )
        dangers = sum(one.is_dangerous for one in found)
        lines = [_finding(one) for one in found]
        lines.append(f"{dangers} dangerous, {len(found) - dangers} to think about")
        answer(as_json, [asdict(one) for one in found], "\n".join(lines))
        counts = {"danger": dangers, "advice": len(found), "never": 0}
        if counts[fail_on]:
            raise typer.Exit(1)


def _finding(found: Any) -> str:
    try:
        place = Path(found.script).relative_to(Path.cwd())
    except ValueError:
        place = Path(found.script)
    kind = "danger" if found.is_dangerous else "advice"
    return (
        f"{place}: {kind}: {found.rule}\n    {found.statement}\n"
        f"  {found.problem}\n  Safe way: {found.safe_way}\n"
    )


def _do(work: Any) -> Any:
    from moorage import migrations

    return work(migrations)


def _await(work: Any) -> Any:
    async def call(coroutine: Coroutine[Any, Any, _T]) -> _T:
        return await coroutine

    return _do(lambda migrations: asyncio.run(call(work(migrations))))


def _count(revisions: list[str], verb: str) -> str:
    if not revisions:
        return "nothing to do"
    return f"{len(revisions)} revision{'s' if len(revisions) > 1 else ''} {verb}"


def _where_it_is(status: Any) -> str:
    at = f"at {', '.join(status.current) or 'no revision'}"
    if status.is_at_head:
        return f"{at}, which is head"
    if status.unknown:
        return f"{at}; {', '.join(status.unknown)} is in no file here"
    return f"{at}; head is {', '.join(status.heads)}\nNext step: moorage db upgrade"


def _list_revisions(revisions: Any, as_json: bool) -> None:
    if as_json:
        print_json([asdict(one) for one in revisions])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if is_for_people() else Console(width=200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("revision", "after", "what it does"):
        table.add_column(column, overflow="fold")
    for one in revisions:
        mark = " (head)" if one.is_head else ""
        after = ", ".join(one.down_revisions) or "the beginning"
        table.add_row(Text(f"{one.revision}{mark}"), Text(after), Text(one.message))
    console.print(table)
