"""Replicas that start together migrate once."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from moorage import Database, get_connector
from tests.fix_backend import Servers, new_database
from tests.fix_database import DatabaseFactory
from tests.fix_scale import Scale
from tests.migrations.project import Project, run_python

ROOT = Path(__file__).resolve().parents[2]
REVISIONS = 3
# What the templates of Alembic make of an async engine, with the connector's own URL.
PLAIN = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

def work(connection):
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine({url!r}, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(work)
    await engine.dispose()

asyncio.run(main())
"""
# A revision in which each process waits until the other one is there as well, or has ended.
TOGETHER = """
import pathlib, time
here = pathlib.Path({folder!r})
(here / str(os.getpid())).touch()
end = time.monotonic() + 30
while len(list(here.iterdir())) < 2 and time.monotonic() < end:
    time.sleep(0.01)
op.create_table("boats", sa.Column("id", sa.Integer, primary_key=True))
"""


def start(count: int, *projects: Project) -> list[list[dict[str, Any]]]:
    """Let many processes at once migrate one project after the other; return how each ended."""
    database = projects[0].database
    configs = [str(project.config) for project in projects]
    arguments = [
        "-m",
        "tests.migrations.fleet",
        str(count),
        f"moorage_{database['type']}",
        *configs,
    ]
    done = run_python(ROOT, database, arguments, check=True)
    results: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return results


def rounds(backend: str, scale: Scale) -> int:
    """Return how often the fleet starts."""
    return scale(small=1, full=20 if backend == "postgres" else 3)


@pytest.mark.scaled
@pytest.mark.timeout(300)
def test_a_fleet_migrates_once(
    tmp_path: Path, backend: str, servers: Servers, scale: Scale
) -> None:
    """Of many processes that upgrade at once all succeed, and one of them has migrated."""
    processes = scale(small=4, full=16)
    with ExitStack() as stack:
        projects = []
        for turn in range(rounds(backend, scale)):
            folder = tmp_path / str(turn)
            folder.mkdir()
            database = stack.enter_context(new_database(backend, servers, folder))
            projects.append(project := Project(folder / "project", database))
            for number in range(REVISIONS):
                project.revision(
                    f"r{number}",
                    f"op.create_table('t{number}', sa.Column('id', sa.Integer, primary_key=True))",
                    after=f"r{number - 1}" if number else None,
                )
        for results in start(processes, *projects):
            assert "".join(one["error"] for one in results) == ""
            said = [
                [line for line in one["printed"].splitlines() if line.startswith("applied")]
                for one in results
            ]
            everything = [f"applied r{number}" for number in range(REVISIONS)]
            assert sorted(said) == [*[[]] * (processes - 1), everything]


async def test_plain_alembic_does_not(
    tmp_path: Path, fresh_database: dict[str, Any], make_database: DatabaseFactory
) -> None:
    """Negative control: with Alembic's own template, one of two processes fails."""
    database: Database = make_database()
    project = Project(tmp_path / "project", fresh_database)
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    project.revision("a1", TOGETHER.format(folder=str(meeting)))
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    url = get_connector(database.settings).get_url()
    url = url.set(drivername=url.drivername.replace("+moorage", "+aiosqlite"))
    (project.folder / "migrations/env.py").write_text(
        PLAIN.format(url=url.render_as_string(hide_password=False))
    )
    (results,) = start(2, project)
    errors = [one["error"] for one in results]
    assert any(errors)
    assert len(list(meeting.iterdir())) == 2
