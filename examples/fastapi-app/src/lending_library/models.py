"""What the library stores."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class UTCDateTime(TypeDecorator[datetime]):
    """
    An aware datetime, stored in UTC.

    PostgreSQL has a type for it. SQLite and MySQL drop the zone, so that everything is turned
    into UTC on the way in and called UTC on the way out.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn a moment into UTC; a datetime without zone is no moment."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without time zone was given; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Call what was stored by its zone again."""
        return None if value is None else value.replace(tzinfo=UTC)


def now() -> datetime:
    """Return this moment in whole seconds, which is what MySQL's DATETIME keeps."""
    return datetime.now(UTC).replace(microsecond=0)


class Base(DeclarativeBase):
    """Base of all tables; the names of their constraints are known, as migrations need."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


# Relations are loaded by the query that needs them. What was forgotten fails in the first test
# (raise_on_sql), rather than with one more statement per row.


class Author(Base):
    """Who wrote books."""

    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)

    books: Mapped[list[Book]] = relationship(back_populates="author", lazy="raise_on_sql")


class Book(Base):
    """A title, how many copies the library owns, and how many of them stand on the shelf."""

    __tablename__ = "books"
    __table_args__ = (
        UniqueConstraint("author_id", "title"),
        CheckConstraint("available >= 0 AND available <= copies", name="available"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str] = mapped_column(String(200), index=True)
    copies: Mapped[int]
    available: Mapped[int]

    author: Mapped[Author] = relationship(back_populates="books", lazy="raise_on_sql")


class Member(Base):
    """Somebody who may have up to ``max_loans`` books at home."""

    __tablename__ = "members"
    __table_args__ = (CheckConstraint("max_loans >= 0", name="max_loans"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254), unique=True)
    max_loans: Mapped[int]

    loans: Mapped[list[Loan]] = relationship(back_populates="member", lazy="raise_on_sql")


class Loan(Base):
    """One copy at a member's home, until ``returned_at`` is set."""

    __tablename__ = "loans"
    __table_args__ = (CheckConstraint("due_at > lent_at", name="due"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"), index=True)
    # Not together with returned_at: MySQL checks the foreign key anew, and so locks the member,
    # whenever another column of its index changes; a return would deadlock with a loan.
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    lent_at: Mapped[datetime] = mapped_column(UTCDateTime)
    due_at: Mapped[datetime] = mapped_column(UTCDateTime)
    returned_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    book: Mapped[Book] = relationship(lazy="raise_on_sql")
    member: Mapped[Member] = relationship(back_populates="loans", lazy="raise_on_sql")
