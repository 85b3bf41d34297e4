"""A project with migrations, made for one test."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

REVISION = """
import os
import signal
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = depends_on = None


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""


def indented(code: str) -> str:
    """Return code as the body of a function."""
    lines = dedent(code).strip().splitlines() or ["pass"]
    return "\n".join(f"    {line}" for line in lines)


class Project:
    """
    A folder with ``alembic.ini``, ``env.py`` and revisions.

    Args:
        folder: Where it is made.
        database: Settings of its database, by field name.
        env: The part of ``env.py`` that gives ``metadata``.
        arguments: Further arguments of ``run``.
    """

    def __init__(
        self,
        folder: Path,
        database: dict[str, Any],
        env: str = "import sqlalchemy\nmetadata = sqlalchemy.MetaData()",
        arguments: str = "",
    ) -> None:
        self.folder = folder
        self.database = database
        self.config = folder / "alembic.ini"
        self.versions = folder / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        self.config.write_text(
            "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n"
        )
        template = Path(sys.modules["moorage"].__file__ or "").parent / "migrations/templates"
        (folder / "migrations/script.py.mako").write_text((template / "script.py.mako").read_text())
        given = {**database, "_env_file": None}
        (folder / "migrations/env.py").write_text(
            "from moorage import DatabaseSettings\nfrom moorage.migrations import run\n"
            f"{env}\n"
            f"run(metadata, settings=DatabaseSettings(**{given!r}), {arguments})\n"
        )

    def revision(
        self, revision: str, upgrade: str, downgrade: str = "", after: str | None = None
    ) -> Path:
        """Write a revision, from the bodies of its functions."""
        path = self.versions / f"{revision}_.py"
        path.write_text(
            REVISION.format(
                revision=revision,
                down=after,
                upgrade=indented(upgrade),
                downgrade=indented(downgrade),
            )
        )
        return path

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a module of Python in the folder, with the settings in the environment as well."""
        return run_python(self.folder, self.database, ["-m", *arguments], check=check)


def run_python(
    folder: Path, database: dict[str, Any], arguments: Sequence[str], *, check: bool
) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder with settings of a database; return how it ended."""
    settings = {f"DB_{name.upper()}": str(value) for name, value in database.items()}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
