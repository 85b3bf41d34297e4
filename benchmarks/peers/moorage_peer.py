"""moorage with its defaults: read sessions and units of work."""

from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from benchmarks.schema import Book, Place, row
from moorage import Database, DatabaseSettings


def settings_of(place: Place) -> DatabaseSettings:
    """Return settings for a place, the defaults otherwise."""
    if place.backend == "sqlite":
        return DatabaseSettings(type="sqlite", name=place.database, _env_file=None)
    return DatabaseSettings(
        type=place.backend,
        host=place.host,
        port=place.port,
        user=place.user,
        password=place.password,
        name=place.database,
        ssl_mode="disable",
        _env_file=None,
    )


class Moorage:
    """This library."""

    name: ClassVar[str] = "moorage"
    docs: ClassVar[str] = "README.md, docs/read-sessions.md"
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Make the database."""
        self._database = Database(settings_of(place))

    async def close(self) -> None:
        """Dispose the database."""
        await self._database.dispose()

    async def read(self, key: int) -> object:
        """Read a book."""
        async with self._database.read_session() as session:
            return await session.get(Book, key)

    async def write(self, key: int) -> None:
        """Store a book."""
        async with self._database.unit_of_work() as session:
            session.add(Book(**row(key)))

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with self._database.unit_of_work() as session:
            book = await session.get_one(Book, key)
            book.copies += 1

    async def list(self) -> object:
        """List books with their authors."""
        async with self._database.read_session() as session:
            statement = select(Book).options(joinedload(Book.author)).where(Book.id <= 100)
            return [book.author.name for book in await session.scalars(statement)]
