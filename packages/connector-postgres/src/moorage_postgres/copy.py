"""
Rows by COPY, inside the transaction of SQLAlchemy's connection.

asyncpg sends a COPY on its own, outside of what SQLAlchemy knows: without a statement before it
there is no transaction yet, and every chunk would be committed by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import length_hint
from typing import Any

import asyncpg
from sqlalchemy import func, select, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import BulkLoad

__all__ = ["can_copy", "copy_rows"]

# What asyncpg encodes as COPY wants it; for any other type it gives up in the middle.
_ENCODED = (
    types.ARRAY,
    types.Boolean,
    types.Date,
    types.DateTime,
    types.Enum,
    types.Integer,
    types.Interval,
    types.JSON,
    types.LargeBinary,
    types.Numeric,
    types.String,
    types.Time,
    types.Uuid,
    postgresql.INET,
    postgresql.CIDR,
)
_NOT_OF_THE_ENCODER = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_LINE = re.compile(r"^COPY .*, line (\d+)")


async def can_copy(connection: AsyncConnection, load: BulkLoad) -> bool:
    """
    Return whether rows can be sent by COPY; opens the transaction.

    COPY is refused where row level security is active for the user of this connection.
    """
    dialect = connection.dialect
    for column in load.columns:
        implementation = column.type.dialect_impl(dialect)
        if isinstance(implementation, types.TypeDecorator):
            implementation = implementation.impl_instance
        if not isinstance(implementation, _ENCODED):
            return False
    name = dialect.identifier_preparer.format_table(load.table)
    secured = await connection.execute(select(func.row_security_active(name)))
    return not secured.scalar_one()


async def copy_rows(
    connection: AsyncConnection, load: BulkLoad, rows: Sequence[Sequence[Any]]
) -> None:
    """Send rows by COPY; an error is the one that SQLAlchemy would hand on."""
    fairy = await connection.get_raw_connection()
    driver_connection: Any = fairy.driver_connection
    remaining = iter(rows)
    try:
        await driver_connection.copy_records_to_table(
            load.table.name,
            schema_name=load.table.schema,
            columns=[column.name for column in load.columns],
            records=remaining,
        )
    except Exception as error:
        load.failed_row = _failed_row(error, len(rows), length_hint(remaining))
        if not isinstance(error, _NOT_OF_THE_ENCODER):
            # What encodes values for a statement says DataError; for COPY it lets anything out.
            refusal = asyncpg.DataError(f"invalid input for COPY: {error}")
            refusal.__cause__, error = error, refusal
        # SQLAlchemy's adapter alone knows which class of the DBAPI an error of asyncpg is.
        adapter: Any = fairy.dbapi_connection
        adapter._handle_exception(error)
        raise


def _failed_row(error: Exception, total: int, remaining: int) -> int | None:
    """Return the index of the row that the server names, or that asyncpg could not encode."""
    if found := _LINE.match(getattr(error, "context", None) or ""):
        return int(found[1]) - 1
    if getattr(error, "sqlstate", None) is None and remaining < total:
        return total - remaining - 1
    return None
