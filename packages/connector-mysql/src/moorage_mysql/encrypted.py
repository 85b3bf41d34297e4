"""
A connection that logs in encrypted, or not at all.

aiomysql uses TLS only if the server offers it, and says nothing when it does not: whoever sits on
the path removes one bit from the greeting and reads along, the login included.
"""

from __future__ import annotations

from typing import Any

from aiomysql import Connection
from pymysql.constants import CLIENT

from moorage import Diagnosis

__all__ = ["connect_encrypted"]


class _EncryptedConnection(Connection):  # type: ignore[misc]  # aiomysql ships no types
    refusal: Diagnosis

    # The only place between the server's greeting and the password. A test pins the name.
    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.SSL:
            raise self.refusal.to_error()
        await super()._request_authentication()


async def connect_encrypted(refusal: Diagnosis, **arguments: Any) -> Connection:
    """
    Open a connection as ``aiomysql.connect`` does, and stop before logging in without TLS.

    Args:
        refusal: What to raise when the server does not offer TLS; nothing was sent to it then.
        **arguments: Those of ``aiomysql.connect``.
    """
    connection = _EncryptedConnection(**arguments)
    connection.refusal = refusal
    await connection._connect()
    return connection
