"""Databases with real commits are as they were made for each test, without being migrated anew."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, func, insert, select, text

from moorage import Database, DatabaseSettings
from moorage.testing.storage import Storage, run_in_thread

tables = MetaData()
boats = Table("boats", tables, Column("id", Integer, primary_key=True))
Table(
    "trips",
    tables,
    Column("id", Integer, primary_key=True),
    Column("boat_id", ForeignKey("boats.id"), nullable=False),
)


async def count_and_fill(settings: DatabaseSettings, *statements: str) -> int:
    """Return how many boats there are; then store one with a trip, and do what else is said."""
    async with Database(settings) as database, database.engine.begin() as connection:
        found: int = (
            await connection.execute(select(func.count()).select_from(boats))
        ).scalar_one()
        await connection.execute(insert(boats).values(id=7))
        await connection.execute(insert(tables.tables["trips"]).values(id=1, boat_id=7))
        for statement in statements:
            await connection.execute(text(statement))
    return found


@pytest.mark.parametrize("rows", [0, 2], ids=["empty", "filled"])
def test_each_use_finds_what_was_made(
    fresh_database: dict[str, Any], tmp_path: Path, backend: str, rows: int
) -> None:
    """What one test has made is gone for the next one; tables are made as rarely as can be."""
    made: list[str] = []

    async def schema(database: Database) -> None:
        made.append(database.settings.name)
        async with database.engine.begin() as connection:
            await connection.run_sync(tables.create_all)
            for key in range(1, rows + 1):
                await connection.execute(insert(boats).values(id=key))

    settings = DatabaseSettings(**fresh_database, _env_file=None)
    storage = Storage(settings, schema, "main", tmp_path)
    with storage.template():
        for statement in ((), ("CREATE TABLE ports (id INTEGER)",), ()):
            with storage.committed() as used:
                assert run_in_thread(count_and_fill(used, *statement)) == rows
    copies = backend != "mysql"
    assert len(made) == (1 if copies else 3 if rows else 2)
