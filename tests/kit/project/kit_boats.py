"""A small application that knows nothing of tests."""

import datetime as dt

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from moorage import UnitOfWork, get_database
from moorage.models import Conventions, IntegerKey


class Base(Conventions, DeclarativeBase):
    """Base of the models."""


class Boat(IntegerKey, Base):
    """A boat."""

    __tablename__ = "boats"
    name: Mapped[str] = mapped_column(String(50), unique=True)
    trips: Mapped[list["Trip"]] = relationship(back_populates="boat")


class Trip(IntegerKey, Base):
    """A trip."""

    __tablename__ = "trips"
    boat_id: Mapped[int] = mapped_column(ForeignKey("boats.id"))
    left_at: Mapped[dt.datetime]
    boat: Mapped[Boat] = relationship(back_populates="trips")


async def launch(name: str) -> None:
    """Store a boat."""
    async with UnitOfWork() as session:
        session.add(Boat(name=name))


async def names() -> list[str]:
    """Return the names of all boats."""
    async with get_database().read_session() as session:
        return list(await session.scalars(select(Boat.name).order_by(Boat.name)))
