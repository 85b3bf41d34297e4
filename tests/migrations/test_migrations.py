"""Migrations run once, whoever asks, and leave nothing half done without saying so."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config, main
from sqlalchemy import inspect, select, text

from moorage import (
    Database,
    HalfAppliedMigrationError,
    LocksMigrations,
    LockTimeoutError,
    MigrationError,
    MigrationLockError,
    PendingMigrationsError,
    migrations,
    work_name,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.every_type import Boat, a_boat
from tests.migrations.project import Project

BOATS = "op.create_table('boats', sa.Column('id', sa.Integer, primary_key=True))"
TRIPS = "op.create_table('trips', sa.Column('id', sa.Integer, primary_key=True))"
EVERY_TYPE = "from tests.matrix.every_type import Base\nmetadata = Base.metadata"


@pytest.fixture
def project(tmp_path: Path, fresh_database: dict[str, Any]) -> Project:
    """Return a project with two revisions."""
    made = Project(tmp_path / "project", fresh_database)
    made.revision("a1", BOATS, "op.drop_table('boats')")
    made.revision("b2", TRIPS, "op.drop_table('trips')", after="a1")
    return made


async def tables(database: Database) -> set[str]:
    """Return the names of the tables, without those that migrations keep for themselves."""
    async with database.engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    return set(names) - {"alembic_version", "moorage_migration_journal"}


async def test_the_second_connection_is_no_warning(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """What holds the lock is a second connection on purpose, which the pool does not warn of."""
    before = work_name.set("a name that no other test has")  # it warns once per name
    try:
        assert await migrations.upgrade(config=project.config) == ["a1", "b2"]
    finally:
        work_name.reset(before)
    assert "takes a second connection" not in caplog.text


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """Hold the lock that migrations take."""
    connector = database.connector
    assert isinstance(connector, LocksMigrations)
    async with database.engine.connect() as connection:
        assert await connector.try_lock_migrations(connection)
        yield
        await connector.unlock_migrations(connection)


async def test_up_and_down_inside_a_running_loop(project: Project, database: Database) -> None:
    """Revisions are applied and undone from a coroutine, which learns what was done."""
    config = project.config
    assert await migrations.current(config=config) == migrations.Status((), ("b2",))
    assert await migrations.upgrade("a1", config=config) == ["a1"]
    assert await tables(database) == {"boats"}
    assert await migrations.upgrade(config=config) == ["b2"]
    assert await migrations.upgrade(config=config) == []
    assert (await migrations.current(config=config)).is_at_head
    assert await migrations.downgrade("base", config=config) == ["b2", "a1"]
    assert await tables(database) == set()
    assert [one.revision for one in migrations.history(config=config)] == ["b2", "a1"]
    assert [one.revision for one in migrations.heads(config=config)] == ["b2"]


async def test_autogenerate_finds_nothing_after_an_upgrade(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """The revision that is written for models with every type makes exactly these models."""
    project = Project(tmp_path / "project", fresh_database, EVERY_TYPE)
    made = await migrations.revision("first tables", config=project.config)
    assert made.message == "first tables"
    assert await migrations.upgrade(config=project.config) == [made.revision]
    assert await migrations.check(config=project.config) == migrations.Check()
    async with database.unit_of_work() as session:
        session.add(a_boat())
    async with database.session() as session:
        assert (await session.scalars(select(Boat.name))).all() == ["Fram"]
    statements = await migrations.sql(config=project.config)
    assert statements.count("CREATE TABLE") == 3
    await migrations.downgrade("base", config=project.config)
    found = await migrations.check(config=project.config)
    assert (found.pending, found.is_clean) == ((made.revision,), False)
    assert await tables(database) == set()


async def test_sql_is_written_as_it_is_meant(
    tmp_path: Path, fresh_database: dict[str, Any]
) -> None:
    """A percent sign in a revision is one in its SQL, whatever the driver wants it to be."""
    project = Project(tmp_path / "project", fresh_database)
    project.revision("a1", """op.execute("UPDATE boats SET load = '50%'")""")
    assert "SET load = '50%';" in await migrations.sql(config=project.config)


async def test_differences_are_told_in_sentences(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """What models and database do not have in common is named, and a filter leaves things out."""
    project = Project(tmp_path / "a", fresh_database, EVERY_TYPE)
    await migrations.revision("first tables", config=project.config)
    await migrations.upgrade(config=project.config)
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE spare (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("ALTER TABLE trips ADD COLUMN spare INTEGER"))
    found = await migrations.check(config=project.config)
    assert set(found.differences) == {
        "table spare: in the database only",
        "column trips.spare: in the database only",
    }
    filtered = Project(
        tmp_path / "b",
        fresh_database,
        f"{EVERY_TYPE}\nkeep = lambda name, kind, parents: name != 'spare'",
        "include_name=keep",
    )
    for path in project.versions.glob("*.py"):
        (filtered.versions / path.name).write_text(path.read_text())
    assert (await migrations.check(config=filtered.config)).is_clean


async def test_who_is_at_head_takes_no_lock(project: Project, database: Database) -> None:
    """An upgrade with nothing to do is done while another process migrates."""
    await migrations.upgrade(config=project.config)
    async with locked(database):
        assert await migrations.upgrade(config=project.config) == []


async def test_a_wait_for_the_lock_ends(project: Project, database: Database) -> None:
    """Who waits for another process says so, gives up in time, and has changed nothing."""
    said: list[str] = []
    async with locked(database):
        with pytest.raises(
            MigrationLockError, match="another process has been migrating"
        ) as caught:
            await migrations.upgrade(config=project.config, wait_seconds=0.2, report=said.append)
    assert "wait_seconds" in caught.value.hint
    assert said[0].startswith("another process migrates; waiting (0 s of 0.2 s)")
    assert await tables(database) == set()
    assert await migrations.upgrade(config=project.config) == ["a1", "b2"]


async def test_the_plain_alembic_command_takes_the_same_lock(
    tmp_path: Path,
    fresh_database: dict[str, Any],
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    `alembic upgrade head` works in the project, waits where `moorage db upgrade` would, and tells
    an error of ours as its own, with the next step and without a traceback.
    """
    project = Project(tmp_path / "project", fresh_database, arguments="wait_seconds=0.2")
    project.revision("a1", BOATS)
    config = ["-c", str(project.config)]
    async with locked(database):
        with pytest.raises(SystemExit):
            await asyncio.to_thread(main, [*config, "upgrade", "head"])
    assert "another process has been migrating" in caplog.text
    assert "Next step: " in caplog.text
    assert "Traceback" not in caplog.text
    await asyncio.to_thread(main, [*config, "upgrade", "head"])
    assert await tables(database) == {"boats"}


