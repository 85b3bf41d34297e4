"""The command ``moorage db seed``: rows that a database begins with."""

from __future__ import annotations

import asyncio
import importlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorage.cli.answering import answer, tell
from moorage.errors import SeedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer
    from sqlalchemy import MetaData

    from moorage.seeding import SeedResult
    from moorage.settings import DatabaseSettings

__all__ = ["add_seed_command"]


def add_seed_command(db: typer.Typer, config: Any, database: Any, as_json: Any) -> None:
    """Add ``seed`` to the group ``db``, with the options that its commands share."""
    import typer

    places = typer.Option(
        None, "--seeds", help="Folder, file or module; `seeds` beside Alembic's settings."
    )

    @db.command()
    def seed(
        environment: str = typer.Option(
            ..., "--env", help="Where this is, as dev. In production only seeds run that name it."
        ),
        seeds: list[str] = places,
        models: str = typer.Option(
            None, "--models", help="Base of the models, as module:name, instead of env.py's."
        ),
        dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would do; roll back."),
        config: Path = config,
        database: str = database,
        as_json: bool = as_json,
    ) -> None:
        """Write the rows of seeds; what is there already is left alone."""
        if models:
            catalogues, settings, places = _of_models(models)
        else:
            catalogues, settings, places = _of_project(config, database)
        work = _run(environment, seeds or places, catalogues, settings, dry_run)
        results = asyncio.run(work)
        answer(as_json, [asdict(one) for one in results], _summary(results, dry_run))


async def _run(
    environment: str,
    places: Sequence[str],
    catalogues: Sequence[MetaData],
    settings: DatabaseSettings | None,
    dry_run: bool,
) -> list[SeedResult]:
    from moorage.database import Database
    from moorage.default import replace_database
    from moorage.seeding import run_seeds

    async with Database(settings) as database:
        # A seed may use what the application has, which asks for the database of the process.
        with replace_database(database):
            return await run_seeds(
                environment,
                seeds=places,
                catalogues=catalogues,
                database=database,
                dry_run=dry_run,
                report=tell,
            )


def _of_project(
    config: Path, database: str | None
) -> tuple[Sequence[MetaData], DatabaseSettings, list[str]]:
    from moorage import migrations

    alembic = migrations.configuration(config, database)
    declared = asyncio.run(migrations.declared(config=alembic))
    beside = str(config.parent / "seeds")
    return declared.metadata, declared.settings, [alembic.get_main_option("seeds", beside)]


def _of_models(models: str) -> tuple[Sequence[MetaData], None, list[str]]:
    module, _, name = models.partition(":")
    # The settings of Alembic, which say where source is, are not asked here.
    for folder in (Path.cwd() / "src", Path.cwd()):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    try:
        base = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SeedError(
            f"there is no base of models at {models!r}: {error}",
            hint="write it as module:name, boats.models:Base",
        ) from error
    return [getattr(base, "metadata", base)], None, ["seeds"]


def _summary(results: Sequence[SeedResult], dry_run: bool) -> str:
    run = [one for one in results if one.state != "skipped"]
    counts = {
        word: sum(getattr(one, word) for one in run)
        for word in ("inserted", "updated", "deleted", "unchanged")
    }
    rows = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"
    ending = "; nothing of it stays" if dry_run else ""
    return f"{len(run)} of {len(results)} seeds run; rows: {rows}{ending}"
