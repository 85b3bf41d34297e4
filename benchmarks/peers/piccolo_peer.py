"""Piccolo."""

from typing import ClassVar

from piccolo.columns import ForeignKey, Integer, Varchar
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import SQLiteEngine
from piccolo.table import Table

from benchmarks.schema import Place, row


class Author(Table, tablename="author"):
    """Who wrote books."""

    id = Integer(primary_key=True)
    name = Varchar(length=50)


class Book(Table, tablename="book"):
    """A book."""

    id = Integer(primary_key=True)
    title = Varchar(length=50)
    copies = Integer()
    note = Varchar(length=50)
    author_id = ForeignKey(references=Author)


class Piccolo:
    """Tables, and the engine's ``transaction`` where something is read and written."""

    name: ClassVar[str] = "piccolo"
    docs: ClassVar[str] = (
        "https://piccolo-orm.readthedocs.io/en/latest/piccolo/engines/postgres_engine.html,"
        " https://piccolo-orm.readthedocs.io/en/latest/piccolo/tutorials/fastapi.html"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "sqlite"})

    async def open(self, place: Place) -> None:
        """Open the pool, as its FastAPI example does when the application starts."""
        self._engine: PostgresEngine | SQLiteEngine
        if place.backend == "sqlite":
            self._engine = SQLiteEngine(path=place.database)
        else:
            self._engine = PostgresEngine(
                config={
                    "host": place.host,
                    "port": place.port,
                    "user": place.user,
                    "password": place.password,
                    "database": place.database,
                },
                log_queries=False,
            )
            await self._engine.start_connection_pool(min_size=10, max_size=10)
        for table in (Author, Book):
            table._meta._db = self._engine

    async def close(self) -> None:
        """Close the pool."""
        if isinstance(self._engine, PostgresEngine):
            await self._engine.close_connection_pool()

    async def read(self, key: int) -> object:
        """Read a book."""
        return await Book.objects().where(Book.id == key).first()

    async def write(self, key: int) -> None:
        """Store a book."""
        await Book.insert(Book(**row(key)))

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with self._engine.transaction():
            book = await Book.objects().where(Book.id == key).first()
            assert book is not None
            book.copies += 1
            await book.save(columns=[Book.copies])

    async def list(self) -> object:
        """List books with their authors."""
        return await Book.select(Book.id, Book.title, Book.author_id.name).where(Book.id <= 100)
