"""
The operations of PostgreSQL with their types, for revisions.

They are those of ``op``, which has them as soon as :mod:`moorage_postgres.migrations` was imported.
But of ``op``, type checkers know what Alembic itself brings, and nothing else::

    from alembic import op
    from moorage_postgres.migrations import pg_op


    def upgrade() -> None:
        op.create_table("notes", …)
        pg_op.enable_rls("notes")
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, cast

from alembic import op
from alembic.operations import Operations

from moorage_postgres.migrations import operations as ops

__all__ = [
    "create_policy",
    "disable_rls",
    "drop_policy",
    "enable_rls",
    "force_rls",
    "grant",
    "no_force_rls",
    "reload_api",
    "revoke",
]

_Arguments = ParamSpec("_Arguments")


def _of_the_running_revision(
    operation: Callable[Concatenate[Operations, _Arguments], None],
) -> Callable[_Arguments, None]:
    """Return an operation for whichever revision runs when it is called."""

    @wraps(operation)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        # A module that hands everything on to the Operations of the revision.
        operation(cast("Any", op), *args, **kwargs)

    return call


enable_rls: Final = _of_the_running_revision(ops.EnableRLSOp.switch)
disable_rls: Final = _of_the_running_revision(ops.DisableRLSOp.switch)
force_rls: Final = _of_the_running_revision(ops.ForceRLSOp.switch)
no_force_rls: Final = _of_the_running_revision(ops.NoForceRLSOp.switch)
create_policy: Final = _of_the_running_revision(ops.CreatePolicyOp.create_policy)
drop_policy: Final = _of_the_running_revision(ops.DropPolicyOp.drop_policy)
grant: Final = _of_the_running_revision(ops.GrantOp.grant)
revoke: Final = _of_the_running_revision(ops.RevokeOp.revoke)
reload_api: Final = _of_the_running_revision(ops.ReloadAPIOp.reload_api)
