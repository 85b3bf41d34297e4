"""
aiomysql's connection, which logs in encrypted or not at all, and knows its transaction.

aiomysql uses TLS only if the server offers it, and says nothing when it does not: whoever sits on
the path removes one bit from the greeting and reads along, the login included.

The server says with each answer whether a transaction is open. aiomysql keeps that word where the
answer has no rows, and drops it where it has some; an error says nothing of it.

A statement whose task is cancelled is ended on the server as well.

Under TLS aiomysql takes a connection for closed that goes on waiting for the goodbye of the server;
here it is waited for, in time, or not at all where the connection is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiomysql import Connection
from pymysql.constants import CLIENT, COMMAND, SERVER_STATUS

from moorage import Diagnosis, wait_shielded
from moorage_mysql.left_behind import PATIENCE_SECONDS, end_statement

__all__ = ["connect"]

# A length of three bytes and a number of one, which begins anew with each command.
_QUIT = b"\x01\0\0\0" + bytes([COMMAND.COM_QUIT])
# How long the server may take to answer the goodbye of TLS.
_GOODBYE_SECONDS = 2.0


class _DriverConnection(Connection):  # type: ignore[misc]  # aiomysql ships no types
    refusal: Diagnosis | None = None
    open_another: Callable[[], Awaitable[Any]] | None = None
    is_ready = False
    """Whether it is set up, and what it runs is somebody's work."""

    # Whether the server's last answer told of the transaction.
    _is_told = False

    # The only place between the server's greeting and the password. A test pins the name.
    async def _request_authentication(self) -> None:
        if self.refusal is not None and not self.server_capabilities & CLIENT.SSL:
            raise self.refusal.to_error()
        try:
            await super()._request_authentication()
        except BaseException:
            self.close()
            raise

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self._is_told = False
        try:
            found = await super().query(sql, unbuffered)
        except asyncio.CancelledError:
            await self._end_on_server(sql)
            raise
        self._is_told = self._result.server_status is not None
        return found

    async def _end_on_server(self, sql: Any) -> None:
        self.close()
        if self.open_another is None or not self.is_ready:
            return
        text = sql if isinstance(sql, str) else bytes(sql).decode("utf-8", "replace")
        ending = asyncio.create_task(end_statement(self.open_another, self.thread_id(), text))
        # It ends by itself before that; and who is cancelled once more waits all the same.
        await wait_shielded(ending, 2 * PATIENCE_SECONDS)

    async def ensure_closed(self) -> None:
        """Say goodbye, and return when the socket is closed."""
        writer = self._writer
        try:
            if writer is not None:
                with contextlib.suppress(OSError):  # TimeoutError is an OSError
                    async with asyncio.timeout(_GOODBYE_SECONDS):
                        writer.write(_QUIT)
                        await writer.drain()
                        writer.close()
                        await writer.wait_closed()
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket at once."""
        if self._writer is not None:
            self._writer.transport.abort()
        super().close()

    async def commit(self) -> None:
        self._is_told = False
        await super().commit()
        self._is_told = True

    async def rollback(self) -> None:
        self._is_told = False
        await super().rollback()
        self._is_told = True

    def __del__(self) -> None:
        # The driver's own would ask a loop that is gone to close the socket, and fail aloud; the
        # socket's own finalizer closes it, and warns.
        if not self._loop.is_closed():
            super().__del__()

    def in_transaction(self) -> bool | None:
        if not self._is_told:
            return None
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


async def connect(refusal: Diagnosis | None, **arguments: Any) -> Connection:
    """
    Open a connection as ``aiomysql.connect`` does.

    Args:
        refusal: What to raise, before logging in, when the server does not offer TLS; ``None``
            goes on without.
        **arguments: Those of ``aiomysql.connect``.
    """
    connection = _DriverConnection(**arguments)
    connection.refusal = refusal
    connection.open_another = partial(connect, refusal, **arguments)
    try:
        await connection._connect()
    except BaseException:
        connection.close()
        raise
    return connection
