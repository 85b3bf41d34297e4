"""fastapi-sqla: its settings from the environment, and its ``open_session``."""

import os
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from benchmarks.schema import Book, Place, row


class FastAPISQLA:
    """Sessions as fastapi-sqla opens them, which commit at their end."""

    name: ClassVar[str] = "fastapi-sqla"
    docs: ClassVar[str] = "https://github.com/dialoguemd/fastapi-sqla#readme"
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Start it as the application would."""
        from fastapi_sqla import async_sqla

        url = place.sqlalchemy.render_as_string(hide_password=False)
        os.environ["sqlalchemy_url"] = url  # noqa: SIM112 (its name)
        os.environ["sqlalchemy_pool_pre_ping"] = "true"  # noqa: SIM112 (its name)
        self._module: Any = async_sqla
        await async_sqla.startup()

    async def close(self) -> None:
        """Do nothing: its engine ends with the process."""

    async def read(self, key: int) -> object:
        """Read a book."""
        async with self._module.open_session() as session:
            return await session.get(Book, key)

    async def write(self, key: int) -> None:
        """Store a book."""
        async with self._module.open_session() as session:
            session.add(Book(**row(key)))

    async def change(self, key: int) -> None:
        """Add a copy."""
        async with self._module.open_session() as session:
            book = await session.get_one(Book, key)
            book.copies += 1

    async def list(self) -> object:
        """List books with their authors."""
        async with self._module.open_session() as session:
            statement = select(Book).options(joinedload(Book.author)).where(Book.id <= 100)
            return [book.author.name for book in await session.scalars(statement)]
