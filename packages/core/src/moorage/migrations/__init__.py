"""
Migrations: Alembic, taught what moorage knows; ``pip install 'moorage[migrations]'``.

There is no second engine: revisions are Alembic's, and its own command works in the same project
under the same lock. What is added is in ``env.py``, which is three lines::

    from boats.models import Base
    from moorage.migrations import run

    run(Base.metadata)

The functions below do the same from code, also inside of a running event loop.
"""

from __future__ import annotations

from importlib.util import find_spec

from moorage.errors import MissingExtraError

if find_spec("alembic") is None:
    raise MissingExtraError(
        "moorage.migrations needs alembic, which is not installed",
        hint="pip install 'moorage[migrations]'",
    )

from moorage.migrations.calling import configuration, declared
from moorage.migrations.changes import ChangeOptions, downgrade, stamp, upgrade
from moorage.migrations.environment import run
from moorage.migrations.linting import lint
from moorage.migrations.questions import (
    Check,
    Revision,
    Status,
    check,
    current,
    heads,
    history,
    wait_for_head,
)
from moorage.migrations.request import Declared
from moorage.migrations.unreached import UnreachedModel
from moorage.migrations.writing import init, revision, sql

__all__ = [
    "ChangeOptions",
    "Check",
    "Declared",
    "Revision",
    "Status",
    "UnreachedModel",
    "check",
    "configuration",
    "current",
    "declared",
    "downgrade",
    "heads",
    "history",
    "init",
    "lint",
    "revision",
    "run",
    "sql",
    "stamp",
    "upgrade",
    "wait_for_head",
]
