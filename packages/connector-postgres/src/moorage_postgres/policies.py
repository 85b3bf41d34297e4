"""
Row level security, declared beside the columns that it is about.

What is declared among a table's arguments is what autogenerate compares the database with, and what
``metadata.create_all`` makes::

    class Note(UUIDKey, Base):
        __tablename__ = "notes"
        __table_args__ = (
            own_rows("owner_id"),
            Grant("select", "insert", "update", "delete", to="authenticated"),
        )
        owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(auth_users.c.id))

On other backends it says nothing, so that the same models work there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Column, Connection, Index, MetaData, Table, UniqueConstraint, Uuid, event
from sqlalchemy.schema import SchemaItem

from moorage import MigrationError
from moorage_postgres import protection as ddl
from moorage_postgres.expressions import asked_per_row, users_own_words
from moorage_postgres.protection import PolicyCommand, PolicyRule

__all__ = [
    "Grant",
    "Policy",
    "Protection",
    "RowLevelSecurity",
    "auth_users",
    "has_index",
    "own_rows",
    "protection_of",
]

auth_users: Final = Table("users", MetaData(), Column("id", Uuid, primary_key=True), schema="auth")
"""Supabase's table of users, for ``ForeignKey(auth_users.c.id)``; nobody's catalogue has it."""


@dataclass
class Protection:
    """
    All that is declared about one table.

    Attributes:
        policies: By name.
        grants: Privileges by role.
        is_enabled: Whether row level security is on.
        is_forced: Whether it holds for the table's owner as well.
    """

    policies: dict[str, PolicyRule] = field(default_factory=dict)
    grants: dict[str, set[str]] = field(default_factory=dict)
    is_enabled: bool = True
    is_forced: bool = False


# Not in Table.info: autogenerate writes that into revisions.
_declared: WeakKeyDictionary[Table, Protection] = WeakKeyDictionary()
_watched: WeakSet[MetaData] = WeakSet()


def protection_of(table: Table) -> Protection | None:
    """Return what is declared about a table, or ``None`` if nothing is."""
    return _declared.get(table)


class _Declaration(SchemaItem):
    """An argument of a table; the same one may be given to several, as mixins do."""

    def __init__(self) -> None:
        event.listen(self, "after_parent_attach", _attach)

    def declare(self, table: Table, protection: Protection) -> None:
        """Add to what is declared about ``table``."""
        raise NotImplementedError


def _attach(item: _Declaration, table: Any) -> None:
    if not isinstance(table, Table):
        raise MigrationError(
            f"{item!r} is no argument of a table",
            hint="put it into __table_args__, or behind the columns of Table(…)",
        )
    if table not in _declared:
        _declared[table] = Protection()
        # Copies of the table inherit this, but no declaration: they are shut, not open.
        shut = partial(_shut, _declared[table])
        event.listen(table, "after_create", shut, propagate=True)
    if table.metadata not in _watched:
        _watched.add(table.metadata)
        event.listen(table.metadata, "after_create", _open)
        event.listen(table.metadata, "before_drop", _unbind)
    item.declare(table, _declared[table])


class Policy(_Declaration):
    """
    A policy: which rows exist for whom, and which they may write.

    What tells who the user is (``auth.uid()``, ``auth.jwt()``, ``current_setting(…)``) must stand
    in a sub-select of its own, ``(select auth.uid())``: it is asked once per statement then, and
    otherwise once per row, which is many times slower.

    Args:
        name: Unique in its table.
        to: The roles it is for; name them, so that it is not evaluated for all others. Everybody
            is ``public``.
        using: Rows that are there, an expression of SQL.
        check: Rows that may be written; as ``using`` where that is left out.
        command: ``all``, ``select``, ``insert``, ``update`` or ``delete``.
        restrictive: Take away from what other policies permit.
        index: Columns that the expressions look for; they get an index unless one begins with them.

    Raises:
        MigrationError: It asks for each row who the user is, believes what users write about
            themselves, or says nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        to: str | Sequence[str],
        using: str | None = None,
        check: str | None = None,
        command: PolicyCommand = "all",
        restrictive: bool = False,
        index: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.rule: PolicyRule = PolicyRule(name, _roles(to), using, check, command, restrictive)
        self.index: tuple[str, ...] = _names(index)
        _refuse(self.rule)

    def __repr__(self) -> str:
        return f"Policy({self.rule.name!r})"

    def declare(self, table: Table, protection: Protection) -> None:
        """Add the policy, and its index."""
        name = self.rule.name
        if protection.policies.setdefault(name, self.rule) is not self.rule:
            raise MigrationError(
                f"table {table.fullname} has two policies {name!r}", hint="give each its own name"
            )
        if missing := [column for column in self.index if column not in table.c]:
            raise MigrationError(
                f"policy {name!r} of {table.fullname} is about {', '.join(missing)}, which is no"
                " column of it",
                hint="name columns as the database does; in Table(…) policies come behind columns",
            )
        if self.index and not has_index(table, self.index):
            Index(None, *(table.c[column] for column in self.index))


def own_rows(
    column: str,
    *,
    to: str | Sequence[str] = "authenticated",
    user: str = "auth.uid()",
    command: PolicyCommand = "all",
    name: str = "own_rows",
) -> Policy:
    """
    Return the policy that each user has the rows that belong to them, in its fast shape.

    Args:
        column: Whose rows they are; it gets an index unless one begins with it.
        to: The roles it is for.
        user: What tells who the user is; it is put into a sub-select.
        command: For which statements.
        name: Of the policy.
    """
    condition = f"{ddl.quoted(column)} = (select {user})"
    inserts = command == "insert"
    return Policy(
        name,
        to=to,
        using=None if inserts else condition,
        check=condition if inserts else None,
        command=command,
        index=column,
    )


