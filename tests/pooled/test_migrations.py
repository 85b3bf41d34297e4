"""Migrations beside a pooler in transaction mode."""

from pathlib import Path
from typing import Any

import pytest

from moorage import SettingsError, migrations
from tests.migrations.project import Project

BOATS = "op.create_table('boats', sa.Column('id', sa.Integer, primary_key=True))"


async def test_migrations_go_past_the_pooler(tmp_path: Path, pooled: dict[str, Any]) -> None:
    """With a direct URL the lock is taken on the server itself, and the revision runs there."""
    project = Project(tmp_path / "project", pooled)
    project.revision("a1", BOATS)
    assert await migrations.upgrade(config=project.config) == ["a1"]


async def test_migrations_are_refused_through_the_pooler(
    tmp_path: Path, pooled: dict[str, Any]
) -> None:
    """Without one, the lock is refused before anything runs, and the error says what to set."""
    project = Project(tmp_path / "project", {**pooled, "direct_url": None})
    project.revision("a1", BOATS)
    with pytest.raises(SettingsError, match="the lock for migrations") as caught:
        await migrations.upgrade(config=project.config)
    assert "DB_DIRECT_URL" in caught.value.hint
    assert (await migrations.current(config=project.config)).current == ()
