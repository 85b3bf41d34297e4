"""SQLModel with its asynchronous session."""

from typing import ClassVar

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import joinedload
from sqlmodel import Field, Relationship, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.schema import Place, row


class Author(SQLModel, table=True):
    """Who wrote books."""

    id: int = Field(primary_key=True)
    name: str


class Book(SQLModel, table=True):
    """A book."""

    id: int = Field(primary_key=True)
    title: str
    copies: int
    note: str
    author_id: int = Field(foreign_key="author.id")
    author: Author = Relationship()


class SQLModelPeer:
    """Its session on a plain engine, as the documentation of FastAPI shows it."""

    name: ClassVar[str] = "sqlmodel"
    docs: ClassVar[str] = (
        "https://sqlmodel.tiangolo.com/tutorial/fastapi/session-with-dependency/,"
        " https://github.com/fastapi/sqlmodel/blob/main/sqlmodel/ext/asyncio/session.py"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Make the engine."""
        self._engine = create_async_engine(place.sqlalchemy)

    async def close(self) -> None:
        """Dispose the engine."""
        await self._engine.dispose()

    async def read(self, key: int) -> object:
        """Read a book."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            return await session.get(Book, key)

    async def write(self, key: int) -> None:
        """Store a book."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            session.add(Book(**row(key)))
            await session.commit()

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            book = await session.get_one(Book, key)
            book.copies += 1
            session.add(book)
            await session.commit()

    async def list(self) -> object:
        """List books with their authors."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            statement = select(Book).options(joinedload(Book.author)).where(Book.id <= 100)
            return [book.author.name for book in await session.exec(statement)]
