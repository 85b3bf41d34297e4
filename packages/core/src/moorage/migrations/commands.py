"""
The commands of migrations as functions, for programs and for the command line.

Alembic works in a thread with an event loop of its own, so that the caller's loop goes on, and a
revision may do whatever synchronous code does.
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from moorage.database import Database
from moorage.errors import DatabaseError, MigrationError, PendingMigrationsError
from moorage.migrations.environment import COMPARES, REQUEST, Request
from moorage.migrations.rendering import describe
from moorage.migrations.unreached import UnreachedModel, unreached_models
from moorage.shield import wait_shielded

__all__ = [
    "Check",
    "Revision",
    "Status",
    "check",
    "current",
    "downgrade",
    "heads",
    "history",
    "init",
    "revision",
    "sql",
    "stamp",
    "upgrade",
    "wait_for_head",
]

logger: logging.Logger = logging.getLogger("moorage.migrations")

_DEFAULT_CONFIG = "alembic.ini"
# How long a migration may take to end after its caller was cancelled.
_END_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

# Alembic keeps the running command in global names: two at once would mix.
_one_at_a_time = threading.Lock()

_T = TypeVar("_T")


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


async def upgrade(
    target: str = "head",
    *,
    config: str | Path | Config = _DEFAULT_CONFIG,
    database: Database | None = None,
    wait_seconds: float | None = None,
    report: Callable[[str], None] = logger.info,
) -> list[str]:
    """
    Apply revisions up to ``target``, and return those that were applied.

    Any number of processes may do this at once: one migrates, the others wait for it. Where there
    is nothing to do, no lock is taken.

    Args:
        target: A revision, ``head``, ``heads``, or ``+1``.
        config: Alembic's settings, or their file.
        database: Migrated instead of the one that ``env.py`` names.
        wait_seconds: Longest wait for another process; ``None`` leaves what ``env.py`` says.
        report: Called with a sentence on what happens, in another thread.

    Raises:
        MigrationLockError: Another process migrates, for too long.
        HalfAppliedMigrationError: A revision was interrupted before.
        MigrationError: A revision, or ``env.py``, cannot be found or is wrong.
        DatabaseError: The database failed.
    """
    request = Request(database, wait_seconds, report)
    await _in_thread(config, request, lambda alembic: command.upgrade(alembic, target))
    return request.applied


async def downgrade(
    target: str,
    *,
    config: str | Path | Config = _DEFAULT_CONFIG,
    database: Database | None = None,
    wait_seconds: float | None = None,
    report: Callable[[str], None] = logger.info,
) -> list[str]:
    """
    Undo revisions down to ``target`` (a revision, ``-1`` or ``base``), and return the undone ones.

    Arguments and errors are those of :func:`upgrade`.
    """
    request = Request(database, wait_seconds, report)
    await _in_thread(config, request, lambda alembic: command.downgrade(alembic, target))
    return request.applied


async def stamp(
    target: str,
    *,
    config: str | Path | Config = _DEFAULT_CONFIG,
    database: Database | None = None,
    wait_seconds: float | None = None,
    report: Callable[[str], None] = logger.info,
) -> None:
    """
    Say that the database is at ``target``, without running anything.

    It is also the way out of a revision that was interrupted, once its rest was done, or undone,
    by hand. Arguments and errors are those of :func:`upgrade`.
    """
    request = Request(database, wait_seconds, report)
    await _in_thread(config, request, lambda alembic: command.stamp(alembic, target))


async def current(
    *, config: str | Path | Config = _DEFAULT_CONFIG, database: Database | None = None
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

    return await _in_thread(config, Request(database), look)


async def check(
    *, config: str | Path | Config = _DEFAULT_CONFIG, database: Database | None = None
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

    return await _in_thread(config, request, compare)


async def revision(
    message: str,
    *,
    autogenerate: bool = True,
    config: str | Path | Config = _DEFAULT_CONFIG,
    database: Database | None = None,
    head: str = "head",
) -> Revision:
    """
    Write a new revision, from the differences between models and database unless told otherwise.

    Args:
        message: What it does, for its name and docstring.
        autogenerate: Compare; the database must be at head.
        config: Alembic's settings, or their file.
        database: Compared instead of the one that ``env.py`` names.
        head: What it comes after, where there are several heads.

    Raises:
        MigrationError: The database is not at head, or ``env.py`` is wrong.
        DatabaseError: The database failed.
    """

    def write(alembic: Config) -> Revision:
        made = command.revision(alembic, message, autogenerate=autogenerate, head=head)
        assert isinstance(made, Script)
        return _described(made)

    return await _in_thread(config, Request(database), write)


async def sql(
    target: str = "head",
    *,
    config: str | Path | Config = _DEFAULT_CONFIG,
    database: Database | None = None,
) -> str:
    """
    Return the SQL of an upgrade, for those who run it by hand; nothing is connected to.

    Args:
        target: A revision, or a range ``from:to``.
        config: Alembic's settings, or their file.
        database: Whose dialect is spoken, instead of the one that ``env.py`` names.
    """
    buffer = io.StringIO()

    def write(alembic: Config) -> None:
        alembic.output_buffer = buffer
        command.upgrade(alembic, target, sql=True)

    await _in_thread(config, Request(database), write)
    return buffer.getvalue()


def heads(*, config: str | Path | Config = _DEFAULT_CONFIG) -> list[Revision]:
    """Return the revisions that nothing comes after; one, unless branches wait to be merged."""
    return [one for one in history(config=config) if one.is_head]


def history(*, config: str | Path | Config = _DEFAULT_CONFIG) -> list[Revision]:
    """Return all revisions, the newest first; reads files only."""
    with _explained():
        script = ScriptDirectory.from_config(_load(config))
        return [_described(one) for one in script.walk_revisions()]


async def wait_for_head(
    deadline_seconds: float = 60.0,
    *,
    config: str | Path | Config = _DEFAULT_CONFIG,
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


def init(
    project: str | Path = ".",
    *,
    directory: str = "migrations",
    metadata: str = "moorage.models:Base",
) -> list[Path]:
    """
    Write what migrations need into a project, and return the files; none is overwritten.

    Args:
        project: The folder that gets ``alembic.ini``.
        directory: The folder of ``env.py`` and of the revisions, in it.
        metadata: The base of the models, as ``module:name``.

    Raises:
        MigrationError: ``metadata`` has another form, or one of the files is there.
    """
    module, _, name = metadata.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise MigrationError(
            f"{metadata!r} does not name a base", hint="write it as module:name, boats.models:Base"
        )
    root = Path(project)
    templates = files("moorage.migrations") / "templates"
    models = f"from {module} import {name}"
    env = (templates / "env.py.txt").read_text(encoding="utf-8")
    ini = (templates / "alembic.ini").read_text(encoding="utf-8")
    contents = {
        root / "alembic.ini": ini.replace("{directory}", directory),
        root / directory / "env.py": env.format(models=models, metadata=f"{name}.metadata"),
        root / directory / "script.py.mako": (templates / "script.py.mako").read_text("utf-8"),
    }
    if there := [str(path) for path in contents if path.exists()]:
        raise MigrationError(
            f"{', '.join(there)} is there already, and nothing was written",
            hint="migrations are set up; write the first revision: moorage db revision -m MESSAGE",
        )
    (root / directory / "versions").mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_text(content, encoding="utf-8")
    return list(contents)


async def _in_thread(
    config: str | Path | Config, request: Request, work: Callable[[Config], _T]
) -> _T:
    """Let Alembic work in a thread; when the caller is cancelled, it is ended there."""

    def call() -> _T:
        with _one_at_a_time, _explained():
            alembic = _load(config)
            alembic.attributes[REQUEST] = request
            return work(alembic)

    task = asyncio.create_task(asyncio.to_thread(call))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        request.cancel()
        await wait_shielded(task, _END_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()
        raise
    return task.result()


def _load(config: str | Path | Config) -> Config:
    if isinstance(config, Config):
        return config
    path = Path(config)
    if not path.is_file():
        raise MigrationError(
            f"there is no file {path} with Alembic's settings",
            hint="go to the project's folder, or set migrations up: moorage db init",
        )
    # The words of Alembic's own command line are no result of a function.
    return Config(path, cmd_opts=Namespace(quiet=True))


def _project(alembic: Config) -> Path:
    name = alembic.config_file_name
    return Path(name).resolve().parent if name else Path.cwd()


def _described(script: Script) -> Revision:
    down = script.down_revision
    return Revision(
        script.revision,
        (down,) if isinstance(down, str) else tuple(down or ()),
        script.doc,
        str(script.path),
        script.is_head,
    )


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


@contextmanager
def _explained() -> Iterator[None]:
    """Turn Alembic's own errors into ours."""
    try:
        yield
    except CommandError as error:
        text = str(error)
        hint = "look at the files with: moorage db history"
        if "Multiple head" in text:
            hint = "join the branches: alembic merge heads"
        elif "not up to date" in text:
            hint = "apply the pending revisions first: moorage db upgrade"
        raise MigrationError(text, hint=hint) from error
