"""What is declared on models gives nothing away: the lint for served schemas has nothing to say."""

from pathlib import Path
from typing import Any

from moorage import Database
from moorage_postgres.exposure import find_exposures
from tests.policies.harbour import Harbour
from tests.policies.test_autogenerate import SIMPLE, TEAMS


async def test_a_migrated_project_gives_nothing_away(
    tmp_path: Path, fresh_database: dict[str, Any], either_project: Database
) -> None:
    """After its first revision a project has no finding, of whatever gravity, in either world."""
    harbour = Harbour(tmp_path / "project", fresh_database)
    harbour.declare(TEAMS + SIMPLE)
    await harbour.migrate()
    async with either_project.engine.connect() as connection:
        assert await find_exposures(connection) == []
