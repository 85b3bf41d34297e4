"""Checks of what only some connectors can do: managing databases, locking migrations."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from moorage.abilities import LocksMigrations, ManagesStorage
from moorage.database import Database
from moorage.errors import DatabaseError
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings
from moorage.testing._tables import make_tables, names
from moorage.testing.check import check

__all__ = ["AbilityChecks"]


class AbilityChecks:
    """A connector has an ability by having its methods; then they must do what they say."""

    @check(
        "create_database and drop_database; may the user of the tests create databases?",
        ability=ManagesStorage,
    )
    async def test_databases_come_and_go(self, settings: DatabaseSettings) -> None:
        """A database is created once, can be used, and is dropped, whether it is there or not."""
        named = settings.replaced("the suite", name=f"{settings.name}_new")
        storage = _storage(named)
        await storage.drop_database()
        try:
            assert not await storage.database_exists()
            await storage.create_database()
            assert await storage.database_exists()
            with pytest.raises(DatabaseError):
                await storage.create_database()
            async with Database(named) as database:
                await make_tables(database, "ada")
                assert await names(database) == ["ada"]
            await storage.drop_database()
            assert not await storage.database_exists()
        finally:
            await storage.drop_database()

    @check("create_database(template=…)", capability="template_databases", ability=ManagesStorage)
    async def test_databases_are_copied(self, settings: DatabaseSettings) -> None:
        """A copy of a database has its tables and rows, and is a database of its own."""
        original = settings.replaced("the suite", name=f"{settings.name}_template")
        copied = settings.replaced("the suite", name=f"{settings.name}_copy")
        await _storage(original).drop_database()
        await _storage(copied).drop_database()
        try:
            await _storage(original).create_database()
            async with Database(original) as database:
                await make_tables(database, "ada")
            await _storage(copied).create_database(template=original.name)
            async with Database(copied) as database:
                assert await names(database) == ["ada"]
                await make_tables(database, "eve")
            async with Database(original) as database:
                assert await names(database) == ["ada"]
        finally:
            await _storage(copied).drop_database()
            await _storage(original).drop_database()

    @check(
        "try_lock_migrations: the lock belongs to a connection, and ends with it",
        ability=LocksMigrations,
    )
    async def test_one_at_a_time_migrates(self, database: Database) -> None:
        """One connection has the lock for migrations, until it unlocks or is closed."""
        connector = database.connector
        assert isinstance(connector, LocksMigrations)
        async with database.engine.connect() as first, database.engine.connect() as second:
            assert await connector.try_lock_migrations(first)
            assert not first.in_transaction()
            assert not await connector.try_lock_migrations(second)
            async with first.begin():
                await first.execute(select(1))
            assert not await connector.try_lock_migrations(second), "it ended with a transaction"
            await connector.unlock_migrations(first)
            assert await connector.try_lock_migrations(second)
            await second.invalidate()
            while not await connector.try_lock_migrations(first):  # the server has to notice
                await asyncio.sleep(0.01)
            await connector.unlock_migrations(first)


def _storage(settings: DatabaseSettings) -> ManagesStorage:
    connector = get_connector(settings)
    assert isinstance(connector, ManagesStorage)
    return connector
