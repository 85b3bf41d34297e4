"""
``moorage supabase``: commands for who serves a database over HTTP.

The extra ``moorage[cli]`` is needed; nothing of it is imported before a command line is made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from moorage import Database, DatabaseSettings, SettingsError, get_connector
from moorage_postgres.connector import PostgresConnector
from moorage_postgres.exposure import (
    ROLES,
    ExposureFinding,
    Severity,
    find_exposures,
    served_schemas,
)

if TYPE_CHECKING:
    import typer

__all__ = ["supabase"]

_SEVERITIES = get_args(Severity)


def supabase() -> typer.Typer:
    """Return the commands below ``moorage supabase``."""
    import typer

    group = typer.Typer(no_args_is_help=True, help="Look at a database that is served over HTTP.")

    @group.callback()
    def about() -> None:
        """Look at a database that is served over HTTP."""

    schemas = typer.Option(
        [], "--schema", help="A schema that is served; default: what PostgREST was told."
    )
    roles = typer.Option(list(ROLES), "--role", help="A role that requests work as.")
    levels = ", ".join((*_SEVERITIES, "never"))

    @group.command()
    def lint(
        schema: list[str] = schemas,
        role: list[str] = roles,
        fail_on: str = typer.Option(
            "error", "--fail-on", help=f"How grave what lets it exit with 1 is: {levels}."
        ),
        prefix: str = typer.Option("DB_", "--prefix", help="Prefix of the database's variables."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Look for what the API gives away, and for what it cannot work with."""
        if fail_on not in {*_SEVERITIES, "never"}:
            raise typer.BadParameter(f"--fail-on is one of {levels}")
        served, found = asyncio.run(_look(prefix, schema or None, role))
        if as_json:
            print(json.dumps(_data(served, found), indent=2))
        else:
            print("\n\n".join(map(str, found)) or f"nothing is wrong with {', '.join(served)}")
        grave = _SEVERITIES[: _SEVERITIES.index(fail_on) + 1] if fail_on != "never" else ()
        if any(finding.severity in grave for finding in found):
            raise typer.Exit(1)

    return group


async def _look(
    prefix: str, schemas: Sequence[str] | None, roles: Sequence[str]
) -> tuple[Sequence[str], list[ExposureFinding]]:
    settings = DatabaseSettings.from_env(prefix)
    connector = get_connector(settings)
    if not isinstance(connector, PostgresConnector):
        raise SettingsError(
            f"the database of {settings.variable('type')} is none of PostgreSQL's, which alone are"
            " served like this",
            hint=f"set {settings.variable('type')}=supabase or postgres",
        )
    async with (
        Database(connector=connector) as database,
        database.engine.connect() as connection,
    ):
        await connection.execution_options(postgresql_readonly=True)
        if schemas is None:
            schemas = await served_schemas(connection)
        return schemas, await find_exposures(connection, schemas=schemas, roles=roles)


def _data(schemas: Sequence[str], found: Sequence[ExposureFinding]) -> dict[str, Any]:
    findings = [
        {**asdict(finding), "severity": finding.severity, "why": finding.why} for finding in found
    ]
    return {"is_clean": not found, "schemas": list(schemas), "findings": findings}
