"""Primary keys: counted by the database, or UUIDs that are sorted by time."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from moorage.engine import connector_of_dialect
from moorage.models.values import UUIDValue

__all__ = ["IntegerKey", "UUIDKey", "server_uuid7", "uuid7"]


class server_uuid7(FunctionElement[uuid.UUID]):  # noqa: N801 (reads as a function in a query)
    """
    A default that the server generates, where it can; elsewhere the column has no default.

    It serves rows that are not written through SQLAlchemy.
    """

    type: TypeEngine[Any] = UUIDValue()
    inherit_cache: bool | None = True


@compiles(server_uuid7)
def _compile_server_uuid7(element: server_uuid7, compiler: Any, **kwargs: Any) -> str | None:
    dialect = compiler.dialect
    connector = connector_of_dialect(dialect)
    return None if connector is None else connector.get_uuid7_function(dialect) or None


class IntegerKey:
    """Mixin: a primary key ``id`` of 64 bits, counted by the database."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, sort_order=-1)


_uuid7_lock = threading.Lock()
_uuid7_last = (0, 0)
_COUNTER_BITS = 42


def _uuid7() -> uuid.UUID:
    """
    Return a UUID of version 7: milliseconds, then a counter, then random bits (RFC 9562).

    The counter begins at random with each millisecond and counts within one, also when the clock
    is set back: what a process makes is in order. After a fork the random bits differ.
    """
    global _uuid7_last  # noqa: PLW0603 (the order of what a process makes)
    with _uuid7_lock:
        now = time.time_ns() // 1_000_000
        last, counter = _uuid7_last
        if now > last:
            # The highest bit stays free, so that there is room to count.
            counter = int.from_bytes(os.urandom(6)) & (1 << (_COUNTER_BITS - 1)) - 1
        else:
            now, counter = last, counter + 1
            if counter >> _COUNTER_BITS:
                now, counter = now + 1, 0
        _uuid7_last = (now, counter)
    number = now << 80 | 0x7 << 76 | (counter >> 30) << 64
    number |= 0b10 << 62 | (counter & (1 << 30) - 1) << 32 | int.from_bytes(os.urandom(4))
    return uuid.UUID(int=number)


if sys.version_info >= (3, 14):
    uuid7 = uuid.uuid7
else:
    uuid7 = _uuid7


class UUIDKey:
    """
    Mixin: a primary key ``id`` that is a UUIDv7: unique everywhere, and sorted by time.

    It is made by the application, so that it is known before the flush and that many rows go in
    one statement; rows that are inserted by plain SQL get one from the server, where it can.
    """

    id: Mapped[uuid.UUID] = mapped_column(
        UUIDValue,
        primary_key=True,
        insert_default=uuid7,
        server_default=server_uuid7(),
        sort_order=-1,
    )
