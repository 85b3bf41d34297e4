"""
Operations on what protects tables, for ``op`` in revisions, each with its inverse.

They are there as soon as this module was imported, which ``moorage.migrations.run`` sees to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation, OpContainer
from sqlalchemy import DDL

from moorage import MigrationError
from moorage_postgres import protection as ddl
from moorage_postgres.expressions import asked_per_row
from moorage_postgres.protection import Grantable, PolicyCommand, PolicyRule

__all__ = [
    "AlterGrantOp",
    "AlterPolicyOp",
    "AlterProtectionOp",
    "CreatePolicyOp",
    "DisableRLSOp",
    "DropPolicyOp",
    "EnableRLSOp",
    "ForceRLSOp",
    "GrantOp",
    "NoForceRLSOp",
    "OneWayOps",
    "ReloadAPIOp",
    "RevokeOp",
]

logger: logging.Logger = logging.getLogger("moorage.postgres")


class AlterProtectionOp(MigrateOperation):
    """What changes the protection of one table: the base of all these operations."""

    keyword: ClassVar[str]

    def __init__(self, table_name: str, *, schema: str | None = None) -> None:
        self.table_name = table_name
        self.schema = schema

    @property
    def place(self) -> str:
        """The name of the table, as it is written in SQL."""
        return ddl.qualified(self.table_name, self.schema)

    def statements(self) -> Iterable[DDL]:
        """Return what is to be executed."""
        raise NotImplementedError

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what ``moorage db check`` tells."""
        return (self.keyword, _Named(self.table_name, self.schema))


class _Named:
    """A thing with a name, perhaps of a table, as the differences of Alembic have them."""

    def __init__(self, name: str, schema: str | None, table: str | None = None) -> None:
        self.name = name
        self.schema = schema
        if table is not None:
            self.table = _Named(table, schema)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _SwitchOp(AlterProtectionOp):
    inverse: ClassVar[type[AlterProtectionOp]]

    def reverse(self) -> AlterProtectionOp:
        """Return the switch the other way."""
        return self.inverse(self.table_name, schema=self.schema)

    @classmethod
    def switch(cls, operations: Operations, table_name: str, *, schema: str | None = None) -> None:
        """Do it to a table."""
        operations.invoke(cls(table_name, schema=schema))


@Operations.register_operation("enable_rls", "switch")
class EnableRLSOp(_SwitchOp):
    """Switch row level security on: nobody but the owner sees a row without a policy."""

    keyword = "add_row_level_security"

    def statements(self) -> Iterable[DDL]:
        """Return ALTER TABLE … ENABLE."""
        return [ddl.set_row_level_security(self.place, enabled=True)]


@Operations.register_operation("disable_rls", "switch")
class DisableRLSOp(_SwitchOp):
    """Switch row level security off; policies stay, and wait."""

    keyword = "remove_row_level_security"

    def statements(self) -> Iterable[DDL]:
        """Return ALTER TABLE … DISABLE."""
        return [ddl.set_row_level_security(self.place, enabled=False)]


@Operations.register_operation("force_rls", "switch")
class ForceRLSOp(_SwitchOp):
    """Bind the owner of the table to its policies too."""

    keyword = "add_forced_row_level_security"

    def statements(self) -> Iterable[DDL]:
        """Return ALTER TABLE … FORCE."""
        return [ddl.set_forced(self.place, forced=True)]


@Operations.register_operation("no_force_rls", "switch")
class NoForceRLSOp(_SwitchOp):
    """Let the owner of the table pass its policies."""

    keyword = "remove_forced_row_level_security"

    def statements(self) -> Iterable[DDL]:
        """Return ALTER TABLE … NO FORCE."""
        return [ddl.set_forced(self.place, forced=False)]


EnableRLSOp.inverse, DisableRLSOp.inverse = DisableRLSOp, EnableRLSOp
ForceRLSOp.inverse, NoForceRLSOp.inverse = NoForceRLSOp, ForceRLSOp


