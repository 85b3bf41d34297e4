"""
aiomysql's connection, which logs in encrypted or not at all, and knows its transaction.

aiomysql uses TLS only if the server offers it, and says nothing when it does not: whoever sits on
the path removes one bit from the greeting and reads along, the login included.

The server says with each answer whether a transaction is open. aiomysql keeps that word where the
answer has no rows, and drops it where it has some; an error says nothing of it.
"""

from __future__ import annotations

from typing import Any

from aiomysql import Connection
from pymysql.constants import CLIENT, SERVER_STATUS

from moorage import Diagnosis

__all__ = ["connect"]


class _DriverConnection(Connection):  # type: ignore[misc]  # aiomysql ships no types
    refusal: Diagnosis | None = None
    # Whether the server's last answer told of the transaction.
    _is_told = False

    # The only place between the server's greeting and the password. A test pins the name.
    async def _request_authentication(self) -> None:
        if self.refusal is not None and not self.server_capabilities & CLIENT.SSL:
            raise self.refusal.to_error()
        await super()._request_authentication()

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self._is_told = False
        found = await super().query(sql, unbuffered)
        self._is_told = self._result.server_status is not None
        return found

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
    await connection._connect()
    return connection
