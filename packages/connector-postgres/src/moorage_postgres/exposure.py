"""
What a schema gives away that is served over HTTP, by PostgREST on Supabase or elsewhere.

The server's catalog is asked, and nothing is changed. Findings of the grave kind have the names
that Supabase's own advisor gives them; each has SQL that mends it, or the beginning of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal, get_args

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import SettingsError

__all__ = [
    "EXPOSURES",
    "ROLES",
    "Exposure",
    "ExposureFinding",
    "Severity",
    "find_exposures",
    "served_schemas",
]

Severity = Literal["error", "warning", "info"]
"""How grave a finding is."""

ROLES: Final = ("anon", "authenticated")


@dataclass(frozen=True)
class Exposure:
    """
    A kind of finding.

    Attributes:
        severity: How grave it is.
        why: Why it matters.
        query: Rows of what was found: the object, what is wrong with it, and SQL that mends it.
    """

    severity: Severity
    why: str
    query: str


@dataclass(frozen=True)
class ExposureFinding:
    """
    One thing that is wrong.

    Attributes:
        code: Its kind; see :data:`EXPOSURES`.
        name: The object, quoted where it must be.
        what: What was found.
        fix: SQL, to be read before it is run.
    """

    code: str
    name: str
    what: str
    fix: str

    @property
    def severity(self) -> Severity:
        """Return how grave it is."""
        return EXPOSURES[self.code].severity

    @property
    def why(self) -> str:
        """Return why it matters."""
        return EXPOSURES[self.code].why

    def __str__(self) -> str:
        return f"{self.code} {self.severity}: {self.what}\n    why: {self.why}\n    do: {self.fix}"


_DATA: Final = tomllib.loads(
    files("moorage_postgres").joinpath("exposures.toml").read_text(encoding="utf-8")
)
_PRELUDE: Final[str] = _DATA.pop("prelude")

EXPOSURES: Final[dict[str, Exposure]] = {code: Exposure(**kind) for code, kind in _DATA.items()}
"""All kinds of findings, by code."""

# In one question, so that all of it is about the same moment.
_ALL: Final = text(
    _PRELUDE
    + " UNION ALL ".join(
        f"SELECT '{code}', f.* FROM ({kind.query}) AS f (name, what, fix)"  # noqa: S608 (ours)
        for code, kind in EXPOSURES.items()
    )
).bindparams(*(bindparam(name, type_=ARRAY(Text)) for name in ("schemas", "roles")))
_SERVED: Final = text(
    """
    SELECT coalesce(
        nullif(current_setting('pgrst.db_schemas', true), ''),
        (
            SELECT substr(setting, length('pgrst.db_schemas=') + 1)
            FROM pg_db_role_setting AS s
            LEFT JOIN pg_roles AS r ON r.oid = s.setrole
            LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
            CROSS JOIN unnest(s.setconfig) AS setting
            WHERE setting LIKE 'pgrst.db_schemas=%' AND coalesce(r.rolname, 'authenticator')
                = 'authenticator' AND coalesce(d.datname, current_database()) = current_database()
            ORDER BY s.setdatabase DESC LIMIT 1
        ),
        'public'
    )
    """
)
_KNOWN: Final = text("SELECT rolname::text FROM pg_roles WHERE rolname = ANY (:roles)").bindparams(
    bindparam("roles", type_=ARRAY(Text))
)


async def served_schemas(connection: AsyncConnection) -> list[str]:
    """Return what PostgREST was told in the database (``pgrst.db_schemas``), else ``public``."""
    served = str(await connection.scalar(_SERVED))
    return [name.strip().strip('"') for name in served.split(",") if name.strip()]


async def find_exposures(
    connection: AsyncConnection,
    *,
    schemas: Sequence[str] | None = None,
    roles: Sequence[str] = ROLES,
) -> list[ExposureFinding]:
    """
    Return what is wrong with the schemas that are served, the gravest first.

    Only the catalog is read, so that any user who may connect will do.

    Args:
        connection: To the database.
        schemas: The schemas that are served; left out: :func:`served_schemas`.
        roles: The roles that requests work as, of which one must be there.

    Raises:
        SettingsError: None of the roles is there.
    """
    known = list(await connection.scalars(_KNOWN, {"roles": list(roles)}))
    if not known:
        raise SettingsError(
            f"there is no role {' or '.join(roles)} on this server",
            hint="name the roles that requests work as (--role), or connect to the database that is"
            " served",
        )
    if schemas is None:
        schemas = await served_schemas(connection)
    rows = await connection.execute(_ALL, {"schemas": list(schemas), "roles": known})
    found = sorted(tuple(map(str, row)) for row in rows)
    findings = [ExposureFinding(*row) for row in found]
    return sorted(findings, key=lambda finding: get_args(Severity).index(finding.severity))
