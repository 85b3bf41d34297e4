"""Tables that are made anew, and the rows that refer to them."""

from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, String, text

from moorage import Database, ForeignKeyViolationError, migrations
from tests.migrations.project import Project

TABLES = """
op.create_table("boats", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("name", sa.String(20)))
op.create_table("trips", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("boat_id", sa.Integer, sa.ForeignKey("boats.id", ondelete="CASCADE")))
op.execute("INSERT INTO boats (id) VALUES (1)")
op.execute("INSERT INTO trips (id, boat_id) VALUES (1, 1)")
"""


@pytest.fixture
def backend() -> str:
    """Return the backend that these tests are about."""
    return "sqlite"


async def count_trips(database: Database) -> int:
    """Return how many rows refer to a boat."""
    async with database.session() as session:
        return int((await session.execute(text("SELECT count(*) FROM trips"))).scalar_one())


@pytest.fixture
async def project(tmp_path: Path, fresh_database: dict[str, Any]) -> Project:
    """Return a project whose database has a row that refers to another one."""
    made = Project(tmp_path / "project", fresh_database)
    made.revision("a1", TABLES)
    await migrations.upgrade(config=made.config)
    return made


async def test_a_revision_that_leaves_orphans_is_undone(
    project: Project, database: Database
) -> None:
    """What foreign keys would have refused is found before COMMIT, and named."""
    project.revision("b2", 'op.execute("DELETE FROM boats")', after="a1")
    with pytest.raises(ForeignKeyViolationError, match="row 1 of trips refers to boats"):
        await migrations.upgrade(config=project.config)
    assert (await migrations.current(config=project.config)).current == ("a1",)
    async with database.session() as session:
        assert (await session.execute(text("SELECT id FROM boats"))).all() == [(1,)]


async def test_foreign_keys_are_enforced_again(project: Project, database: Database) -> None:
    """A database that is handed over enforces its keys behind a migration, on each connection."""
    project.revision("b2", "pass", after="a1")
    await migrations.upgrade(config=project.config, database=database)
    for _ in range(3):
        with pytest.raises(ForeignKeyViolationError):
            async with database.unit_of_work() as session:
                await session.execute(text("INSERT INTO trips (boat_id) VALUES (7)"))


async def test_alembic_alone_deletes_what_refers_to_a_table(
    project: Project, database: Database
) -> None:
    """Negative control: with foreign keys on, altering a table empties what refers to it."""

    def alter(connection: Connection) -> None:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("boats", recreate="always") as batch:
            batch.alter_column("name", existing_type=String(20), type_=String(50))

    assert await count_trips(database) == 1
    async with database.engine.begin() as connection:
        await connection.run_sync(alter)
    assert await count_trips(database) == 0