class Grant(_Declaration):
    """
    Privileges of roles on a table: all that they shall have.

    As soon as anything is declared about a table, autogenerate takes away what no ``Grant`` gives
    to the roles of the API, so that it does not matter what a project's default privileges gave.
    INSERT comes with the right to count keys.

    Args:
        *privileges: ``select``, ``insert``, ``update``, ``delete``, ``all`` …
        to: The roles.
    """

    def __init__(self, *privileges: str, to: str | Sequence[str]) -> None:
        super().__init__()
        self.privileges: tuple[str, ...] = tuple(one.lower() for one in privileges)
        self.roles: tuple[str, ...] = _roles(to)
        if not self.privileges or not self.roles:
            raise MigrationError(
                "a Grant gives nothing, or to nobody",
                hint='write it as Grant("select", to="authenticated")',
            )

    def __repr__(self) -> str:
        return f"Grant({', '.join(map(repr, self.privileges))}, to={self.roles!r})"

    def declare(self, table: Table, protection: Protection) -> None:
        """Add the privileges."""
        for role in self.roles:
            protection.grants.setdefault(role, set()).update(self.privileges)


class RowLevelSecurity(_Declaration):
    """
    Row level security where no policy says it already: without policies it lets nobody in.

    Args:
        enabled: ``False`` says that a table is open to whoever has a grant, and means it.
        force: Bind the table's owner as well; who has BYPASSRLS, as Supabase's ``postgres``, passes
            anyway.
    """

    def __init__(self, *, enabled: bool = True, force: bool = False) -> None:
        super().__init__()
        self.enabled = enabled
        self.force = force

    def __repr__(self) -> str:
        return f"RowLevelSecurity(enabled={self.enabled}, force={self.force})"

    def declare(self, table: Table, protection: Protection) -> None:
        """Add the switch."""
        protection.is_enabled, protection.is_forced = self.enabled, self.force


def has_index(table: Table, columns: Sequence[str]) -> bool:
    """Return whether an index of the table begins with these columns, keys included."""
    rules: list[Any] = [table.primary_key, *table.indexes]
    rules += [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    beginnings = [
        {column.name for column in list(rule.columns)[: len(columns)]}
        for rule in rules
        if not (isinstance(rule, Index) and rule.dialect_kwargs.get("postgresql_where") is not None)
    ]
    return set(columns) in beginnings


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _roles(names: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(ddl.PUBLIC if name == "PUBLIC" else name for name in _names(names))


def _refuse(rule: PolicyRule) -> None:
    """Refuse a policy that is slow, unsafe or no policy at all."""
    if not rule.roles:
        raise MigrationError(
            f"policy {rule.name!r} is for nobody", hint='name its roles: to="authenticated"'
        )
    if rule.command == "insert" and rule.using is not None:
        raise MigrationError(
            f"policy {rule.name!r} is for INSERT, which has no rows to look at",
            hint="write its expression as check=",
        )
    if rule.command in {"select", "delete"} and rule.check is not None:
        raise MigrationError(
            f"policy {rule.name!r} is for {rule.command.upper()}, which writes no rows to check",
            hint="write its expression as using=",
        )
    expressions = [text for text in (rule.using, rule.check) if text is not None]
    if not expressions:
        raise MigrationError(
            f"policy {rule.name!r} has neither using= nor check=",
            hint='rows for all of its roles are using="true"',
        )
    for text in expressions:
        if calls := asked_per_row(text):
            raise MigrationError(
                f"policy {rule.name!r} asks {calls[0]}() again for each row of a query",
                hint=f"put the call into a sub-select of its own, (select {calls[0]}(…)), which is"
                " asked once",
            )
        if users_own_words(text):
            raise MigrationError(
                f"policy {rule.name!r} believes user_metadata, which users write themselves",
                hint="use app_metadata, or a table of yours",
            )


def _is_ours(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _shut(protection: Protection, table: Table, connection: Connection, **_: Any) -> None:
    """Give a table that was just made to those alone who are declared."""
    if not _is_ours(connection):
        return
    name = ddl.qualified(table.name, table.schema)
    connection.execute(ddl.revoke_from_all(name))
    if protection.is_enabled:
        connection.execute(ddl.set_row_level_security(name, enabled=True))
    if protection.is_forced:
        connection.execute(ddl.set_forced(name, forced=True))
    for role, privileges in sorted(protection.grants.items()):
        for statement in ddl.grant(sorted(privileges), "table", name, (role,)):
            connection.execute(statement)


def _open(_: MetaData, connection: Connection, tables: Sequence[Table] = (), **__: Any) -> None:
    """Make the policies, once all tables that they may look into are there."""
    for table in tables if _is_ours(connection) else ():
        for rule in (protection_of(table) or Protection()).policies.values():
            name = ddl.qualified(table.name, table.schema)
            connection.execute(ddl.create_policy(name, rule))


def _unbind(_: MetaData, connection: Connection, tables: Sequence[Table] = (), **__: Any) -> None:
    """Drop the policies before the tables that they may look into."""
    for table in tables if _is_ours(connection) else ():
        for name in (protection_of(table) or Protection()).policies:
            place = ddl.qualified(table.name, table.schema)
            connection.execute(ddl.drop_policy(place, name, if_exists=True))
