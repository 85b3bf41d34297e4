"""What is asked of a database and of the files: where it is, and what is there to be applied."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory

from moorage.database import Database
from moorage.errors import DatabaseError, PendingMigrationsError
from moorage.migrations.calling import DEFAULT_CONFIG, explained, in_thread, load
from moorage.migrations.rendering import describe
from moorage.migrations.request import COMPARES, Request
from moorage.migrations.unreached import UnreachedModel, unreached_models

__all__ = [
    "Check",
    "Revision",
    "Status",
    "check",
    "current",
    "heads",
    "history",
    "revision_of",
    "wait_for_head",
]

logger: logging.Logger = logging.getLogger("moorage.migrations")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Revision:
    """
    One revision, as its file says.

    Attributes:
        revision: Its identifier.
        down_revisions: What it comes after.
        message: The first line of its docstring.
        path: Its file.
        is_head: Whether nothing comes after it.
    """

    revision: str
    down_revisions: tuple[str, ...]
    message: str
    path: str
    is_head: bool


@dataclass(frozen=True)
class Status:
    """
    Where the database is, and where the files are.

    Attributes:
        current: Revisions that the database is at.
        heads: Revisions that the files lead to.
        unknown: Those of ``current`` that no file knows: a newer release has migrated.
    """

    current: tuple[str, ...]
    heads: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def is_at_head(self) -> bool:
        """Return whether nothing is to be applied."""
        return set(self.current) == set(self.heads)


@dataclass(frozen=True)
class Check:
    """
    What is wrong with models and migrations.

    Attributes:
        pending: Revisions that the database lacks; the models were not compared then.
        differences: What a new revision would have to do.
        unreached: Models that no import of ``env.py`` reaches.
        heads: More than one head, if there are.
    """

    pending: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    unreached: tuple[UnreachedModel, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Return whether nothing is wrong."""
        return not (self.pending or self.differences or self.unreached or self.heads)


async def current(
    *, config: str | Path | Config = DEFAULT_CONFIG, database: Database | None = None
) -> Status:
    """Return which revisions the database is at, and which the files lead to."""
    found: list[str] = []

    def look(alembic: Config) -> Status:
        script = ScriptDirectory.from_config(alembic)

        def note(revisions: Sequence[str], _migration: Any) -> list[Any]:
            found.extend(revisions)
            return []

        with EnvironmentContext(alembic, script, fn=note, dont_mutate=True):
            script.run_env()
        known = {one.revision for one in script.walk_revisions()}
        unknown = tuple(one for one in found if one not in known)
        return Status(tuple(found), tuple(sorted(script.get_heads())), unknown)

    return await in_thread(config, Request(database), look)


async def check(
    *, config: str | Path | Config = DEFAULT_CONFIG, database: Database | None = None
) -> Check:
    """
    Compare the models with the database, and look for models that nobody imports.

    Raises:
        MigrationError: ``env.py`` hands over no table at all, or cannot be run.
        DatabaseError: The database failed.
    """
    request = Request(database)
    status = await current(config=config, database=database)

    def compare(alembic: Config) -> Check:
        script = ScriptDirectory.from_config(alembic)
        differences: list[str] = []
        pending = [one.revision for one in script.walk_revisions()] if not status.current else []
        if status.current and not status.is_at_head:
            lower = tuple(one for one in status.current if one not in status.unknown)
            pending = [
                one.revision
                for one in script.iterate_revisions(status.heads, lower)
                if one.revision not in status.current
            ]

        def diff(_revisions: object, migration: Any) -> list[Any]:
            if not pending:
                catalogues: Any = request.metadata  # Alembic takes several, and does not say so
                for difference in compare_metadata(migration, catalogues):
                    differences.extend(describe(difference))
            return []

        options: dict[str, Any] = {COMPARES: True}
        with EnvironmentContext(alembic, script, fn=diff, dont_mutate=True, **options):
            script.run_env()
        tables = [table.name for one in request.metadata for table in one.tables.values()]
        return Check(
            tuple(reversed(pending)),
            tuple(differences),
            tuple(unreached_models(_project(alembic), tables)),
            status.heads if len(status.heads) > 1 else (),
        )

    return await in_thread(config, request, compare)


def heads(*, config: str | Path | Config = DEFAULT_CONFIG) -> list[Revision]:
    """Return the revisions that nothing comes after; one, unless branches wait to be merged."""
    return [one for one in history(config=config) if one.is_head]


def history(*, config: str | Path | Config = DEFAULT_CONFIG) -> list[Revision]:
    """Return all revisions, the newest first; reads files only."""
    with explained():
        script = ScriptDirectory.from_config(load(config))
        return [revision_of(one) for one in script.walk_revisions()]


async def wait_for_head(
    deadline_seconds: float = 60.0,
    *,
    config: str | Path | Config = DEFAULT_CONFIG,
    database: Database | None = None,
    accept_newer: bool = False,
) -> None:
    """
    Return as soon as the database is at head; for the start of a service that does not migrate.

    Args:
        deadline_seconds: Longest wait; 0 asks once.
        config: Alembic's settings, or their file.
        database: Asked instead of the one that ``env.py`` names.
        accept_newer: Be content with revisions that no file knows, as an old replica is that
            starts again while a newer release is rolled out.

    Raises:
        PendingMigrationsError: The deadline is over.
        DatabaseError: The database could not be reached until then, or cannot be at all.
    """
    end = time.monotonic() + deadline_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            status = await current(config=config, database=database)
        except DatabaseError as error:
            if not error.is_transient or time.monotonic() >= end:
                raise
            logger.warning("waiting for the database: %s", error.args[0])
        else:
            if status.is_at_head or (accept_newer and status.unknown):
                return
            if time.monotonic() >= end:
                raise _not_there(status, deadline_seconds)
            logger.info("waiting for the migrations: at %s", ", ".join(status.current) or "nothing")
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def revision_of(script: Script) -> Revision:
    """Return what a file of Alembic's says."""
    down = script.down_revision
    return Revision(
        script.revision,
        (down,) if isinstance(down, str) else tuple(down or ()),
        script.doc,
        str(script.path),
        script.is_head,
    )


def _project(alembic: Config) -> Path:
    name = alembic.config_file_name
    return Path(name).resolve().parent if name else Path.cwd()


def _not_there(status: Status, deadline_seconds: float) -> PendingMigrationsError:
    at = ", ".join(status.current) or "no revision"
    if status.unknown:
        return PendingMigrationsError(
            f"the database is at {at}, which no file here knows: a newer release has migrated it",
            hint="start that release, or accept it: wait_for_head(accept_newer=True)",
        )
    return PendingMigrationsError(
        f"the database is at {at} and not at {', '.join(status.heads)} within"
        f" {deadline_seconds:g} s",
        hint="apply the migrations: moorage db upgrade",
    )
