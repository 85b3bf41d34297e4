"""
Poolers between us and the server, and what a connection through them can still do.

A pooler in *transaction* mode gives a client another connection of the server for each
transaction. Whatever belongs to a session is then somebody else's: prepared statements, which two
processes number alike, so that one gets the rows of the other's query without any error; run-time
parameters; locks, temporary tables, LISTEN. Here nothing of a session is used: statements have no
name, and what has to be set is set by the BEGIN of each transaction, for that transaction.

A pooler in *session* mode keeps one connection of the server for each client as long as the client
is there. Everything works, but poolers of both kinds refuse most parameters at the login.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, event

from moorage import (
    AuthenticationError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseSettings,
    DBConnector,
    Diagnosis,
    HostPort,
    SettingsError,
    TooManyConnectionsError,
)

__all__ = [
    "POOL_SIZES",
    "PoolerMode",
    "attach_transaction_rules",
    "diagnose_refusal",
    "is_project_host",
    "is_shared_pooler",
    "pooler_of",
    "refuse_lasting_parameters",
    "set_statements",
]

PoolerMode = Literal["direct", "session", "transaction"]
"""What is between us and the server: nothing, or a pooler of one of two kinds."""

POOL_SIZES: Final[Mapping[PoolerMode, tuple[int, int]]] = {"session": (2, 2), "transaction": (5, 5)}
"""Size and overflow of our own pool, where nobody chose them: a pooler's clients are counted."""

# Supabase's pooler for everybody, and its dedicated ones, which share a name with the server.
_SHARED: Final = ".pooler.supabase.com"
_PROJECT: Final = re.compile(r"db\.[a-z0-9]+\.supabase\.(co|com|in|red)")
_TRANSACTION_PORT: Final = 6543
# Where PgBouncer listens unless told otherwise. Whether by sessions or by transactions it does not
# say, and what is right for transactions is right for both.
_PGBOUNCER_PORT: Final = 6432


def pooler_of(settings: DatabaseSettings, default_port: int) -> tuple[PoolerMode, str]:
    """Return what hosts and ports say about a pooler, and by which of them; empty for nothing."""
    for place in settings.hosts:
        mode, reason = _pooler_at(place, default_port)
        if mode != "direct":
            return mode, reason
    return "direct", ""


def is_shared_pooler(host: str) -> bool:
    """Return whether a host is Supabase's pooler, which serves the projects of many."""
    return host.lower().rstrip(".").endswith(_SHARED)


def is_project_host(host: str) -> bool:
    """Return whether a host is that of one Supabase project, its dedicated pooler included."""
    return _PROJECT.fullmatch(host.lower().rstrip(".")) is not None


def _pooler_at(place: HostPort, default_port: int) -> tuple[PoolerMode, str]:
    host, port = place.host, place.port or default_port
    if is_shared_pooler(host):
        return ("session" if port == default_port else "transaction"), "Supabase's shared pooler"
    if port == _TRANSACTION_PORT and is_project_host(host):
        return "transaction", "Supabase's dedicated pooler"
    if port in {_TRANSACTION_PORT, _PGBOUNCER_PORT}:
        return "transaction", f"port {port}, where poolers listen"
    return "direct", ""


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")
# Lists of names: in one pair of quotes they would be one name with a comma in it.
_LISTS: Final = frozenset({"search_path", "temp_tablespaces", "createrole_self_grant"})
# They hold from the next transaction on, which may be anybody's.
_OF_THE_NEXT: Final = re.compile(r"default_transaction_\w+", re.IGNORECASE)


def refuse_lasting_parameters(names: Mapping[str, str], variable: str) -> None:
    """
    Refuse run-time parameters that cannot be set for one transaction alone.

    Raises:
        SettingsError: There are some; ``variable`` is where they were asked for.
    """
    for name in names:
        if _OF_THE_NEXT.fullmatch(name):
            raise SettingsError(
                f"{variable} sets {name}, which would hold for whoever gets the pooler's connection"
                " next",
                hint="ask each unit of work for it (isolation_level=, read_only=), or give it to"
                f" the database user: ALTER ROLE … SET {name} = …",
            )


def set_statements(
    parameters: Mapping[str, str], scope: Literal["LOCAL", "SESSION"]
) -> tuple[str, ...]:
    """
    Return the statements that set run-time parameters.

    SET takes no snapshot, unlike ``SELECT set_config(…)``: a REPEATABLE READ transaction still
    begins to look at the data with its own first statement.
    """
    return tuple(
        f"SET {scope} {_quoted_name(name)} = {_quoted_value(name, value)}"
        for name, value in parameters.items()
    )


