"""Databases that come and go, and locks that belong to one of them."""

from typing import Any

from sqlalchemy import text

from moorage import Database, DatabaseSettings
from moorage_mysql import MySQLConnector


def connector(fresh_database: dict[str, Any], **changes: Any) -> MySQLConnector:
    """Return a connector for the test's database, with some settings changed."""
    return MySQLConnector(DatabaseSettings(**{**fresh_database, **changes}, _env_file=None))


async def test_a_new_database_holds_all_of_unicode(fresh_database: dict[str, Any]) -> None:
    """A database of ours is utf8mb4 and may have any name, whatever the server's default is."""
    mine = connector(fresh_database, name=f"{fresh_database['name']}_%`x`")
    await mine.create_database()
    try:
        assert await mine.database_exists()
        async with Database(connector=mine) as database, database.read_session() as session:
            found = await session.scalar(text("SELECT @@character_set_database"))
        assert found == "utf8mb4"
    finally:
        await mine.drop_database()
        await mine.drop_database()  # no error, and no warning either


async def test_databases_migrate_at_the_same_time(fresh_database: dict[str, Any]) -> None:
    """The server's named locks are one per database: two databases do not wait for each other."""
    here = connector(fresh_database)
    there = connector(fresh_database, name="information_schema")
    async with (
        Database(connector=here) as database,
        database.engine.connect() as one,
        database.engine.connect() as two,
    ):
        assert await here.try_lock_migrations(one)
        assert not await here.try_lock_migrations(two)
        assert await there.try_lock_migrations(two)
