"""Options of the PostgreSQL connector, read from ``DB_POSTGRES_<OPTION>``."""

from __future__ import annotations

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


class PostgresOptions(ConnectorOptions):
    """What can be chosen about PostgreSQL beyond the core settings."""

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
