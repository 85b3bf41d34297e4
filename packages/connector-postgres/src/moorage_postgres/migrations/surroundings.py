"""What is in the database beside the user's own: schemas of others, and Alembic's own table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, text

from moorage_postgres.migrations.comparison import API_ROLES, RELOADS_API

__all__ = ["migration_options"]

logger: logging.Logger = logging.getLogger("moorage.postgres")

_PLACES = text(
    "SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relname = :name AND c.relkind IN ('r', 'p') AND n.nspname IN (:here, :before)"
)


def migration_options(
    given: Mapping[str, Any],
    connection: Connection | None,
    *,
    foreign_schemas: Iterable[str],
    version_schema: str | None,
    api_roles: Iterable[str],
    reloads_api: bool,
) -> dict[str, Any]:
    """
    Return what Alembic has to be told.

    Args:
        given: What ``env.py`` tells it.
        connection: To look where the version table is.
        foreign_schemas: Schemas that are somebody else's.
        version_schema: Where a new version table goes.
        api_roles: Roles that have on a table what is declared, and nothing else.
        reloads_api: Whether each revision tells PostgREST to read the schema again.
    """
    foreign = frozenset(foreign_schemas)
    options: dict[str, Any] = {API_ROLES: tuple(api_roles), RELOADS_API: reloads_api}
    if foreign:
        options |= {"include_name": _names(foreign), "include_object": _objects(foreign)}
    if version_schema is not None and "version_table_schema" not in given:
        name = given.get("version_table", "alembic_version")
        options["version_table_schema"] = _find(connection, name, version_schema)
    return options


def _names(foreign: frozenset[str]) -> Callable[..., bool]:
    def include(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        schema = name if kind == "schema" else parents.get("schema_name")
        return schema not in foreign

    return include


def _objects(foreign: frozenset[str]) -> Callable[..., bool]:
    def include(item: Any, *_: Any) -> bool:
        # A foreign key to one of their tables is ours, and so is the table that it is on.
        return not (isinstance(item, Table) and item.schema in foreign)

    return include


def _find(connection: Connection | None, name: str, schema: str) -> str | None:
    """Return where the version table is, or is to be; ``None`` is the schema of everything else."""
    if connection is None:
        return schema
    usual = connection.dialect.default_schema_name
    if schema == usual:
        return None
    values = {"name": name, "here": schema, "before": usual}
    places = set(connection.scalars(_PLACES, values))
    if places != {usual}:
        return schema
    logger.warning(
        "%s is in schema %s, which an API may serve; move it once no older release runs:"
        " CREATE SCHEMA IF NOT EXISTS %s; ALTER TABLE %s.%s SET SCHEMA %s",
        *(name, usual, schema, usual, name, schema),
    )
    return None
