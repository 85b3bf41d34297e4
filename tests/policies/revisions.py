"""What autogenerate writes for models, to be run at once on the same connection."""

from collections.abc import Callable
from textwrap import dedent
from typing import Any

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, text

from moorage import Database, DatabaseSettings, get_connector
from moorage.migrations.rendering import describe, render_item
from moorage_postgres import SupabaseConnector

MODELS = """
import uuid
from sqlalchemy import ForeignKey, Index, MetaData, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from moorage.models import Conventions, IntegerKey, UUIDKey
from moorage_postgres import Grant, Policy, RowLevelSecurity, auth_users, own_rows


class Base(Conventions, DeclarativeBase):
    pass
"""
IMPORTS = """
import sqlalchemy as sa
import moorage.models
from moorage_postgres.migrations import pg_op
"""
ROLES = ("anon", "authenticated", "service_role")
ALL = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"})


def classes(code: str) -> dict[str, Any]:
    """Return the models that are written in a test, by name."""
    names: dict[str, Any] = {"__name__": "models"}
    exec(MODELS + dedent(code), names)  # noqa: S102 (a test's own models)
    return names


def models(code: str) -> MetaData:
    """Return the catalogue of models that are written in a test."""
    metadata: MetaData = classes(code)["Base"].metadata
    return metadata


def supabase_options(connection: Connection, **given: Any) -> dict[str, Any]:
    """Return what Alembic is told about a project of Supabase."""
    connector = get_connector(DatabaseSettings(type="supabase", user="postgres", _env_file=None))
    assert isinstance(connector, SupabaseConnector)
    return {**connector.get_migration_options(given, connection), **given}


class Revision:
    """
    A revision that was written from models, and is not applied yet.

    Attributes:
        upgrade: The code of its upgrade.
        downgrade: The code of its downgrade.
        differences: What it is for, in sentences.
    """

    def __init__(
        self, connection: Connection, metadata: MetaData, options: dict[str, Any] | None = None
    ) -> None:
        given = supabase_options(connection) if options is None else options
        self._context = MigrationContext.configure(
            connection, opts={"target_metadata": metadata, **given}
        )
        script = produce_migrations(self._context, metadata)
        assert script.upgrade_ops is not None
        assert script.downgrade_ops is not None
        self.differences = [
            sentence for one in script.upgrade_ops.as_diffs() for sentence in describe(one)
        ]
        self.upgrade, self.downgrade = (
            dedent("    " + render_python_code(ops, render_item=render_item))
            for ops in (script.upgrade_ops, script.downgrade_ops)
        )

    def run(self, code: str | None = None) -> None:
        """Run the upgrade, or other code of a revision."""
        names: dict[str, Any] = {"op": Operations(self._context)}
        code = self.upgrade if code is None else dedent(code)
        with Operations.context(self._context):
            exec(f"{IMPORTS}{code}", names)  # noqa: S102


async def within(database: Database, work: Callable[[Connection], Any]) -> Any:
    """Do synchronous work on a connection, as migrations do, in one transaction."""
    async with database.engine.begin() as connection:
        return await connection.run_sync(work)


def migrate(connection: Connection, code: str) -> Revision:
    """Write the revision for these models, apply it, and return it; nothing may be left."""
    revision = Revision(connection, models(code))
    revision.run()
    assert Revision(connection, models(code)).differences == []
    return revision


def protection(connection: Connection) -> dict[str, Any]:
    """Return all that protects the tables in `public`: switches, policies and who may what."""
    queries = {
        "switches": "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
        "policies": "SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check"
        " FROM pg_policies WHERE schemaname = 'public' ORDER BY 1, 2",
    }
    found = {
        what: [tuple(row) for row in connection.execute(text(query))]
        for what, query in queries.items()
    }
    return {**found, "rights": rights(connection)}


def rights(connection: Connection) -> dict[tuple[str, str], set[str]]:
    """Return who may do what with each table in `public` and with its counter, asked directly."""
    rows = connection.execute(
        text(
            "SELECT t.tablename, r.role, p.name FROM pg_tables AS t,"
            " unnest(CAST(:roles AS text[])) AS r(role),"
            " unnest(CAST(:privileges AS text[])) AS p(name)"
            " WHERE t.schemaname = 'public' AND has_table_privilege(r.role, t.tablename, p.name)"
            " UNION ALL SELECT replace(s.sequencename, '_id_seq', ''), r.role, p.name || ' COUNTER'"
            " FROM pg_sequences AS s, unnest(CAST(:roles AS text[])) AS r(role),"
            " unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS p(name)"
            " WHERE s.schemaname = 'public'"
            " AND has_sequence_privilege(r.role, s.sequencename, p.name)"
        ),
        {"roles": list(ROLES), "privileges": sorted(ALL)},
    )
    found: dict[tuple[str, str], set[str]] = {}
    for table, role, privilege in rows:
        found.setdefault((table, role), set()).add(privilege)
    return found
