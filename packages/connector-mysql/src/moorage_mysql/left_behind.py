"""
The statement that a cancelled task leaves on the server, ended by a connection of its own.

The driver closes the socket of a connection whose task is cancelled, and the server does not look
at it before it has an answer to send: an UPDATE goes on for as long as it takes, and keeps its
locks. MariaDB limits each statement in time, MySQL those that only read; neither knows that nobody
waits any more.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PATIENCE_SECONDS", "end_statement"]

logger: logging.Logger = logging.getLogger("moorage.mysql")

PATIENCE_SECONDS = 2.0
"""How long the whole of it may take: the server may be what the task was waiting for in vain."""

# What of a statement is looked at: servers show the list of statements in three bytes a character.
_ASCII = re.compile(r"[\t\n\r\x20-\x7e]{1,1000}")
# The list has moved on MySQL, which warns of the old place; the comments are read as SQL by MariaDB
# (M!) and by MySQL from 8.0.22 on.
_IS_RUNNING = (
    "SELECT COUNT(*) FROM /*M!100301 information_schema */ /*!80022 performance_schema */"
    " .processlist WHERE id = %s AND command = 'Query'"
    " AND user = SUBSTRING_INDEX(USER(), '@', 1) AND LEFT(info, %s) = %s"
)


async def end_statement(
    open_connection: Callable[[], Awaitable[Any]], connection_id: int, sql: str
) -> bool:
    """
    End ``sql`` on the server, if that is what the connection of this id is running.

    The server may have been restarted behind a link that did not tell, or have another behind the
    same address; the id is a stranger's there. So nothing is ended but this user's statement with
    the same text, and on a server that has given out the id before this connection's.

    Args:
        open_connection: Opens another one to the same server.
        connection_id: The server's number of the connection.
        sql: As it was sent.

    Returns:
        Whether something was ended; a failure is logged, and nobody else's business.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            connection = await open_connection()
            try:
                return await _end(connection, connection_id, sql)
            finally:
                connection.close()
    except Exception as error:  # noqa: BLE001 (who was cancelled is told of that alone)
        logger.info("a statement that nobody waits for may go on: %s", repr(error))
        return False


async def _end(connection: Any, connection_id: int, sql: str) -> bool:
    beginning = _ASCII.match(sql.lstrip())
    if beginning is None or connection.thread_id() <= connection_id:
        return False
    async with connection.cursor() as cursor:
        text = beginning[0]
        await cursor.execute(_IS_RUNNING, (connection_id, len(text), text))
        (count,) = await cursor.fetchone()
        if count:
            await cursor.execute(f"KILL QUERY {connection_id:d}")
        return bool(count)
