"""
What autogenerate finds: the difference of declared protection and that of the database.

Compared are only tables about which something is declared; what others have is left alone. What
goes is written before the changes of tables and columns, which a policy may stand in the way of,
and what comes behind them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AlterColumnOp,
    CreateTableOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.util import DispatchPriority
from sqlalchemy import Connection, Table

from moorage_postgres.expressions import compared_columns
from moorage_postgres.migrations.catalog import (
    FoundProtection,
    all_privileges,
    normalised,
    read_protection,
)
from moorage_postgres.migrations.operations import (
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
from moorage_postgres.policies import Protection, has_index, protection_of
from moorage_postgres.protection import PUBLIC, PolicyRule

__all__ = ["API_ROLES", "RELOADS_API"]

API_ROLES: Final = "moorage_api_roles"
"""Key among Alembic's options: roles that have on a table what is declared, and nothing else."""

RELOADS_API: Final = "moorage_reloads_api"
"""Key among Alembic's options: whether each revision tells PostgREST to read the schema again."""

_ORDER: Final = ("select", "insert", "update", "delete")

logger: logging.Logger = logging.getLogger("moorage.postgres")

_Place = tuple[str, str]


# The last of all: by then it is known which tables come and go.
@comparators.dispatch_for("autogenerate", qualifier="postgresql", priority=DispatchPriority.LAST)
def compare_protection(context: AutogenContext, upgrade_ops: UpgradeOps) -> None:
    """Add what is missing, drop what is not declared, and replace what has changed."""
    connection = context.connection
    assert connection is not None
    default = context.dialect.default_schema_name or PUBLIC
    found = read_protection(connection)
    comparison = _Comparison(context, connection)
    made, retyped = set(), set()
    for op in upgrade_ops.ops:
        if isinstance(op, CreateTableOp):
            made.add((op.schema or default, op.table_name))
        elif isinstance(op, DropTableOp):
            place = (op.schema or default, op.table_name)
            if place in found:
                comparison.drop(op, found[place])
        elif isinstance(op, ModifyTableOps) and _retypes(op):
            retyped.add((op.schema or default, op.table_name))
    for table in context.sorted_tables:
        declared = protection_of(table)
        place = (table.schema or default, table.name)
        if declared is None:
            if place in made and comparison.api_roles:
                logger.warning(
                    "table %s has no row level security, and what a project gives to %s by default"
                    " is theirs: put own_rows(…) or RowLevelSecurity() among its arguments",
                    *(table.fullname, ", ".join(comparison.api_roles)),
                )
            continue
        if place in made:
            comparison.make(table, declared)
        elif place in found and _is_looked_at(context, table):
            is_retyped = place in retyped
            comparison.compare(table, place, declared, found[place], is_retyped=is_retyped)
        _warn(table, declared)
    upgrade_ops.ops[:] = [*comparison.before, *upgrade_ops.ops, *comparison.after]
    if upgrade_ops.ops and context.opts.get(RELOADS_API):
        upgrade_ops.ops.append(ReloadAPIOp())


