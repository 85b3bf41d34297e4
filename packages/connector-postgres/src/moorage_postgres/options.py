"""Options of the PostgreSQL connector, read from ``DB_POSTGRES_<OPTION>``."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from moorage import ConnectorOptions


def parse_server_settings(value: object) -> object:
    """
    Read ``work_mem=64MB,random_page_cost=1.1`` or libpq's ``-c work_mem=64MB -c …``.

    Raises:
        ValueError: Says what is wrong.
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("-"):
        words = [word for word in shlex.split(value) if word != "-c"]
        items = [word.removeprefix("-c").removeprefix("--") for word in words]
    else:
        items = [item.strip() for item in value.split(",") if item.strip()]
    settings = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ValueError("is not of the form name=value,name=value")
        settings[name.strip()] = text.strip()
    return settings


def parse_names(value: object) -> object:
    """Read ``anon,authenticated``."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


def parse_seconds(value: object) -> object:
    """
    Read ``anon=3,authenticated=8``.

    Raises:
        ValueError: Says what is wrong.
    """
    if not isinstance(value, str):
        return value
    seconds = {}
    for item in parse_names(value):  # type: ignore[attr-defined]  # of text, a tuple
        name, equals, number = item.partition("=")
        if not equals or not re.fullmatch(r"\d+(\.\d+)?", number.strip()):
            raise ValueError("is not of the form role=seconds,role=seconds")
        seconds[name.strip()] = float(number)
    return seconds


class PostgresOptions(ConnectorOptions):
    """What can be chosen about PostgreSQL beyond the core settings."""

    driver: Literal["asyncpg", "psycopg"] = Field(
        "asyncpg",
        description="What speaks to the server: `asyncpg`, or `psycopg` (psycopg 3, the extra"
        " `moorage-postgres[psycopg]`).",
    )
    pooler: Literal["auto", "direct", "session", "transaction"] = Field(
        "auto",
        description="What is between us and the server: nothing (`direct`), or a pooler in"
        " `session` or `transaction` mode; `auto` knows Supabase's hosts and poolers' ports.",
    )
    search_path: str | None = Field(None, description="Schemas in which names are looked up.")
    jit: bool = Field(
        False,
        description="JIT compilation; it makes asyncpg's look-up of types take seconds.",
    )
    prepared_statements: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="Statements that each connection keeps prepared; 0 behind a pooler that shares"
        " connections between transactions.",
    )
    server_settings: Annotated[dict[str, str], BeforeValidator(parse_server_settings)] = Field(
        default_factory=dict,
        description="Further run-time parameters, as `work_mem=64MB,random_page_cost=1.1`.",
    )
    maintenance_database: str = Field(
        "postgres",
        description="Database to connect to while the one of `DB_NAME` is created or dropped.",
    )
    identity_roles: Annotated[tuple[str, ...], BeforeValidator(parse_names)] = Field(
        (),
        description="Roles on whose behalf sessions may work (row level security), as"
        " `anon,authenticated`; on Supabase these two.",
    )
    require_identity: bool = Field(
        False, description="Refuse sessions that work on nobody's behalf."
    )
    admin_role: str | None = Field(
        None, description="Role of sessions with `identity=ADMIN`; unset: the user's own rights."
    )
    role_statement_timeouts: Annotated[dict[str, float], BeforeValidator(parse_seconds)] = Field(
        default_factory=dict,
        description="Longest run of one statement on a role's behalf, in seconds, as"
        " `anon=3,authenticated=8`.",
    )
    foreign_schemas: Annotated[tuple[str, ...], BeforeValidator(parse_names)] = Field(
        (),
        description="Schemas that migrations leave alone, as `audit,cron`; on Supabase its own.",
    )
    version_table_schema: str | None = Field(
        None,
        description="Schema of the table in which migrations note what was applied; on Supabase"
        " `moorage`, which no API serves.",
    )


# What a project comes with, and what extensions make that Supabase offers.
_SUPABASE_SCHEMAS = (
    *("_analytics", "_realtime", "_supabase", "_supavisor", "auth", "cron", "dbdev", "extensions"),
    *("graphql", "graphql_public", "net", "pgbouncer", "pgmq", "pgmq_public", "pgroonga"),
    *("pgsodium", "pgsodium_masks", "pgtle", "realtime", "repack", "storage"),
    *("supabase_functions", "supabase_migrations", "tiger", "tiger_data", "topology", "vault"),
    *("timescaledb_experimental", "timescaledb_information", "_timescaledb_cache"),
    *("_timescaledb_catalog", "_timescaledb_config", "_timescaledb_debug"),
    *("_timescaledb_functions", "_timescaledb_internal"),
)


class SupabaseOptions(PostgresOptions):
    """The same, with what every project of Supabase has."""

    identity_roles: Annotated[tuple[str, ...], BeforeValidator(parse_names)] = Field(
        ("anon", "authenticated"), description="Roles on whose behalf sessions may work."
    )
    foreign_schemas: Annotated[tuple[str, ...], BeforeValidator(parse_names)] = Field(
        _SUPABASE_SCHEMAS, description="Schemas that migrations leave alone: Supabase's own."
    )
    version_table_schema: str | None = Field(
        "moorage",
        description="Schema of the table in which migrations note what was applied.",
    )
