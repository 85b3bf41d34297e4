"""What a MySQL or MariaDB server says of itself and of the way to it."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from moorage import DBConnector, ServerFacts, ServerFault, TLSState

__all__ = ["examine_server"]

# The first with CHECK constraints and limits for statements; the first with INSERT … RETURNING.
_OLDEST_MYSQL: Final = (8, 0, 16)
_OLDEST_MARIADB: Final = (10, 5)
_SHOWN_TABLES: Final = 3

_QUESTION: Final = text(
    "SELECT VERSION() AS version, @@SESSION.time_zone AS time_zone,"
    " @@character_set_database AS charset, @@max_connections AS all_connections,"
    # The session's is that of the user, where the user has one.
    " @@SESSION.max_user_connections AS of_user"
)
_UNSAFE_TABLES: Final = text(
    "SELECT t.TABLE_NAME AS name, t.ENGINE AS engine FROM information_schema.TABLES AS t"
    " JOIN information_schema.ENGINES AS e ON e.ENGINE = t.ENGINE"
    " WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE = 'BASE TABLE'"
    " AND e.TRANSACTIONS <> 'YES' ORDER BY t.TABLE_NAME"
)
_CHARSETS: Final = frozenset({"utf8mb4", "utf16", "utf32", "utf16le", "gb18030"})


async def examine_server(connector: DBConnector, engine: AsyncEngine) -> ServerFacts:
    """Return what the server says to a connection of ``engine``, and what is wrong with it."""
    async with engine.connect() as connection:
        dialect: Any = connection.dialect
        said = (await connection.execute(_QUESTION)).mappings().one()
        unsafe = (await connection.execute(_UNSAFE_TABLES)).mappings().all()
        tls = await _tls(connector, connection)
    faults = []
    if said["charset"] not in _CHARSETS:
        faults.append(
            ServerFault(
                "C411",
                f"the character set of the database is {said['charset']}, not utf8mb4",
                f"ALTER DATABASE {connector.settings.name} CHARACTER SET utf8mb4, and for each"
                " table that is there ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4",
            )
        )
    if unsafe:
        faults.append(_engines_fault([f"{table['name']} ({table['engine']})" for table in unsafe]))
    product = "MariaDB" if dialect.is_mariadb else "MySQL"
    version = said["version"].partition("-")[0]
    limit, limited_by = _limit(said)
    return ServerFacts(
        f"{product} {version}",
        release=tuple(map(int, re.findall(r"\d+", version))),
        oldest_release=_OLDEST_MARIADB if dialect.is_mariadb else _OLDEST_MYSQL,
        tls=tls,
        connection_limit=limit,
        limited_by=limited_by,
        time_zone=said["time_zone"],
        faults=tuple(faults),
    )


def _engines_fault(tables: list[str]) -> ServerFault:
    more = len(tables) - _SHOWN_TABLES
    listed = ", ".join(tables[:_SHOWN_TABLES]) + (f" and {more} more" if more > 0 else "")
    return ServerFault(
        "C412",
        f"no transaction holds for {listed}",
        "ALTER TABLE … ENGINE=InnoDB",
    )


async def _tls(connector: DBConnector, connection: AsyncConnection) -> TLSState | None:
    if connector.settings.hosts[0].is_socket:
        return None
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return TLSState.of(driver._writer.transport.get_extra_info("ssl_object"))


def _limit(said: RowMapping) -> tuple[int, str]:
    """Return how many connections the server lets in, and what says so."""
    whole, of_user = said["all_connections"], said["of_user"]
    if 0 < of_user < whole:
        return of_user, "max_user_connections of this user"
    return whole, f"max_connections is {whole}"