def _quoted_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name of a run-time parameter")
    return ".".join(f'"{part}"' for part in name.split("."))


def _quoted_value(name: str, value: str) -> str:
    if name.lower() in _LISTS:
        parts = [part.strip().strip('"') for part in value.split(",")]
        return ", ".join(_literal(part) for part in parts)
    return _literal(value)


def _literal(text: str) -> str:
    # Right whether or not the server takes backslashes for escapes.
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


# What outlives a transaction. Only the beginning of a statement counts, but for functions.
_SPACE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_LASTING = re.compile(
    _SPACE + r"(?:(?P<set>set(?!\s+(?:local|transaction|constraints)\b)|reset|discard)\b"
    r"|(?P<listen>(?:un)?listen)\b"
    r"|(?P<prepare>prepare(?!\s+transaction\b)|deallocate|load)\b"
    r"|(?P<cursor>declare\b.*\bwith\s+hold\b)"
    r"|(?P<table>create\s+(?:(?:local|global)\s+)?temp(?:orary)?\b(?!.*\bon\s+commit\s+drop\b)))",
    re.IGNORECASE | re.DOTALL,
)
_LASTING_FUNCTION = re.compile(
    r"\b(?:(?P<lock>pg_(?:try_)?advisory_(?:lock|unlock)(?:_shared|_all)?)\s*\("
    r"|(?P<set>set_config)\s*\([^()]*,\s*(?:false|'f\w*')\s*\))",
    re.IGNORECASE,
)
_WHAT = {
    "set": "changes the session",
    "listen": "waits in the session",
    "prepare": "leaves something in the session",
    "cursor": "opens a cursor that outlives its transaction",
    "table": "creates a table of the session",
    "lock": "takes a lock of the session",
}
_WAY_OUT = {
    "set": "write SET LOCAL or set_config(…, true), which end with the transaction",
    "cursor": "read it in the transaction that opens it",
    "table": "write ON COMMIT DROP",
    "lock": "use pg_advisory_xact_lock(), which ends with the transaction",
}


def attach_transaction_rules(
    engine: Engine,
    settings: DatabaseSettings,
    variable: str,
    named_statements: Callable[[Mapping[str, Any]], str],
) -> None:
    """
    Refuse, on ``engine``, statements and arguments that need a session of their own.

    The error is raised before anything is sent. It is a guard against mistakes: SQL that hides
    what it does, as inside of functions, is not seen.

    Args:
        engine: The engine.
        settings: Whose variables the errors name.
        variable: Where the mode of the pooler was chosen, likewise.
        named_statements: Says by which of the driver's arguments statements get a name.
    """

    @event.listens_for(engine, "before_cursor_execute")
    def refuse_lasting(
        connection: Connection,
        cursor: object,
        statement: str,
        parameters: object,
        context: object,
        executemany: bool,
    ) -> None:
        found = _LASTING.match(statement)
        if found is None and ("advisory" in statement or "set_config" in statement):
            found = _LASTING_FUNCTION.search(statement)
        if found is not None:
            kind = str(found.lastgroup)
            direct = f"use a direct connection ({settings.variable('direct_url')})"
            raise SettingsError(
                f"a statement {_WHAT[kind]}, which belongs to somebody else behind a pooler in"
                f" transaction mode ({variable})",
                hint=f"{_WAY_OUT[kind]}, or {direct}" if kind in _WAY_OUT else direct,
            )

    @event.listens_for(engine, "do_connect")
    def refuse_caches(
        dialect: object, record: object, cargs: object, cparams: dict[str, Any]
    ) -> None:
        if named := named_statements(cparams):
            raise SettingsError(
                f"{named} gives statements a name, and behind a pooler in transaction mode"
                f" ({variable}) another process has the same name for another statement",
                hint="leave the connector's own connect_args as they are",
            )


# Poolers have one code for whatever keeps a client out, which not every driver hands on, so that
# words decide.
_REFUSALS: Final = frozenset({"08P01", "XX000", ""})
_REFUSED_FOR: Final[Mapping[str, type[DatabaseError]]] = {
    r"SASL|password|no such user|tenant or user not found": AuthenticationError,
    r"no such database|database .* does not exist": DatabaseMissingError,
    r"no more connections|max clients|EMAXCONN": TooManyConnectionsError,
}


def diagnose_refusal(connector: DBConnector, state: str, reason: str) -> Diagnosis | None:
    """Return why a pooler let nobody in; ``None`` for what did not come from a pooler."""
    if state not in _REFUSALS:
        return None
    found = (k for words, k in _REFUSED_FOR.items() if re.search(words, reason, re.IGNORECASE))
    kind = next(found, None)
    return None if kind is None else connector.diagnose(kind, reason, state)
