"""Tests of a project's migrations, ready to run."""

from __future__ import annotations

from typing import ClassVar

import pytest

from moorage.database import Database

__all__ = ["MigrationSuite"]


class MigrationSuite:
    """
    What every project's migrations have to do; subclass it in a test module.

    It needs the fixtures of ``moorage.testing.fixtures``, and pytest-asyncio in any mode.

    Class attributes:
        config: Alembic's settings, relative to the root of the project.
    """

    config: ClassVar[str] = "alembic.ini"

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    @pytest.fixture
    def migrations_config(self, pytestconfig: pytest.Config) -> str:
        """Return the path of Alembic's settings."""
        return str(pytestconfig.rootpath / self.config)

    async def fill(self, database: Database, revision: str) -> None:
        """
        Put rows into a database that is at ``revision``; override it to migrate real data.

        Called after each revision was applied for the first time. The default does nothing.
        """

    async def test_one_head(self, migrations_config: str) -> None:
        """The revisions are one line that ends in one head."""
        from moorage import migrations

        heads = [one.revision for one in migrations.heads(config=migrations_config)]
        assert len(heads) <= 1, f"join the heads {', '.join(heads)}: alembic merge heads"

    async def test_up_down_up(self, db_empty: Database, migrations_config: str) -> None:
        """Each revision can be applied, undone and applied again, with the rows that are there."""
        from moorage import migrations

        for one in reversed(migrations.history(config=migrations_config)):
            await migrations.upgrade(one.revision, config=migrations_config, database=db_empty)
            await self.fill(db_empty, one.revision)
            await migrations.downgrade("-1", config=migrations_config, database=db_empty)
            await migrations.upgrade(one.revision, config=migrations_config, database=db_empty)

    async def test_models_match(self, db_empty: Database, migrations_config: str) -> None:
        """What the migrations make is what the models say, and all models are imported."""
        from moorage import migrations

        await migrations.upgrade("heads", config=migrations_config, database=db_empty)
        found = await migrations.check(config=migrations_config, database=db_empty)
        assert not found.differences, "\n".join(found.differences)
        assert not found.unreached, "\n".join(map(str, found.unreached))
