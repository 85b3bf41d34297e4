"""The tables that the tests of this folder share."""

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from moorage import Database


class Base(DeclarativeBase):
    """Base of the tests' models."""


class Account(Base):
    """An account with a balance."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(50), unique=True)
    balance: Mapped[int] = mapped_column(default=0)
    entries: Mapped[list["Entry"]] = relationship(back_populates="account")


class Entry(Base):
    """A line of an account's history."""

    __tablename__ = "entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    amount: Mapped[int]
    account: Mapped[Account] = relationship(back_populates="entries")


async def create_tables(database: Database, *owners: str) -> None:
    """Create the tables, and one empty account per owner."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.unit_of_work() as session:
        session.add_all(Account(owner=owner) for owner in owners)


async def balances(database: Database) -> Sequence[int]:
    """Return all balances, in the order of their accounts."""
    async with database.session() as session:
        return (await session.scalars(select(Account.balance).order_by(Account.id))).all()


async def count_accounts(database: Database) -> int:
    """Return how many accounts are committed."""
    async with database.session() as session:
        return (await session.scalars(select(func.count()).select_from(Account))).one()
