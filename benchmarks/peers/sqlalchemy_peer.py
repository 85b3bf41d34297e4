"""SQLAlchemy as everybody writes it: pool 10 + 20, pre-ping, a session per unit."""

from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload

from benchmarks.schema import Book, Place, row


class Everybody:
    """Everybody's code."""

    name: ClassVar[str] = "everybody's"
    docs: ClassVar[str] = (
        "https://docs.sqlalchemy.org/en/21/orm/extensions/asyncio.html#synopsis-orm,"
        " https://docs.sqlalchemy.org/en/21/core/pooling.html#disconnect-handling-pessimistic"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Make engine and sessionmaker."""
        self._engine = create_async_engine(
            place.sqlalchemy, pool_size=10, max_overflow=20, pool_pre_ping=True, pool_recycle=1800
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def close(self) -> None:
        """Dispose the engine."""
        await self._engine.dispose()

    async def read(self, key: int) -> object:
        """Read a book."""
        async with self._sessions() as session:
            return await session.get(Book, key)

    async def write(self, key: int) -> None:
        """Store a book."""
        async with self._sessions() as session:
            session.add(Book(**row(key)))
            await session.commit()

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with self._sessions() as session:
            book = await session.get_one(Book, key)
            book.copies += 1
            await session.commit()

    async def list(self) -> object:
        """List books with their authors."""
        async with self._sessions() as session:
            statement = select(Book).options(joinedload(Book.author)).where(Book.id <= 100)
            return [book.author.name for book in await session.scalars(statement)]
