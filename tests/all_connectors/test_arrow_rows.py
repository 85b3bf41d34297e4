"""Data frames are rows, through Arrow's own interface."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import DateTime, Numeric, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import Database, bulk_insert
from tests.fix_database import DatabaseFactory


class Base(DeclarativeBase):
    """Base of the models of this file."""


class Sale(Base):
    """Something that was sold."""

    __tablename__ = "sale"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    what: Mapped[str | None] = mapped_column(String(20))
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    at: Mapped[dt.datetime] = mapped_column(DateTime())


class Frame:
    """A data frame of a library that we know nothing of, but that it speaks Arrow."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the rows over."""
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.fixture
async def sales(make_database: DatabaseFactory) -> Database:
    """Return a database with the table."""
    database = make_database()
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return database


async def test_a_data_frame_is_inserted(sales: Database) -> None:
    """A data frame's rows are stored with their types, a few at a time."""
    noon = dt.datetime(2026, 7, 1, 12)  # noqa: DTZ001 (without a zone on purpose)
    rows = [(n, None if n == 3 else f"boat {n}", Decimal(n) / 4, noon) for n in range(10)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(dict(zip(("id", "what", "price", "at"), columns, strict=True)))
    told: list[int] = []
    async with sales.unit_of_work() as session:
        frame: Any = Frame(table)
        await bulk_insert(session, Sale, frame, chunk_rows=4, progress=told.append)
    assert told == [4, 8, 10]
    async with sales.session() as session:
        stored = await session.execute(select(*Sale.__table__.columns).order_by(Sale.id))
        assert [tuple(row) for row in stored] == rows
