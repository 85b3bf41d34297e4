"""The fixtures of `moorage.testing` keep their promises in a project that uses them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from moorage import Database, ManagesStorage
from tests.migrations.project import run_python

PROJECT = Path(__file__).parent / "project"


@pytest.mark.timeout(300)
@pytest.mark.scaled(small=["sqlite-alone", "postgres-xdist", "mysql-alone"])
@pytest.mark.parametrize(
    "options",
    [(), ("-n", "2", "-k", "gone_after or committed or Migrations")],
    ids=["alone", "xdist"],
)
async def test_the_fixtures_keep_their_promises(
    fresh_database: dict[str, Any], database: Database, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A project's tests pass with one line in its conftest, and nothing of them is left behind."""
    arguments = ["-q", "-c", "pytest.ini", f"--basetemp={tmp_path / 'tmp'}", *options]
    done = await asyncio.to_thread(
        run_python, PROJECT, fresh_database, ["-m", "pytest", *arguments], check=False
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d\d? passed in", done.stdout, re.MULTILINE), done.stdout
    connector = database.connector
    assert isinstance(connector, ManagesStorage)
    for worker in ("main", "gw0", "gw1"):
        for purpose in ("template", f"{worker}_tests", f"{worker}_committed", f"{worker}_empty"):
            name = f"{database.settings.name}_test_{purpose}"
            other = type(connector)(database.settings.replaced("the test", name=name))
            assert isinstance(other, ManagesStorage)
            assert not await other.database_exists()
    async with database.engine.connect() as connection:  # the application's own is untouched
        assert await connection.run_sync(lambda sync: sync.dialect.get_table_names(sync)) == []
