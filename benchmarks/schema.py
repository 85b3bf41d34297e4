"""The tables that every peer works on, and where they are."""

import itertools
from dataclasses import dataclass

from sqlalchemy import URL, ForeignKey, String, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

ROWS = 10_000
"""Books that are there when measuring begins; the first hundred belong to the list."""

NEW_KEYS = itertools.count(ROWS + 1)
"""Keys for rows that are added; no peer gets one twice."""

DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}


@dataclass(frozen=True)
class Place:
    """Where the tables are; for SQLite ``database`` is a path."""

    backend: str
    database: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""

    @property
    def sqlalchemy(self) -> URL:
        """Return the URL that everybody gives to SQLAlchemy."""
        if self.backend == "sqlite":
            return URL.create(DRIVERS["sqlite"], database=self.database)
        return URL.create(
            DRIVERS[self.backend], self.user, self.password, self.host, self.port, self.database
        )

    @property
    def plain(self) -> str:
        """Return the URL without a driver, as tools beside SQLAlchemy take it."""
        if self.backend == "sqlite":
            return f"sqlite:///{self.database}"
        scheme = {"postgres": "postgresql", "mysql": "mysql"}[self.backend]
        login = f"{self.user}:{self.password}@" if self.password else f"{self.user}@"
        return f"{scheme}://{login}{self.host}:{self.port}/{self.database}"


class Base(DeclarativeBase):
    """Base of the models."""


class Author(Base):
    """Who wrote books."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(50))


class Book(Base):
    """A row of five columns."""

    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(String(50))
    copies: Mapped[int]
    note: Mapped[str] = mapped_column(String(50))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(lazy="raise")


def row(key: int) -> dict[str, object]:
    """Return the values of a book."""
    return {
        "id": key,
        "title": f"title {key}",
        "copies": 0,
        "note": "a note of some length",
        "author_id": key % 10 + 1,
    }


async def fill(place: Place, rows: int = ROWS) -> None:
    """Make the tables and their rows anew."""
    engine = create_async_engine(place.sqlalchemy)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        authors = [{"id": key, "name": f"author {key}"} for key in range(1, 11)]
        await connection.execute(insert(Author), authors)
        for begin in range(1, rows + 1, 10_000):
            keys = range(begin, min(begin + 10_000, rows + 1))
            await connection.execute(insert(Book), [row(key) for key in keys])
    await engine.dispose()
