"""
Row level security in Alembic: operations for revisions, and what autogenerate compares.

``moorage.migrations.run`` imports this; an ``env.py`` without it writes
``import moorage_postgres.migrations``.
"""

from __future__ import annotations

from importlib.util import find_spec

from moorage import MissingExtraError

if find_spec("alembic") is None:
    raise MissingExtraError(
        "moorage_postgres.migrations needs alembic, which is not installed",
        hint="pip install 'moorage[migrations]'",
    )

from moorage_postgres.migrations import comparison, operations, pg_op, rendering
from moorage_postgres.migrations.surroundings import migration_options

__all__ = ["comparison", "migration_options", "operations", "pg_op", "rendering"]
