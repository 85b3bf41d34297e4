"""What the library stores."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from moorage.models import Base, IntegerKey

metadata = Base.metadata


def now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


# Relations are loaded by the query that needs them. What was forgotten fails in the first test
# (raise_on_sql), rather than with one more statement per row.


class Author(IntegerKey, Base):
    """Who wrote books."""

    __tablename__ = "authors"

    name: Mapped[str] = mapped_column(String(120), unique=True)

    books: Mapped[list[Book]] = relationship(back_populates="author", lazy="raise_on_sql")


class Book(IntegerKey, Base):
    """A title, how many copies the library owns, and how many of them stand on the shelf."""

    __tablename__ = "books"
    __table_args__ = (
        UniqueConstraint("author_id", "title"),
        CheckConstraint("available >= 0 AND available <= copies", name="available"),
    )

    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str] = mapped_column(String(200), index=True)
    copies: Mapped[int]
    available: Mapped[int]

    author: Mapped[Author] = relationship(back_populates="books", lazy="raise_on_sql")


class Member(IntegerKey, Base):
    """Somebody who may have up to ``max_loans`` books at home."""

    __tablename__ = "members"
    __table_args__ = (CheckConstraint("max_loans >= 0", name="max_loans"),)

    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254), unique=True)
    max_loans: Mapped[int]

    loans: Mapped[list[Loan]] = relationship(back_populates="member", lazy="raise_on_sql")


class Loan(IntegerKey, Base):
    """One copy at a member's home, until ``returned_at`` is set."""

    __tablename__ = "loans"
    __table_args__ = (CheckConstraint("due_at > lent_at", name="due"),)

    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"), index=True)
    # Not together with returned_at: MySQL checks the foreign key anew, and so locks the member,
    # whenever another column of its index changes; a return would deadlock with a loan.
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    lent_at: Mapped[datetime]
    due_at: Mapped[datetime]
    returned_at: Mapped[datetime | None]

    book: Mapped[Book] = relationship(lazy="raise_on_sql")
    member: Mapped[Member] = relationship(back_populates="loans", lazy="raise_on_sql")
