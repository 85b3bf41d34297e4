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

from moorage.migrations.commands import (
    Check,
    Revision,
    Status,
    check,
    current,
    downgrade,
    heads,
    history,
    init,
    revision,
    sql,
    stamp,
    upgrade,
    wait_for_head,
)
from moorage.migrations.environment import run
from moorage.migrations.unreached import UnreachedModel

__all__ = [
    "Check",
    "Revision",
    "Status",
    "UnreachedModel",
    "check",
    "current",
    "downgrade",
    "heads",
    "history",
    "init",
    "revision",
    "run",
    "sql",
    "stamp",
    "upgrade",
    "wait_for_head",
]
