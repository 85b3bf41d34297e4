"""
What a PostgreSQL server says of itself and of the way to it, asked so that it does no harm.

Whether there is a pooler shows in a number: at the login the server names the process that serves
the connection, and a pooler, which cannot know it yet, makes one up.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import RowMapping, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from moorage import Database, ServerFacts, ServerFault, TLSState
from moorage_postgres.poolers import PoolerMode

if TYPE_CHECKING:
    from moorage_postgres.connector import PostgresConnector
    from moorage_postgres.driver import Driver

__all__ = ["examine_server"]

# The first that drops a database with whoever is connected to it.
_OLDEST: Final = (13,)
_SHOWN_TABLES: Final = 3
_ROUNDS: Final = 3
_ROUNDS_SECONDS: Final = 10.0

_PROCESS: Final = text("SELECT pg_backend_pid()")
_QUESTION: Final = text(
    """
    SELECT current_setting('server_version') AS version,
        current_setting('server_version_num')::int AS number,
        current_setting('TimeZone') AS time_zone,
        pg_encoding_to_char(d.encoding) AS encoding,
        current_setting('max_connections')::int AS all_connections,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
        d.datconnlimit AS of_database,
        login.rolname AS login,
        login.rolconnlimit AS of_login,
        login.rolsuper AS login_is_superuser,
        worker.rolname AS worker,
        worker.rolsuper AS is_superuser,
        worker.rolbypassrls AS bypasses,
        s.ssl AS is_encrypted
    FROM pg_database AS d
    JOIN pg_roles AS login ON login.rolname = session_user
    JOIN pg_roles AS worker ON worker.rolname = current_user
    LEFT JOIN pg_stat_ssl AS s ON s.pid = pg_backend_pid()
    WHERE d.datname = current_database()
    """
)
# Tables with a policy for everybody, or for this very user. What is meant for others alone, such
# as the roles of an API, holds for those.
_POLICED: Final = text(
    """
    SELECT c.relname AS name,
        pg_has_role(current_user, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity AS is_free
    FROM pg_class AS c
    WHERE c.relrowsecurity AND pg_table_is_visible(c.oid) AND EXISTS (
        SELECT FROM pg_policy AS p JOIN pg_roles AS r ON r.rolname = current_user
        WHERE p.polrelid = c.oid AND p.polroles && ARRAY[0::oid, r.oid]
    )
    ORDER BY c.relname
    """
)


async def examine_server(connector: PostgresConnector, engine: AsyncEngine) -> ServerFacts:
    """Return what the server says to a connection of ``engine``, and what is wrong with it."""
    found = await _find_pooler(connector)
    if fault := _pooler_fault(connector, found):
        # A statement with a name could get the answer to somebody else's.
        return ServerFacts("PostgreSQL behind a pooler", faults=(fault,))
    async with engine.connect() as connection:
        said = (await connection.execute(_QUESTION)).mappings().one()
        tls = await _tls(connector, connection)
        faults = [_encoding_fault(said), await _policies_fault(connector, connection, said)]
    limit, limited_by = _limit(said)
    return ServerFacts(
        f"PostgreSQL {said['version']}",
        release=divmod(said["number"], 10000),
        oldest_release=_OLDEST,
        tls=tls,
        # Behind a pooler that shares connections, many clients get by with few.
        connection_limit=None if connector.pooler == "transaction" else limit,
        limited_by=limited_by,
        time_zone=said["time_zone"],
        details=_details(connector, found, tls, said),
        faults=tuple(fault for fault in faults if fault is not None),
    )


async def _find_pooler(connector: PostgresConnector) -> PoolerMode:
    """Return what is in between, by statements that are right whatever it is."""
    careful = copy.copy(connector)
    careful.create_engine = partial(  # type: ignore[method-assign]  # of this copy alone
        _plain_engine, careful.create_engine, connector.driver
    )
    careful.pooler = "direct"  # nothing is set on a connection that may be somebody else's
    careful.settings = connector.settings.replaced("examination", pool_size=2, max_overflow=0)
    async with Database(connector=careful) as database, database.engine.connect() as one:
        told = connector.driver.process_of((await one.get_raw_connection()).driver_connection)
        process = await _process(one)
        await one.rollback()
        if process == told:
            return "direct"
        if connector.pooler == "transaction":
            return "transaction"  # or the other one, for which it is right as well
        async with database.engine.connect() as other:
            return "transaction" if await _are_shared(one, other) else "session"


def _plain_engine(create_engine: Callable[[], AsyncEngine], driver: Driver) -> AsyncEngine:
    """Return an engine that asks at the login for nothing a pooler refuses, and names nothing."""
    engine = create_engine()

    @event.listens_for(engine.sync_engine, "do_connect")
    def say_less(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
        driver.log_in_plainly(cparams)

    return engine


async def _process(connection: AsyncConnection) -> int:
    return int((await connection.execute(_PROCESS)).scalar_one())


async def _are_shared(one: AsyncConnection, other: AsyncConnection) -> bool:
    """Return whether the server's processes are shared out anew to each transaction."""
    try:
        async with asyncio.timeout(_ROUNDS_SECONDS):
            for _ in range(_ROUNDS):
                before = await _process(one)
                await one.rollback()
                # What `one` left is free to be taken, but where it is kept for it.
                if await _process(other) == before or await _process(one) != before:
                    return True
                await one.rollback()
                await other.rollback()
    except TimeoutError:
        pass  # one waits for what the pooler keeps for the other
    return False


def _pooler_fault(connector: PostgresConnector, found: PoolerMode) -> ServerFault | None:
    declared, variable = connector.pooler, connector.option_variable("pooler")
    if declared == "transaction" or found in {"direct", declared}:
        return None  # what is right behind a pooler in transaction mode is right everywhere
    return ServerFault(
        "C407",
        f"there is a pooler in {found} mode between here and the server, and the settings say"
        f" {declared}",
        f"set {variable}={found}, or connect past the pooler",
    )


def _encoding_fault(said: RowMapping) -> ServerFault | None:
    encoding = said["encoding"]
    if encoding == "UTF8":
        return None
    return ServerFault(
        "C411",
        f"the encoding of the database is {encoding}, not UTF8",
        "make a database with ENCODING 'UTF8' TEMPLATE template0, and copy the rows",
    )


async def _policies_fault(
    connector: PostgresConnector, connection: AsyncConnection, said: RowMapping
) -> ServerFault | None:
    """Return whether there are policies for this user that do not hold for it."""
    if connector.options.require_identity:
        return None  # nobody works as this user but those who mean to
    tables = (await connection.execute(_POLICED)).mappings().all()
    bypasses = said["is_superuser"] or said["bypasses"]
    names = [table["name"] for table in tables if bypasses or table["is_free"]]
    if not names:
        return None
    reason = "owns them, and FORCE ROW LEVEL SECURITY is off"
    if bypasses:
        reason = "is a superuser" if said["is_superuser"] else "has BYPASSRLS"
    more = len(names) - _SHOWN_TABLES
    listed = ", ".join(names[:_SHOWN_TABLES]) + (f" and {more} more" if more > 0 else "")
    return ServerFault(
        "C408",
        f"the policies of {listed} do not hold for user {said['worker']}, who {reason}",
        "log in as a role without BYPASSRLS that owns no table, or set"
        f" {connector.option_variable('require_identity')}=true, so that no session works without"
        " an identity",
    )


async def _tls(connector: PostgresConnector, connection: AsyncConnection) -> TLSState | None:
    if connector.settings.hosts[0].is_socket:
        return None
    raw = await connection.get_raw_connection()
    return connector.driver.tls_of(raw.driver_connection)


def _limit(said: RowMapping) -> tuple[int, str]:
    """Return how many connections the server lets in, and what says so."""
    whole, reserved = said["all_connections"], said["reserved"]
    limits = [(whole - reserved, f"max_connections is {whole}, of which {reserved} are reserved")]
    if not said["login_is_superuser"]:  # whom these do not bind
        limits += [
            (said["of_login"], f"CONNECTION LIMIT of user {said['login']}"),
            (said["of_database"], "CONNECTION LIMIT of the database"),
        ]
    return min(limit for limit in limits if limit[0] >= 0)


def _details(
    connector: PostgresConnector, found: PoolerMode, tls: TLSState | None, said: RowMapping
) -> dict[str, str]:
    declared = connector.pooler
    is_none = found == "direct" and declared != "direct"
    details = {"pooler": f"{declared} is declared, and none is there" if is_none else found}
    if tls is not None and tls.protocol and said["is_encrypted"] is False:
        details["encryption at the server"] = "none: something in between takes it off"
    return details