class _Comparison:
    def __init__(self, context: AutogenContext, connection: Connection) -> None:
        self.before: list[MigrateOperation] = []
        self.after: list[MigrateOperation] = []
        self._context = context
        self._connection = connection
        self.api_roles: tuple[str, ...] = tuple(context.opts.get(API_ROLES, ()))
        self._all = all_privileges(connection)

    def make(self, table: Table, declared: Protection) -> None:
        """Protect a new table, whatever the default privileges of the server give away."""
        name, schema = table.name, table.schema
        grants = {role: self._meant(wanted) for role, wanted in declared.grants.items()}
        switches = self._switches(name, schema, declared.is_enabled, declared.is_forced)
        self.after.append(OneWayOps([*switches, *self._grants(name, schema, grants)]))
        for rule in declared.policies.values():
            self.after.append(CreatePolicyOp(rule.name, name, rule, schema=schema))

    def drop(self, op: DropTableOp, found: FoundProtection) -> None:
        """Let the policies go before any table, and remember what protected this one."""
        name, schema = op.table_name, op.schema
        for rule in found.policies.values():
            self.before.append(DropPolicyOp(rule.name, name, rule, schema=schema))
        if found.is_enabled:
            grants = {role: found.privileges(role) for role in found.roles()}
            switches = self._switches(name, schema, True, found.is_forced)
            self.before.append(OneWayOps([], [*switches, *self._grants(name, schema, grants)]))

    def compare(
        self,
        table: Table,
        place: _Place,
        declared: Protection,
        found: FoundProtection,
        *,
        is_retyped: bool,
    ) -> None:
        """Compare a table that is there."""
        name, schema = table.name, table.schema
        if declared.is_enabled != found.is_enabled:
            switch = EnableRLSOp if declared.is_enabled else DisableRLSOp
            self.after.append(switch(name, schema=schema))
        if declared.is_forced != found.is_forced:
            force = ForceRLSOp if declared.is_forced else NoForceRLSOp
            self.after.append(force(name, schema=schema))
        self._compare_grants(table, declared, found)
        same = self._unchanged(place, declared.policies, found.policies)
        for policy, rule in found.policies.items():
            if policy not in declared.policies and not self._is_ours(policy, table):
                continue
            if policy not in same or is_retyped:
                self.before.append(DropPolicyOp(policy, name, rule, schema=schema))
        for policy, rule in declared.policies.items():
            if policy not in same or is_retyped:
                self.after.append(CreatePolicyOp(policy, name, rule, schema=schema))

    def _is_ours(self, policy: str, table: Table) -> bool:
        """Return whether ``include_name`` of ``env.py`` lets us look at a policy."""
        kind: Any = "policy"
        parents: Any = {"table_name": table.name, "schema_name": table.schema}
        return self._context.run_name_filters(policy, kind, parents)

    def _unchanged(
        self,
        place: _Place,
        declared: Mapping[str, PolicyRule],
        found: Mapping[str, PolicyRule],
    ) -> set[str]:
        both = [rule for policy, rule in declared.items() if policy in found]
        if not both:
            return set()
        written = normalised(self._connection, place, both)
        return {name for name, rule in written.items() if _key(rule) == _key(found[name])}

    def _compare_grants(self, table: Table, declared: Protection, found: FoundProtection) -> None:
        missing: dict[str, set[str]] = {}
        extra: dict[str, set[str]] = {}
        for role in sorted({*self.api_roles, *declared.grants, PUBLIC} - {found.owner}):
            wanted = self._meant(declared.grants.get(role, ()))
            missing[role] = {one for one in wanted if found.lacks(role, one)}
            extra[role] = found.privileges(role) - wanted
        for privileges, roles in self._together(extra):
            self.after.append(RevokeOp(privileges, table.name, roles, schema=table.schema))
        # To set a counter is more than to use it.
        for counter, rights in found.counting.items():
            more = {
                role: rights.get(role, set()) - {"usage"}
                for role in missing
                if "insert" in self._meant(declared.grants.get(role, ()))
            }
            for privileges, roles in self._together(more):
                self.after.append(
                    RevokeOp(privileges, counter, roles, kind="sequence", schema=table.schema)
                )
        for privileges, roles in self._together(missing):
            self.after.append(GrantOp(privileges, table.name, roles, schema=table.schema))

    def _meant(self, privileges: Iterable[str]) -> set[str]:
        given = set(privileges)
        return self._all if "all" in given else given

    def _switches(
        self, name: str, schema: str | None, is_enabled: bool, is_forced: bool
    ) -> list[MigrateOperation]:
        switches: list[MigrateOperation] = []
        if is_enabled:
            switches.append(EnableRLSOp(name, schema=schema))
        if is_forced:
            switches.append(ForceRLSOp(name, schema=schema))
        return switches

    def _grants(
        self, name: str, schema: str | None, grants: Mapping[str, set[str]]
    ) -> list[MigrateOperation]:
        """Return what leaves these privileges alone, whatever a new table comes with."""
        roles = dict.fromkeys([*self.api_roles, *sorted(grants)])
        ops: list[MigrateOperation] = []
        if roles:
            ops.append(RevokeOp(("all",), name, tuple(roles), schema=schema))
        for privileges, those in self._together(grants):
            ops.append(GrantOp(privileges, name, those, schema=schema))
        return ops

    def _together(
        self, grants: Mapping[str, set[str]]
    ) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return privileges with all the roles that have just these."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for role, privileges in grants.items():
            if privileges:
                short = ("all",) if privileges == self._all else _sorted(privileges)
                groups.setdefault(short, []).append(role)
        return [(privileges, tuple(roles)) for privileges, roles in groups.items()]


def _sorted(privileges: set[str]) -> tuple[str, ...]:
    usual = [one for one in _ORDER if one in privileges]
    return (*usual, *sorted(privileges.difference(usual)))


def _key(rule: PolicyRule) -> tuple[Any, ...]:
    return (frozenset(rule.roles), rule.using, rule.check, rule.command, rule.restrictive)


def _retypes(ops: ModifyTableOps) -> bool:
    """Return whether a type changes, which the server refuses under a policy."""
    return any(isinstance(op, AlterColumnOp) and op.modify_type is not None for op in ops.ops)


def _is_looked_at(context: AutogenContext, table: Table) -> bool:
    schema = table.schema
    parents: Any = {"schema_name": schema}
    return (
        context.run_name_filters(schema, "schema", {})
        and context.run_name_filters(table.name, "table", parents)
        and context.run_object_filters(table, table.name, "table", False, None)
    )


def _warn(table: Table, declared: Protection) -> None:
    """Say what is slow, or cannot work."""
    for rule in declared.policies.values():
        names = [column.name for column in table.columns]
        for text in filter(None, (rule.using, rule.check)):
            for column in compared_columns(text, names):
                if not has_index(table, (column,)):
                    logger.warning(
                        "policy %r of %s looks for %s, with which no index begins: give it"
                        " index=%r, or an index of yours",
                        *(rule.name, table.fullname, column, column),
                    )
        for role in rule.roles:
            if not rule.restrictive and not {role, PUBLIC} & declared.grants.keys():
                logger.warning(
                    "policy %r of %s is for %s, whom no Grant gives anything: put Grant(…, to=%r)"
                    " beside it",
                    *(rule.name, table.fullname, role, role),
                )
