"""For which rows COPY can stand in for INSERT; the drivers send them."""

from __future__ import annotations

from sqlalchemy import func, select, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage import BulkLoad

__all__ = ["can_copy"]

# What drivers encode as COPY wants it; for other types asyncpg gives up in the middle.
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

# The name of the table is a value here: drivers whose placeholders are percent signs double those
# that are part of a statement.
_PREPARER = PGDialect(paramstyle="named").identifier_preparer


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
    name = _PREPARER.format_table(load.table)
    secured = await connection.execute(select(func.row_security_active(name)))
    return not secured.scalar_one()
