"""What a connector has to say about migrations, joined with what ``env.py`` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateSchema

from moorage.abilities import ShapesMigrations
from moorage.connector import DBConnector

__all__ = ["make_version_schema", "shaped"]


def shaped(
    given: dict[str, Any], connector: DBConnector, connection: Connection | None
) -> dict[str, Any]:
    """
    Return the arguments of ``context.configure``: those of ``env.py`` count more.

    Args:
        given: What ``env.py`` gives.
        connector: Who may have defaults and filters.
        connection: Without a transaction, and left so; ``None`` where SQL is only written.
    """
    if not isinstance(connector, ShapesMigrations):
        return given
    needed: Mapping[str, Any] = connector.get_migration_options(given, connection)
    if connection is not None:
        connection.rollback()
    together = {**needed, **given}
    for name in ("include_name", "include_object"):
        asked = [one[name] for one in (given, needed) if one.get(name) is not None]
        if len(asked) == 2:
            together[name] = _both(*asked)
    return together


def _both(one: Callable[..., bool], other: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *arguments: one(*arguments) and other(*arguments)


def make_version_schema(connection: Connection, schema: str | None) -> None:
    """Make the schema of the version table, which Alembic expects to be there."""
    if schema is None:
        return
    # Asked first: who may not make one is refused even where it is there.
    if not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema, if_not_exists=True))
    connection.commit()
