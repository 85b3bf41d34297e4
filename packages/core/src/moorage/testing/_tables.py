"""The tables that the suite makes in the database it is given, and what is asked of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    LargeBinary,
    Numeric,
    String,
    Uuid,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from moorage.database import Database
from moorage.models import UTCDateTime

__all__ = [
    "VALUES",
    "Item",
    "Owner",
    "drop_tables",
    "has_owner",
    "make_tables",
    "names",
    "owners",
]


class Base(DeclarativeBase):
    """Base of the suite's tables."""


class Owner(Base):
    """Somebody who has items, with every kind of constraint."""

    __tablename__ = "moorage_owner"
    __table_args__: Any = (CheckConstraint("balance >= -1000", name="ck_moorage_owner_balance"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    balance: Mapped[int] = mapped_column(default=0)


class Item(Base):
    """Something that belongs to somebody."""

    __tablename__ = "moorage_item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int] = mapped_column(ForeignKey("moorage_owner.id"))


# Elsewhere it is another year.
_MIDNIGHT = datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)
_EAST, _WEST = timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11))

VALUES: dict[str, tuple[TypeEngine[Any], Any]] = {
    "aware datetime": (DateTime(timezone=True), datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC)),
    "aware datetime from the east": (DateTime(timezone=True), _MIDNIGHT.astimezone(_EAST)),
    "aware datetime from the west": (DateTime(timezone=True), _MIDNIGHT.astimezone(_WEST)),
    "moment from the east": (UTCDateTime(), _MIDNIGHT.astimezone(_EAST)),
    "moment from the west": (UTCDateTime(), _MIDNIGHT.astimezone(_WEST)),
    "naive datetime": (DateTime(), datetime(2026, 2, 28, 23, 59, 58)),  # noqa: DTZ001
    "decimal": (Numeric(12, 6), Decimal("123456.123456")),
    "json": (JSON(), {"a": [1, 2.5, None, True], "ü": "😀"}),
    "uuid": (Uuid(), uuid.UUID("12345678-1234-5678-1234-567812345678")),
    "text": (String(40), "naïve ☕ 😀 'quoted' \\ %s :x"),
    "bytes": (LargeBinary(), bytes(range(256))),
    "big integer": (BigInteger(), 2**63 - 1),
}
"""What must come back as it went in: a type, and a value that is easily spoilt."""


async def make_tables(database: Database, *owners: str) -> None:
    """Make the tables, empty but for owners with the numbers 1, 2, …."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with database.unit_of_work() as session:
        session.add_all(Owner(id=number, name=name) for number, name in enumerate(owners, 1))


async def drop_tables(database: Database) -> None:
    """Drop the tables."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def owners(session: AsyncSession) -> list[Owner]:
    """Return all owners in order."""
    return list(await session.scalars(select(Owner).order_by(Owner.id)))


async def names(database: Database) -> list[str]:
    """Return the names of all owners, as a session of its own sees them."""
    async with database.session() as session:
        return [owner.name for owner in await owners(session)]


async def has_owner(database: Database, number: int) -> bool:
    """Return whether a session of its own sees an owner."""
    async with database.session() as session:
        count = select(func.count()).select_from(Owner).where(Owner.id == number)
        return bool((await session.execute(count)).scalar_one())
