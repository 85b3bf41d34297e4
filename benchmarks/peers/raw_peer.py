"""The drivers alone: asyncpg's and aiomysql's pools, and sqlite3 without a thread in between."""

import sqlite3
from typing import Any, ClassVar

from benchmarks.schema import Place, row

LISTING = (
    "SELECT book.id, book.title, author.name FROM book JOIN author ON author.id = book.author_id"
    " WHERE book.id <= 100 ORDER BY book.id"
)


class Raw:
    """What is left when nothing stands between the program and the driver."""

    name: ClassVar[str] = "raw driver"
    docs: ClassVar[str] = (
        "https://magicstack.github.io/asyncpg/current/usage.html#connection-pools,"
        " https://aiomysql.readthedocs.io/en/stable/pool.html"
    )
    backends: ClassVar[frozenset[str]] = frozenset({"postgres", "mysql", "sqlite"})

    async def open(self, place: Place) -> None:
        """Open a pool of ten."""
        self._work: Any
        if place.backend == "postgres":
            self._work = _Asyncpg()
        else:
            self._work = _Aiomysql() if place.backend == "mysql" else _SQLite()
        await self._work.open(place)

    async def close(self) -> None:
        """Close it."""
        await self._work.close()

    async def read(self, key: int) -> object:
        """Read a book."""
        return await self._work.read(key)

    async def write(self, key: int) -> object:
        """Store a book."""
        return await self._work.write(tuple(row(key).values()))

    async def change(self, key: int) -> object:
        """Add a copy."""
        return await self._work.change(key)

    async def list(self) -> object:
        """List books with their authors."""
        return await self._work.list()


class _Asyncpg:
    async def open(self, place: Place) -> None:
        import asyncpg

        self.pool = await asyncpg.create_pool(place.plain, min_size=10, max_size=10, ssl=False)

    async def close(self) -> None:
        await self.pool.close()

    async def read(self, key: int) -> object:
        async with self.pool.acquire() as connection:
            return await connection.fetchrow("SELECT * FROM book WHERE id = $1", key)

    async def write(self, values: tuple[object, ...]) -> object:
        async with self.pool.acquire() as connection:
            return await connection.execute(
                "INSERT INTO book (id, title, copies, note, author_id) VALUES ($1, $2, $3, $4, $5)",
                *values,
            )

    async def change(self, key: int) -> object:
        async with self.pool.acquire() as connection, connection.transaction():
            copies = await connection.fetchval("SELECT copies FROM book WHERE id = $1", key)
            return await connection.execute(
                "UPDATE book SET copies = $1 WHERE id = $2", copies + 1, key
            )

    async def list(self) -> object:
        async with self.pool.acquire() as connection:
            return await connection.fetch(LISTING)


class _Aiomysql:
    async def open(self, place: Place) -> None:
        import aiomysql

        self.pool = await aiomysql.create_pool(
            host=place.host,
            port=place.port,
            user=place.user,
            password=place.password,
            db=place.database,
            minsize=10,
            maxsize=10,
            autocommit=True,
        )

    async def close(self) -> None:
        self.pool.close()
        await self.pool.wait_closed()

    async def read(self, key: int) -> object:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT * FROM book WHERE id = %s", (key,))
            return await cursor.fetchone()

    async def write(self, values: tuple[object, ...]) -> None:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(
                "INSERT INTO book (id, title, copies, note, author_id) VALUES (%s, %s, %s, %s, %s)",
                values,
            )

    async def change(self, key: int) -> None:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.execute("SELECT copies FROM book WHERE id = %s", (key,))
            (copies,) = await cursor.fetchone()
            await cursor.execute("UPDATE book SET copies = %s WHERE id = %s", (copies + 1, key))
            await connection.commit()

    async def list(self) -> object:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(LISTING)
            return await cursor.fetchall()


class _SQLite:
    async def open(self, place: Place) -> None:
        self.connection = sqlite3.connect(place.database, isolation_level=None, timeout=30)

    async def close(self) -> None:
        self.connection.close()

    async def read(self, key: int) -> object:
        return self.connection.execute("SELECT * FROM book WHERE id = ?", (key,)).fetchone()

    async def write(self, values: tuple[object, ...]) -> None:
        self.connection.execute(
            "INSERT INTO book (id, title, copies, note, author_id) VALUES (?, ?, ?, ?, ?)", values
        )

    async def change(self, key: int) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        found = self.connection.execute("SELECT copies FROM book WHERE id = ?", (key,))
        (copies,) = found.fetchone()
        self.connection.execute("UPDATE book SET copies = ? WHERE id = ?", (copies + 1, key))
        self.connection.execute("COMMIT")

    async def list(self) -> object:
        return self.connection.execute(LISTING).fetchall()
