"""
What protects a table, as data, and the statements that make it so.

Nothing here knows models or Alembic: the same statements serve migrations, and tables that
``metadata.create_all`` makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import DDL
from sqlalchemy.dialects import postgresql

__all__ = [
    "PUBLIC",
    "Grantable",
    "PolicyCommand",
    "PolicyRule",
    "create_policy",
    "drop_policy",
    "grant",
    "qualified",
    "quoted",
    "reload_api",
    "revoke",
    "revoke_from_all",
    "set_forced",
    "set_row_level_security",
]

PolicyCommand = Literal["all", "select", "insert", "update", "delete"]
Grantable = Literal["table", "sequence", "schema", "function"]

PUBLIC: Final = "public"
"""Everybody, where a role is named."""

_quote = postgresql.dialect().identifier_preparer.quote

# Whoever inserts needs the sequences that count keys; identity columns need no right of their own.
_SEQUENCES: Final = """DO $do$
DECLARE counter regclass;
BEGIN
  FOR counter IN
    SELECT depends.objid FROM pg_depend AS depends JOIN pg_class ON pg_class.oid = depends.objid
    WHERE depends.refobjid = {table}::regclass AND depends.deptype = 'a'
      AND depends.classid = 'pg_class'::regclass AND depends.refclassid = 'pg_class'::regclass
      AND pg_class.relkind = 'S'
  LOOP
    EXECUTE 'GRANT USAGE ON SEQUENCE ' || counter || {to};
  END LOOP;
END $do$"""
_NO_SEQUENCES: Final = _SEQUENCES.replace("GRANT USAGE", "REVOKE ALL")

# Default privileges give a new table away before anybody could say to whom.
_FROM_ALL: Final = """DO $do$
DECLARE granted record;
BEGIN
  FOR granted IN
    SELECT pg_class.oid::regclass AS place, pg_class.relkind AS kind,
      CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END AS role
    FROM pg_class, aclexplode(pg_class.relacl) AS acl
    WHERE acl.grantee <> pg_class.relowner AND (pg_class.oid = {table}::regclass
      OR pg_class.relkind = 'S' AND pg_class.oid IN (SELECT objid FROM pg_depend
        WHERE refobjid = {table}::regclass AND deptype = 'a' AND classid = 'pg_class'::regclass))
  LOOP
    EXECUTE 'REVOKE ALL ON ' || CASE granted.kind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
      || granted.place || ' FROM ' || granted.role;
  END LOOP;
END $do$"""


@dataclass(frozen=True)
class PolicyRule:
    """
    One policy, apart from its table.

    Attributes:
        name: Unique in its table.
        roles: To whom it applies.
        using: Which rows are there for them.
        check: Which rows they may write.
        command: For which statements.
        restrictive: Whether it takes away from what others permit, instead of adding.
    """

    name: str
    roles: tuple[str, ...]
    using: str | None = None
    check: str | None = None
    command: PolicyCommand = "all"
    restrictive: bool = False


def quoted(name: str) -> str:
    """Return a name as it is written in SQL."""
    return str(_quote(name))


def qualified(table: str, schema: str | None) -> str:
    """Return the name of a table as it is written in SQL."""
    return f"{quoted(schema)}.{quoted(table)}" if schema else quoted(table)


def set_row_level_security(table: str, *, enabled: bool) -> DDL:
    """Switch row level security on or off; ``table`` is a name as :func:`qualified` returns it."""
    return _ddl(f"ALTER TABLE {table} {'ENABLE' if enabled else 'DISABLE'} ROW LEVEL SECURITY")


def set_forced(table: str, *, forced: bool) -> DDL:
    """Bind the table's owner to the policies as well, or no longer."""
    return _ddl(f"ALTER TABLE {table} {'FORCE' if forced else 'NO FORCE'} ROW LEVEL SECURITY")


def create_policy(table: str, rule: PolicyRule) -> DDL:
    """Make a policy."""
    lines = [f"CREATE POLICY {quoted(rule.name)} ON {table}"]
    if rule.restrictive:
        lines.append("AS RESTRICTIVE")
    lines.append(f"FOR {rule.command.upper()} TO {_roles(rule.roles)}")
    if rule.using is not None:
        lines.append(f"USING ({rule.using})")
    if rule.check is not None:
        lines.append(f"WITH CHECK ({rule.check})")
    return _ddl("\n  ".join(lines))


def drop_policy(table: str, name: str, *, if_exists: bool = False) -> DDL:
    """Drop a policy."""
    condition = "IF EXISTS " if if_exists else ""
    return _ddl(f"DROP POLICY {condition}{quoted(name)} ON {table}")


def grant(privileges: Sequence[str], kind: Grantable, on: str, roles: Sequence[str]) -> list[DDL]:
    """Give privileges; INSERT on a table comes with what counts its keys."""
    to = f" TO {_roles(roles)}"
    given = [_ddl(f"GRANT {_privileges(privileges)} ON {kind.upper()} {on}{to}")]
    if kind == "table" and _may_insert(privileges):
        given.append(_ddl(_SEQUENCES.format(table=_literal(on), to=_literal(to))))
    return given


def revoke(privileges: Sequence[str], kind: Grantable, on: str, roles: Sequence[str]) -> list[DDL]:
    """Take privileges back; with INSERT on a table goes what counts its keys."""
    of = f" FROM {_roles(roles)}"
    taken = [_ddl(f"REVOKE {_privileges(privileges)} ON {kind.upper()} {on}{of}")]
    if kind == "table" and _may_insert(privileges):
        taken.append(_ddl(_NO_SEQUENCES.format(table=_literal(on), to=_literal(of))))
    return taken


def revoke_from_all(table: str) -> DDL:
    """Take every privilege back from everybody but the owner, whoever was given one."""
    return _ddl(_FROM_ALL.format(table=_literal(table)))


def reload_api() -> DDL:
    """Tell PostgREST, when the transaction commits, that the schema has changed."""
    return _ddl("NOTIFY pgrst, 'reload schema'")


def _roles(roles: Iterable[str]) -> str:
    return ", ".join("PUBLIC" if role == PUBLIC else quoted(role) for role in roles)


def _privileges(privileges: Sequence[str]) -> str:
    return ", ".join(privilege.upper() for privilege in privileges)


def _may_insert(privileges: Iterable[str]) -> bool:
    return not {"all", "insert"}.isdisjoint(privileges)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _ddl(statement: str) -> DDL:
    return DDL(statement.replace("%", "%%"))  # it formats what it is given
