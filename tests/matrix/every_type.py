"""A model with every type that `moorage.models` maps, on a base of its own."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from moorage import models


class Base(models.Conventions, DeclarativeBase):
    """Base of these models, with a catalogue of its own."""


class Rig(enum.Enum):
    """How a boat is rigged; names and values differ."""

    SLOOP = "one mast"
    SCHOONER = "two masts"


class Flag(enum.StrEnum):
    """Where a boat is at home."""

    NO = "norway"
    SE = "sweden"


class Boat(models.Timestamps, models.UUIDKey, Base):
    """A row with a value of each type."""

    __tablename__ = "boats"

    name: Mapped[str] = mapped_column(unique=True)
    crew_size: Mapped[int]
    displacement: Mapped[float]
    price: Mapped[Decimal]
    length: Mapped[Decimal] = mapped_column(models.ExactDecimal(9, 2))
    is_afloat: Mapped[bool]
    launched_on: Mapped[dt.date]
    launched_at: Mapped[dt.datetime]
    high_water: Mapped[dt.time]
    longest_trip: Mapped[dt.timedelta]
    hull_id: Mapped[uuid.UUID] = mapped_column(index=True)
    rig: Mapped[Rig]
    flag: Mapped[Flag]
    papers: Mapped[dict[str, Any]]
    ports: Mapped[list[str]]
    picture: Mapped[bytes]
    serial: Mapped[int] = mapped_column(BigInteger)
    remarks: Mapped[str | None]
    sunk_at: Mapped[dt.datetime | None]
    trips: Mapped[list["Trip"]] = relationship(back_populates="boat")


class Trip(models.Timestamps, models.IntegerKey, Base):
    """A row that refers to another one, with a constraint of each kind."""

    __tablename__ = "trips"
    __table_args__ = (UniqueConstraint("boat_id", "number"), Index(None, "number", "miles"))

    boat_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("boats.id"))
    number: Mapped[int] = mapped_column(CheckConstraint("number > 0", name="positive"))
    miles: Mapped[Decimal | None]
    boat: Mapped[Boat] = relationship(back_populates="trips")


def a_boat(**values: Any) -> Boat:
    """Return a boat with a value in each column that needs one."""
    usual: dict[str, Any] = {
        "name": "Fram",
        "crew_size": 16,
        "displacement": 402.1,
        "price": Decimal("280000.123456"),
        "length": Decimal("38.90"),
        "is_afloat": True,
        "launched_on": dt.date(1892, 10, 26),
        "launched_at": dt.datetime(1892, 10, 26, 11, 59, 59, 999999, dt.UTC),
        "high_water": dt.time(4, 5, 6, 7),
        "longest_trip": dt.timedelta(days=1178, microseconds=1),
        "hull_id": uuid.UUID(int=2**127 + 1),
        "rig": Rig.SCHOONER,
        "flag": Flag.NO,
        "papers": {"owner": "Nansen", "fee": Decimal("0.10"), "æ": [1, None, True, 1.5]},
        "ports": ["Larvik", "Vardø"],
        "picture": b"\x00\xff",
        "serial": 2**40,
    }
    return Boat(**{**usual, **values})
