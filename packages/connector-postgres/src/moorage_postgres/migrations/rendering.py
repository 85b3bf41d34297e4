"""How autogenerate writes the operations into a revision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from alembic.autogenerate import render_op_text, renderers
from alembic.autogenerate.api import AutogenContext

from moorage_postgres.migrations.operations import (
    AlterGrantOp,
    AlterProtectionOp,
    CreatePolicyOp,
    DisableRLSOp,
    DropPolicyOp,
    EnableRLSOp,
    ForceRLSOp,
    GrantOp,
    NoForceRLSOp,
    OneWayOps,
    ReloadAPIOp,
    RevokeOp,
)

__all__: list[str] = []

_SWITCHES: Final[dict[type[AlterProtectionOp], str]] = {
    EnableRLSOp: "enable_rls",
    DisableRLSOp: "disable_rls",
    ForceRLSOp: "force_rls",
    NoForceRLSOp: "no_force_rls",
}
# Of op, type checkers know what Alembic itself brings.
_IMPORT: Final = "from moorage_postgres.migrations import pg_op"
_WIDTH: Final = 90  # and four for the function around it


def _call(context: AutogenContext, name: str, *arguments: Any, **options: Any) -> str:
    """Return a call, on one line if it fits."""
    written = [repr(argument) for argument in arguments]
    written += [f"{option}={value!r}" for option, value in options.items() if value is not None]
    context.imports.add(_IMPORT)
    function = f"pg_op.{name}"
    line = f"{function}({', '.join(written)})"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{function}(", *(f"    {argument}," for argument in written), ")"])


@renderers.dispatch_for(EnableRLSOp)
@renderers.dispatch_for(DisableRLSOp)
@renderers.dispatch_for(ForceRLSOp)
@renderers.dispatch_for(NoForceRLSOp)
def _render_switch(context: AutogenContext, op: AlterProtectionOp) -> str:
    return _call(context, _SWITCHES[type(op)], op.table_name, schema=op.schema)


@renderers.dispatch_for(CreatePolicyOp)
def _render_create_policy(context: AutogenContext, op: CreatePolicyOp) -> str:
    rule = op.rule
    return _call(
        context,
        "create_policy",
        op.name,
        op.table_name,
        to=_short(rule.roles),
        command=None if rule.command == "all" else rule.command,
        using=rule.using,
        check=rule.check,
        restrictive=rule.restrictive or None,
        schema=op.schema,
    )


@renderers.dispatch_for(DropPolicyOp)
def _render_drop_policy(context: AutogenContext, op: DropPolicyOp) -> str:
    return _call(context, "drop_policy", op.name, op.table_name, schema=op.schema)


@renderers.dispatch_for(GrantOp)
def _render_grant(context: AutogenContext, op: GrantOp) -> str:
    return _render_privileges(context, "grant", op, to=_short(op.roles))


@renderers.dispatch_for(RevokeOp)
def _render_revoke(context: AutogenContext, op: RevokeOp) -> str:
    return _render_privileges(context, "revoke", op, from_=_short(op.roles))


def _render_privileges(context: AutogenContext, name: str, op: AlterGrantOp, **roles: Any) -> str:
    kind = None if op.kind == "table" else op.kind
    privileges = _short(op.privileges)
    return _call(context, name, privileges, op.table_name, **roles, kind=kind, schema=op.schema)


@renderers.dispatch_for(ReloadAPIOp)
def _render_reload(context: AutogenContext, _: ReloadAPIOp) -> str:
    return _call(context, "reload_api")


@renderers.dispatch_for(OneWayOps)
def _render_all(context: AutogenContext, op: OneWayOps) -> list[str]:
    return [render_op_text(context, one) for one in op.ops]


def _short(names: Iterable[str]) -> Any:
    several = list(names)
    return several[0] if len(several) == 1 else several
