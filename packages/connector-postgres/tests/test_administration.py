"""Databases that come and go while others use them, and the database that is connected to."""

from typing import Any

import pytest
from sqlalchemy import text

from moorage import Database, DatabaseMissingError, DatabaseSettings
from moorage_postgres import PostgresConnector


def connector(fresh_database: dict[str, Any], **changes: Any) -> PostgresConnector:
    """Return a connector for the test's database, with some settings changed."""
    return PostgresConnector(DatabaseSettings(**{**fresh_database, **changes}, _env_file=None))


async def test_a_database_in_use_is_dropped(fresh_database: dict[str, Any]) -> None:
    """Dropping ends the connections of others, who are told so."""
    name = f'{fresh_database["name"]}_"quoted"'
    mine = connector(fresh_database, name=name)
    await mine.create_database()
    async with Database(connector=mine) as database, database.engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_database()")) == name
        await connection.rollback()
        await mine.drop_database()
        assert not await mine.database_exists()
        await connection.invalidate()


async def test_the_maintenance_database_can_be_chosen(fresh_database: dict[str, Any]) -> None:
    """Where there is no database `postgres`, another one is connected to."""
    options = {"maintenance_database": fresh_database["name"]}
    other = connector(fresh_database, name=f"{fresh_database['name']}_2", connector_options=options)
    await other.create_database()
    await other.drop_database()
    options = {"maintenance_database": "nowhere"}
    with pytest.raises(DatabaseMissingError, match="nowhere"):
        await connector(fresh_database, connector_options=options).database_exists()
