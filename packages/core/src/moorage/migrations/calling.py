"""
How Alembic is called: in a thread with an event loop of its own, one command at a time.

The caller's loop goes on meanwhile, and a revision may do whatever synchronous code does.
"""

from __future__ import annotations

import asyncio
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from moorage.errors import MigrationError
from moorage.migrations.request import REQUEST, Declared, Request
from moorage.shield import wait_shielded

__all__ = ["DEFAULT_CONFIG", "configuration", "declared", "explained", "in_thread", "load"]

DEFAULT_CONFIG: Final = "alembic.ini"

# How long a migration may take to end after its caller was cancelled.
_END_SECONDS = 60.0
# Alembic keeps the running command in global names: two at once would mix.
_one_at_a_time = threading.Lock()

_T = TypeVar("_T")


def configuration(config: str | Path = DEFAULT_CONFIG, database: str | None = None) -> Config:
    """
    Return Alembic's settings for one of the databases of a project.

    Args:
        config: Alembic's settings, one section for each database.
        database: The section; Alembic's own if left out.

    Raises:
        MigrationError: There is no such file, or no such section in it.
    """
    path = Path(config)
    if not path.is_file():
        raise MigrationError(
            f"there is no file {path} with Alembic's settings",
            hint="go to the project's folder, or set migrations up: moorage db init",
        )
    sections = _sections(path)
    name = database or "alembic"
    if name not in sections:
        raise MigrationError(
            f"{path} has no section [{name}]", hint=f"it has {', '.join(sections) or 'none'}"
        )
    # The words of Alembic's own command line are no result of a function.
    return Config(path, ini_section=name, cmd_opts=Namespace(quiet=True))


def _sections(path: Path) -> list[str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigError, UnicodeDecodeError) as error:
        raise MigrationError(
            f"{path} cannot be read: {error}", hint="mend that line of Alembic's settings"
        ) from error
    return parser.sections()


def load(config: str | Path | Config) -> Config:
    """Return Alembic's settings, read from their file if need be."""
    return config if isinstance(config, Config) else configuration(config)


async def in_thread(
    config: str | Path | Config, request: Request, work: Callable[[Config], _T]
) -> _T:
    """Let Alembic work in a thread; when the caller is cancelled, it is ended there."""

    def call() -> _T:
        with _one_at_a_time, explained():
            alembic = load(config)
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


async def declared(config: str | Path | Config = DEFAULT_CONFIG) -> Declared:
    """
    Return what ``env.py`` declares: the catalogues of the models, and where the database is.

    Raises:
        MigrationError: ``env.py`` cannot be found, or does not call ``run``.
    """
    request = Request(only_declares=True)

    def look(alembic: Config) -> None:
        script = ScriptDirectory.from_config(alembic)
        with EnvironmentContext(alembic, script):
            script.run_env()

    await in_thread(config, request, look)
    if request.declared is None:
        raise MigrationError(
            "env.py does not call moorage.migrations.run, which would say where the models are",
            hint="write it as `moorage db init` does",
        )
    return request.declared


@contextmanager
def explained() -> Iterator[None]:
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