async def test_a_cancelled_wait_leaves_nothing(project: Project, database: Database) -> None:
    """A task that is cancelled while it waits for the lock ends, and holds nothing."""
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with locked(database):
        task = asyncio.create_task(
            migrations.upgrade(
                config=project.config,
                report=lambda _: loop.call_soon_threadsafe(waiting.set) and None,
            )
        )
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await migrations.upgrade(config=project.config) == ["a1", "b2"]


async def test_a_revision_that_gets_no_lock_is_tried_again(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """A revision gives up its wait for a table soon, and is run again until it has it."""
    project = Project(
        tmp_path / "project", fresh_database, arguments="lock_timeout_seconds=0.2, attempts=9"
    )
    project.revision("a1", BOATS)
    await migrations.upgrade(config=project.config)
    project.revision("b2", "op.add_column('boats', sa.Column('n', sa.Integer))", after="a1")
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()
    said: list[str] = []

    def report(sentence: str) -> None:
        said.append(sentence)
        loop.call_soon_threadsafe(tried.set)

    async with database.unit_of_work() as session:
        await session.execute(text("INSERT INTO boats (id) VALUES (1)"))
        task = asyncio.create_task(migrations.upgrade(config=project.config, report=report))
        await tried.wait()
    assert await task == ["b2"]
    assert "attempt 2 of 9" in said[0]


async def test_attempts_come_to_an_end(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """Who never gets a lock gets the error of the database."""
    project = Project(
        tmp_path / "project", fresh_database, arguments="lock_timeout_seconds=0.2, attempts=1"
    )
    project.revision("a1", BOATS)
    await migrations.upgrade(config=project.config)
    project.revision("b2", "op.add_column('boats', sa.Column('n', sa.Integer))", after="a1")
    async with database.unit_of_work() as session:
        await session.execute(text("INSERT INTO boats (id) VALUES (1)"))
        with pytest.raises(LockTimeoutError):
            await migrations.upgrade(config=project.config)
    assert await migrations.upgrade(config=project.config) == ["b2"]


async def test_the_gate(project: Project) -> None:
    """A service that does not migrate waits for who does, and fails when nobody did."""
    config = project.config
    with pytest.raises(PendingMigrationsError, match="at no revision and not at b2"):
        await migrations.wait_for_head(0, config=config)
    waiting = asyncio.create_task(migrations.wait_for_head(60, config=config))
    await migrations.upgrade(config=config)
    await waiting


async def test_the_gate_of_an_old_release(project: Project) -> None:
    """A database that a newer release has migrated is told apart, and may be accepted."""
    newer = project.revision("c3", "", after="b2")
    await migrations.upgrade(config=project.config)
    newer.unlink()
    with pytest.raises(PendingMigrationsError, match="no file here knows: a newer release"):
        await migrations.wait_for_head(0, config=project.config)
    await migrations.wait_for_head(0, config=project.config, accept_newer=True)
    with pytest.raises(MigrationError, match="c3") as caught:
        await migrations.upgrade(config=project.config)
    assert caught.value.hint


async def test_a_killed_revision(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """
    A process that dies in the middle of a revision leaves nothing, or is spoken of.

    Where the backend undoes DDL, the next upgrade does the work. Where it cannot, the next upgrade
    stops and names the statement that ran, and both ways out work.
    """
    project = Project(tmp_path / "project", fresh_database)
    killed = f"{BOATS}\nos.kill(os.getpid(), signal.SIGKILL)\n{TRIPS}"
    path = project.revision("a1", killed, "op.drop_table('trips')\nop.drop_table('boats')")
    await asyncio.to_thread(project.run, "alembic", "upgrade", "head", check=False)
    whole = path.read_text().replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")
    path.write_text(whole)
    if database.connector.capabilities.transactional_ddl:
        assert await tables(database) == set()
        assert await migrations.upgrade(config=project.config) == ["a1"]
        return
    assert await tables(database) == {"boats"}
    for _ in range(2):
        with pytest.raises(HalfAppliedMigrationError, match="ran: CREATE TABLE boats") as caught:
            await migrations.upgrade(config=project.config)
    assert caught.value.revision == "a1"
    assert len(caught.value.ran) == 1
    assert "moorage db stamp" in caught.value.hint
    async with database.engine.begin() as connection:  # undone by hand
        await connection.execute(text("DROP TABLE boats"))
    await migrations.stamp("base", config=project.config)
    assert await migrations.upgrade(config=project.config) == ["a1"]
    assert await tables(database) == {"boats", "trips"}


async def test_a_revision_that_fails_half_way(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """After a statement that fails, nothing is left, or the statements before it are named."""
    project = Project(tmp_path / "project", fresh_database)
    project.revision("a1", f"{BOATS}\nop.execute('INSERT INTO boats (id) VALUES (1)')\n{BOATS}")
    with pytest.raises(Exception, match=r"boats.* already exists"):
        await migrations.upgrade(config=project.config)
    if database.connector.capabilities.transactional_ddl:
        assert await tables(database) == set()
        return
    with pytest.raises(HalfAppliedMigrationError) as caught:
        await migrations.upgrade(config=project.config)
    ran = [statement.partition("(")[0].strip() for statement in caught.value.ran]
    assert ran == ["CREATE TABLE boats", "INSERT INTO boats"]
    async with database.engine.begin() as connection:  # done to its end by hand
        await connection.execute(text("INSERT INTO boats (id) VALUES (2)"))
    await migrations.stamp("a1", config=project.config)
    assert await migrations.upgrade(config=project.config) == []


async def test_a_revision_that_fails_at_once_can_be_corrected(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """A revision whose first statement fails has done nothing, and is simply run again."""
    project = Project(tmp_path / "project", fresh_database)
    project.revision("a1", "op.drop_table('nobody')")
    with pytest.raises(Exception, match="nobody"):
        await migrations.upgrade(config=project.config)
    project.revision("a1", BOATS)
    assert await migrations.upgrade(config=project.config) == ["a1"]
    assert await tables(database) == {"boats"}


async def test_altering_a_table_keeps_what_refers_to_it(
    tmp_path: Path, fresh_database: dict[str, Any], database: Database
) -> None:
    """A table that is altered by making it anew does not take along the rows that refer to it."""
    project = Project(tmp_path / "project", fresh_database)
    project.revision(
        "a1",
        """
        op.create_table("boats", sa.Column("id", sa.Integer, primary_key=True),
                        sa.Column("name", sa.String(20)))
        op.create_table("trips", sa.Column("id", sa.Integer, primary_key=True),
                        sa.Column("boat_id", sa.Integer,
                                  sa.ForeignKey("boats.id", ondelete="CASCADE")))
        op.execute("INSERT INTO boats (id, name) VALUES (1, 'Fram')")
        op.execute("INSERT INTO trips (id, boat_id) VALUES (1, 1)")
        """,
    )
    project.revision(
        "b2",
        """
        with op.batch_alter_table("boats") as batch:
            batch.alter_column("name", existing_type=sa.String(20), type_=sa.String(50))
        """,
        after="a1",
    )
    assert await migrations.upgrade(config=project.config) == ["a1", "b2"]
    async with database.session() as session:
        assert (await session.execute(text("SELECT boat_id FROM trips"))).all() == [(1,)]


async def test_a_database_that_is_handed_over_is_migrated(
    project: Project, make_database: DatabaseFactory, backend: str
) -> None:
    """A `Database` of the caller's is migrated instead, one in memory too."""
    database = make_database(name=":memory:") if backend == "sqlite" else make_database()
    assert await migrations.upgrade(config=project.config, database=database) == ["a1", "b2"]
    assert await tables(database) == {"boats", "trips"}
    assert (await migrations.current(config=project.config, database=database)).is_at_head


async def test_loggers_of_the_application_are_left_alone(project: Project) -> None:
    """A migration changes neither handlers nor levels, and silences nobody."""
    mine = logging.getLogger("boats.application")
    mine.setLevel(logging.INFO)
    before = (list(logging.getLogger().handlers), logging.getLogger().level)
    await migrations.upgrade(config=project.config)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert (mine.disabled, mine.level) == (False, logging.INFO)


async def test_alembic_called_in_a_running_loop(project: Project) -> None:
    """Also Alembic's own function works where a loop is running, though it blocks that loop."""
    command.upgrade(Config(project.config), "head")
    assert (await migrations.current(config=project.config)).is_at_head


async def test_models_that_nobody_imports_are_found(
    tmp_path: Path, fresh_database: dict[str, Any]
) -> None:
    """A model in a file that no import reaches is named, with its line."""
    project = Project(tmp_path / "project", fresh_database, EVERY_TYPE)
    (project.folder / "forgotten.py").write_text(
        "from sqlmodel import SQLModel\n"
        "class Boat(Base):\n    __tablename__ = 'boats'\n"
        "class Buoy(Base):\n    __tablename__ = 'buoys'\n"
        "class Pier(SQLModel, table=True):\n    id: int\n"
    )
    for folder in (".venv", "env", "tests"):
        (project.folder / folder).mkdir()
        (project.folder / folder / "other.py").write_text("class A:\n    __tablename__ = 'a'\n")
    (project.folder / "env" / "pyvenv.cfg").touch()
    (project.folder / "broken.py").write_text("class :")
    found = await migrations.check(config=project.config)
    assert list(map(str, found.unreached)) == [
        "forgotten.py:4: Buoy (table buoys) is not imported",
        "forgotten.py:6: Pier (table pier) is not imported",
    ]
    assert not found.is_clean


async def test_an_empty_catalogue_is_refused(project: Project) -> None:
    """Comparing with models that were not imported would drop all tables, and is refused."""
    for compare in (
        migrations.check(config=project.config),
        migrations.revision("x", config=project.config),
    ):
        with pytest.raises(MigrationError, match="a catalogue without any table"):
            await compare
    assert len(list(project.versions.glob("*.py"))) == 2


async def test_branches_are_explained(project: Project) -> None:
    """Two heads are told, with what joins them."""
    project.revision("b3", "", after="a1")
    with pytest.raises(MigrationError, match="Multiple head") as caught:
        await migrations.upgrade(config=project.config)
    assert "merge" in caught.value.hint
    assert await migrations.upgrade("heads", config=project.config) != []
    status = await migrations.current(config=project.config)
    assert sorted(status.current) == ["b2", "b3"]


def test_what_is_written_into_a_project(tmp_path: Path) -> None:
    """`init` writes three lines of env.py and no URL, and overwrites nothing."""
    migrations.init(tmp_path, metadata="boats.models:Base")
    lines = (tmp_path / "migrations/env.py").read_text().split("\n")
    assert [line for line in lines if line] == [
        "from boats.models import Base",
        "from moorage.migrations import run",
        "run(Base.metadata)",
    ]
    assert "url" not in (tmp_path / "alembic.ini").read_text()
    with pytest.raises(MigrationError, match="is there already, and nothing was written"):
        migrations.init(tmp_path)
    with pytest.raises(MigrationError, match="does not name a base"):
        migrations.init(tmp_path / "other", metadata="boats")
