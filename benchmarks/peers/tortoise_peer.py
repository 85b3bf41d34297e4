"""Tortoise ORM."""

from typing import ClassVar

from tortoise import Tortoise, fields
from tortoise.models import Model
from tortoise.transactions import in_transaction

from benchmarks.schema import Place, row


class Author(Model):
    """Who wrote books."""

    id = fields.IntField(primary_key=True)
    name = fields.CharField(max_length=50)

    class Meta:
        """The table."""

        table = "author"


class Book(Model):
    """A book."""

    id = fields.IntField(primary_key=True)
    title = fields.CharField(max_length=50)
    copies = fields.IntField()
    note = fields.CharField(max_length=50)
    author: fields.ForeignKeyRelation[Author] = fields.ForeignKeyField("models.Author")

    class Meta:
        """The table."""

        table = "book"


class TortoisePeer:
    """Models, and ``in_transaction`` where something is read and written."""

    name: ClassVar[str] = "tortoise-orm"
    docs: ClassVar[str] = (
        "https://tortoise.github.io/setup.html, https://tortoise.github.io/transactions.html"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Connect."""
        scheme = {"postgres": "asyncpg", "mysql": "mysql", "sqlite": "sqlite"}[place.backend]
        url = f"{scheme}://{place.plain.partition('://')[2]}"
        if place.backend == "sqlite":
            url = f"sqlite://{place.database}"
        self._context = await Tortoise.init(db_url=url, modules={"models": [__name__]})

    async def close(self) -> None:
        """Disconnect."""
        await Tortoise.close_connections()

    async def read(self, key: int) -> object:
        """Read a book."""
        return await Book.get(id=key)

    async def write(self, key: int) -> None:
        """Store a book."""
        await Book.create(**row(key))

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with in_transaction() as connection:
            book = await Book.get(id=key, using_db=connection)
            book.copies += 1
            await book.save(using_db=connection, update_fields=["copies"])

    async def list(self) -> object:
        """List books with their authors."""
        books = await Book.filter(id__lte=100).select_related("author")
        return [book.author.name for book in books]