class AlterPolicyOp(AlterProtectionOp):
    """What makes or drops one policy."""

    def __init__(
        self, name: str, table_name: str, rule: PolicyRule | None, *, schema: str | None = None
    ) -> None:
        super().__init__(table_name, schema=schema)
        self.name = name
        self.rule = rule

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what ``moorage db check`` tells."""
        return (self.keyword, _Named(self.name, self.schema, self.table_name))


@Operations.register_operation("create_policy")
class CreatePolicyOp(AlterPolicyOp):
    """Make a policy; in ``using`` and ``check`` is SQL, as in CREATE POLICY."""

    keyword = "add_policy"
    rule: PolicyRule

    def statements(self) -> Iterable[DDL]:
        """Return CREATE POLICY."""
        return [ddl.create_policy(self.place, self.rule)]

    def reverse(self) -> DropPolicyOp:
        """Return what drops it."""
        return DropPolicyOp(self.name, self.table_name, self.rule, schema=self.schema)

    @classmethod
    def create_policy(
        cls,
        operations: Operations,
        name: str,
        table_name: str,
        *,
        to: str | Sequence[str],
        using: str | None = None,
        check: str | None = None,
        command: PolicyCommand = "all",
        restrictive: bool = False,
        schema: str | None = None,
    ) -> None:
        """Make a policy; arguments are those of :class:`moorage_postgres.Policy`."""
        rule = PolicyRule(name, _listed(to), using, check, command, restrictive)
        for call in [one for text in (using, check) if text for one in asked_per_row(text)]:
            logger.warning(
                "policy %r of %s asks %s() again for each row: write it as (select %s(…))",
                *(name, table_name, call, call),
            )
        operations.invoke(cls(name, table_name, rule, schema=schema))


@Operations.register_operation("drop_policy")
class DropPolicyOp(AlterPolicyOp):
    """Drop a policy."""

    keyword = "remove_policy"

    def statements(self) -> Iterable[DDL]:
        """Return DROP POLICY."""
        return [ddl.drop_policy(self.place, self.name)]

    def reverse(self) -> CreatePolicyOp:
        """Return what makes it again."""
        if self.rule is None:
            raise ValueError("nothing is known of the policy but its name")
        return CreatePolicyOp(self.name, self.table_name, self.rule, schema=self.schema)

    @classmethod
    def drop_policy(
        cls, operations: Operations, name: str, table_name: str, *, schema: str | None = None
    ) -> None:
        """Drop a policy of a table."""
        operations.invoke(cls(name, table_name, None, schema=schema))


class AlterGrantOp(AlterProtectionOp):
    """What gives or takes privileges."""

    def __init__(
        self,
        privileges: Sequence[str],
        on: str,
        roles: Sequence[str],
        *,
        kind: Grantable = "table",
        schema: str | None = None,
    ) -> None:
        super().__init__(on, schema=schema)
        self.privileges: tuple[str, ...] = tuple(privileges)
        self.roles: tuple[str, ...] = tuple(roles)
        self.kind = kind

    @property
    def place(self) -> str:
        """The name as it is written in SQL; a function is named with its arguments, as it is."""
        if self.kind != "function":
            return super().place
        return f"{ddl.quoted(self.schema)}.{self.table_name}" if self.schema else self.table_name

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what ``moorage db check`` tells."""
        what = f"{', '.join(self.privileges)} to {', '.join(self.roles)}"
        return (self.keyword, _Named(what, self.schema, self.table_name))


@Operations.register_operation("grant")
class GrantOp(AlterGrantOp):
    """Give privileges to roles."""

    keyword = "add_grant"

    def statements(self) -> Iterable[DDL]:
        """Return GRANT, for a table also on the sequences that count its keys."""
        return ddl.grant(self.privileges, self.kind, self.place, self.roles)

    def reverse(self) -> RevokeOp:
        """Return what takes them back."""
        return RevokeOp(
            self.privileges, self.table_name, self.roles, kind=self.kind, schema=self.schema
        )

    @classmethod
    def grant(
        cls,
        operations: Operations,
        privileges: str | Sequence[str],
        on: str,
        *,
        to: str | Sequence[str],
        kind: Grantable = "table",
        schema: str | None = None,
    ) -> None:
        """
        Give privileges on a table, or on a sequence, schema or function (``kind``).

        INSERT on a table comes with the right to count its keys.
        """
        operations.invoke(cls(_listed(privileges), on, _listed(to), kind=kind, schema=schema))


@Operations.register_operation("revoke")
class RevokeOp(AlterGrantOp):
    """Take privileges from roles."""

    keyword = "remove_grant"

    def statements(self) -> Iterable[DDL]:
        """Return REVOKE, for a table also on the sequences that count its keys."""
        return ddl.revoke(self.privileges, self.kind, self.place, self.roles)

    def reverse(self) -> GrantOp:
        """Return what gives them again."""
        return GrantOp(
            self.privileges, self.table_name, self.roles, kind=self.kind, schema=self.schema
        )

    @classmethod
    def revoke(
        cls,
        operations: Operations,
        privileges: str | Sequence[str],
        on: str,
        *,
        from_: str | Sequence[str],
        kind: Grantable = "table",
        schema: str | None = None,
    ) -> None:
        """Take privileges back; the arguments are those of ``grant``."""
        operations.invoke(cls(_listed(privileges), on, _listed(from_), kind=kind, schema=schema))


@Operations.register_operation("reload_api")
class ReloadAPIOp(MigrateOperation):
    """Let PostgREST read the schema again, once the transaction of the revision is committed."""

    ops: ClassVar[tuple[MigrateOperation, ...]] = ()  # to Alembic: nothing that differs

    def statements(self) -> Iterable[DDL]:
        """Return NOTIFY."""
        return [ddl.reload_api()]

    def reverse(self) -> Self:
        """Return the same: what is undone is a change as well."""
        return self

    @classmethod
    def reload_api(cls, operations: Operations) -> None:
        """Let PostgREST read the schema again, when the transaction is committed."""
        operations.invoke(cls())


class OneWayOps(OpContainer):
    """
    Operations of one direction, where a whole table comes or goes in the other one.

    Who drops a table need not revoke anything; who makes it again has to protect it again.
    """

    def __init__(
        self, forward: Sequence[MigrateOperation], backward: Sequence[MigrateOperation] = ()
    ) -> None:
        super().__init__(forward)
        self.backward = backward

    def reverse(self) -> OneWayOps:
        """Return the operations of the other direction."""
        return OneWayOps(self.backward, self.ops)


@Operations.implementation_for(AlterProtectionOp)
@Operations.implementation_for(ReloadAPIOp)
def _execute(operations: Operations, operation: AlterProtectionOp | ReloadAPIOp) -> None:
    dialect = operations.get_context().dialect.name
    if dialect != "postgresql":
        raise MigrationError(
            f"row level security is PostgreSQL's, and this database speaks {dialect}",
            hint="leave the operation out where op.get_context().dialect.name is another one",
        )
    for statement in operation.statements():
        operations.execute(statement)


@Operations.implementation_for(OneWayOps)
def _execute_all(operations: Operations, operation: OneWayOps) -> None:
    for one in operation.ops:
        operations.invoke(one)


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
