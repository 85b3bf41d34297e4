"""What writes files: a new project, new revisions, SQL to be run by hand."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script

from moorage.database import Database
from moorage.errors import MigrationError
from moorage.migrations.calling import DEFAULT_CONFIG, in_thread
from moorage.migrations.questions import Revision, revision_of
from moorage.migrations.request import Request

__all__ = ["init", "revision", "sql"]


async def revision(
    message: str,
    *,
    autogenerate: bool = True,
    config: str | Path | Config = DEFAULT_CONFIG,
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
        return revision_of(made)

    return await in_thread(config, Request(database), write)


async def sql(
    target: str = "head",
    *,
    config: str | Path | Config = DEFAULT_CONFIG,
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

    await in_thread(config, Request(database), write)
    return buffer.getvalue()


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
    mako = (templates / "script.py.mako").read_text(encoding="utf-8")
    # A folder of the name of Alembic's package is the project's own to isort and ruff.
    own = sorted({module.partition(".")[0], *({directory} & {"alembic"})})
    contents = {
        root / "alembic.ini": ini.replace("{directory}", directory),
        root / directory / "env.py": env.format(models=models, metadata=f"{name}.metadata"),
        root / directory / "script.py.mako": mako.replace('["alembic"]', repr(own)),
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
