"""What protects the tables of a database, read from its catalog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from moorage_postgres.protection import (
    PUBLIC,
    PolicyCommand,
    PolicyRule,
    create_policy,
    qualified,
    quoted,
)

__all__ = ["FoundProtection", "all_privileges", "normalised", "read_protection"]

_TABLES: Final = text(
    "SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity,"
    " pg_get_userbyid(c.relowner) AS owner"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
)
_POLICIES: Final = text(
    "SELECT schemaname, tablename, policyname, permissive, roles::text[] AS roles,"
    " lower(cmd) AS cmd, qual, with_check FROM pg_policies"
)
_GRANTS: Final = text(
    "SELECT n.nspname, c.relname, coalesce(r.rolname, 'public') AS role,"
    " lower(acl.privilege_type) AS privilege"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " CROSS JOIN aclexplode(c.relacl) AS acl LEFT JOIN pg_roles AS r ON r.oid = acl.grantee"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND acl.grantee <> c.relowner"
)
# Sequences that a column counts with; those of identity columns are the table's own affair.
_SEQUENCES: Final = text(
    "SELECT n.nspname, c.relname, s.relname AS sequence, coalesce(r.rolname, 'public') AS role,"
    " lower(acl.privilege_type) AS privilege"
    " FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'"
    " JOIN pg_class AS c ON c.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " LEFT JOIN aclexplode(s.relacl) AS acl ON acl.grantee <> s.relowner"
    " LEFT JOIN pg_roles AS r ON r.oid = acl.grantee"
    " WHERE d.deptype = 'a' AND d.classid = 'pg_class'::regclass"
    " AND d.refclassid = 'pg_class'::regclass"
)
_ALL: Final = text("SELECT lower(privilege_type) FROM aclexplode(acldefault('r', 10))")
# Temporary tables come first otherwise, and the copy would stand for the table in sub-selects.
_COPY_LAST: Final = text(
    "SELECT set_config('search_path',"
    " concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp'), true)"
)
_EXPRESSIONS: Final = text(
    "SELECT pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)"
    " FROM pg_policy WHERE polrelid = CAST(:place AS regclass) AND polname = :name"
)


@dataclass
class FoundProtection:
    """
    What protects one table.

    Attributes:
        owner: Who needs no grant.
        is_enabled: Whether row level security is on.
        is_forced: Whether it holds for the owner as well.
        policies: By name.
        grants: Privileges by role, without the owner.
        counting: For each sequence that counts keys, rights on it by role.
    """

    owner: str
    is_enabled: bool
    is_forced: bool
    policies: dict[str, PolicyRule] = field(default_factory=dict)
    grants: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    counting: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def lacks(self, role: str, privilege: str) -> bool:
        """Return whether a role cannot do something, be it for want of a sequence."""
        if privilege not in self.grants.get(role, ()):
            return True
        return privilege == "insert" and any(
            "usage" not in rights.get(role, ()) for rights in self.counting.values()
        )

    def privileges(self, role: str) -> set[str]:
        """Return what a role has, INSERT also if it is only a right on a sequence."""
        counts = any(rights.get(role) for rights in self.counting.values())
        return self.grants.get(role, set()) | ({"insert"} if counts else set())

    def roles(self) -> set[str]:
        """Return who has anything."""
        return {*self.grants, *(role for rights in self.counting.values() for role in rights)}


def read_protection(connection: Connection) -> dict[tuple[str, str], FoundProtection]:
    """Return what protects each table, by schema and name."""
    found = {
        (row.nspname, row.relname): FoundProtection(
            row.owner, row.relrowsecurity, row.relforcerowsecurity
        )
        for row in connection.execute(_TABLES)
    }
    for table, row in _known(connection.execute(_POLICIES), found):
        table.policies[row.policyname] = PolicyRule(
            row.policyname,
            tuple(row.roles),
            row.qual,
            row.with_check,
            cast("PolicyCommand", row.cmd),
            row.permissive == "RESTRICTIVE",
        )
    for table, row in _known(connection.execute(_GRANTS), found):
        table.grants[row.role].add(row.privilege)
    for table, row in _known(connection.execute(_SEQUENCES), found):
        rights = table.counting.setdefault(row.sequence, defaultdict(set))
        if row.privilege is not None:
            rights[row.role].add(row.privilege)
    return found


def _known(
    rows: Iterable[Any], found: dict[tuple[str, str], FoundProtection]
) -> Iterator[tuple[FoundProtection, Any]]:
    for row in rows:
        table = found.get((row[0], row[1]))
        if table is not None:
            yield table, row


def all_privileges(connection: Connection) -> set[str]:
    """Return what ALL means on a table of this server."""
    return set(connection.scalars(_ALL))


def normalised(
    connection: Connection, table: tuple[str, str], rules: Sequence[PolicyRule]
) -> dict[str, PolicyRule]:
    """
    Return policies with their expressions as the server writes them, by name.

    The server writes them itself: for a moment they are made on an empty, temporary copy of the
    table, which takes no lock that matters. Left out are those that the table, as it is, does not
    understand, such as one about a column that it does not have yet.
    """
    schema, name = table
    copy = f"pg_temp.{quoted(name)}"
    found: dict[str, PolicyRule] = {}
    savepoint = connection.begin_nested()
    try:
        connection.execute(_COPY_LAST)
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {quoted(name)} (LIKE {qualified(name, schema)})"
        )
        for rule in rules:
            try:
                with connection.begin_nested():
                    connection.execute(create_policy(copy, replace(rule, roles=(PUBLIC,))))
            except DBAPIError:
                continue
            using, check = connection.execute(
                _EXPRESSIONS, {"place": copy, "name": rule.name}
            ).one()
            found[rule.name] = replace(rule, using=using, check=check)
    finally:
        savepoint.rollback()
    return found
