"""advanced-alchemy: its config, and its repository."""

from typing import ClassVar

from advanced_alchemy.config import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy.orm import joinedload

from benchmarks.schema import Book, Place, row


class Books(SQLAlchemyAsyncRepository[Book]):
    """The repository of books."""

    model_type = Book


class AdvancedAlchemy:
    """A repository on a session of the config."""

    name: ClassVar[str] = "advanced-alchemy"
    docs: ClassVar[str] = (
        "https://docs.advanced-alchemy.litestar.dev/latest/usage/repositories/index.html,"
        " https://docs.advanced-alchemy.litestar.dev/latest/getting-started.html"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Make the config, which makes the engine."""
        self._config = SQLAlchemyAsyncConfig(
            connection_string=place.sqlalchemy.render_as_string(hide_password=False),
            session_config=AsyncSessionConfig(expire_on_commit=False),
        )

    async def close(self) -> None:
        """Dispose the engine."""
        await self._config.get_engine().dispose()

    async def read(self, key: int) -> object:
        """Read a book."""
        async with self._config.get_session() as session:
            return await Books(session=session).get(key)

    async def write(self, key: int) -> None:
        """Store a book."""
        async with self._config.get_session() as session:
            await Books(session=session, auto_commit=True).add(Book(**row(key)))

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with self._config.get_session() as session:
            books = Books(session=session, auto_commit=True)
            book = await books.get(key)
            book.copies += 1
            await books.update(book)

    async def list(self) -> object:
        """List books with their authors."""
        async with self._config.get_session() as session:
            found = await Books(session=session, load=[joinedload(Book.author)]).list(
                Book.id <= 100
            )
            return [book.author.name for book in found]
