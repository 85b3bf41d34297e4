"""The database of the process: one, for everybody, made when it is first asked for."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from moorage import (
    Database,
    SettingsError,
    UnitOfWork,
    dispose_engine,
    get_database,
    get_engine,
    get_sessionmaker,
    use_database,
)
from tests.fix_database import DatabaseFactory


@pytest.fixture
def environment(
    fresh_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Point the environment at the test's database, and leave no database behind."""
    for name, value in fresh_database.items():
        monkeypatch.setenv(f"DB_{name.upper()}", str(value))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)  # no .env of somebody else
    yield
    asyncio.run(dispose_engine())


@pytest.mark.usefixtures("environment")
def test_one_engine_for_everybody() -> None:
    """Every caller, with or without a loop and in any thread, gets the same engine."""
    engines: list[AsyncEngine] = [get_engine()]

    async def in_a_loop() -> None:
        engines.append(get_engine())

    asyncio.run(in_a_loop())
    threads = [threading.Thread(target=lambda: engines.append(get_engine())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 1
    assert get_sessionmaker() is get_sessionmaker()


@pytest.mark.usefixtures("environment")
async def test_a_unit_needs_no_arguments() -> None:
    """A unit of work finds the database of the process by itself."""
    async with UnitOfWork() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    assert get_database().pool_statistics().in_use == 0
    await dispose_engine()


@pytest.mark.usefixtures("environment")
async def test_after_its_disposal_a_new_one_is_made() -> None:
    """Disposing ends the engine; the next call makes another one from the environment."""
    before = get_engine()
    await get_database().ping()
    await dispose_engine()
    await dispose_engine()
    assert get_engine() is not before
    await get_database().ping()
    await dispose_engine()


@pytest.mark.usefixtures("environment")
async def test_an_application_may_bring_its_own(make_database: DatabaseFactory) -> None:
    """The database that was put in place is the one that everybody gets."""
    database = make_database()
    use_database(database)
    assert get_engine() is database.engine
    async with UnitOfWork() as session:
        await session.execute(text("SELECT 1"))
    await dispose_engine()
    assert database.state == "disposed"


def test_wrong_environment_is_an_error_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong variable is reported where the database is first asked for, and can be mended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_PORT", "abc")
    with pytest.raises(SettingsError, match="DB_PORT is not a whole number"):
        get_engine()


FORKING = """
import asyncio, os, sys
from moorage import dispose_engine, get_database, get_engine
from sqlalchemy import text

async def backend():
    async with get_database().session() as session:
        return (await session.execute(text(sys.argv[1]))).scalar_one()

async def parent():
    mine = await backend()
    get_database().is_the_parents = True
    child = os.fork()
    if child == 0:
        try:
            # A new loop in a new thread: the child's own thread still counts as running one.
            import gc, threading
            # Whatever is not kept is collected now, finalizers and all.
            get_engine(); gc.collect()
            found = []
            async def work():
                found.append(not hasattr(get_database(), "is_the_parents")); gc.collect()
                found.append(await backend())
                await dispose_engine()
            thread = threading.Thread(target=lambda: asyncio.run(work()))
            thread.start()
            thread.join()
            os._exit(0 if found[0] and (found[1] != mine or mine == 1) else 3)
        except BaseException:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    assert get_database().is_the_parents
    assert await backend() == mine
    await dispose_engine()

asyncio.run(parent())
"""
CONNECTION_ID = {
    "postgres": "SELECT pg_backend_pid()",
    "mysql": "SELECT CONNECTION_ID()",
    "sqlite": "SELECT 1",
}


@pytest.mark.usefixtures("environment")
def test_a_forked_child_gets_its_own(backend: str) -> None:
    """A forked child opens its own connections, and the parent goes on with its old ones."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, CONNECTION_ID[backend]],
        env={**os.environ, "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_two_databases_side_by_side(make_database: DatabaseFactory) -> None:
    """Two databases of one process have their own engines, and one ends without the other."""
    one, two = make_database(), make_database()
    await asyncio.gather(one.ping(), two.ping())
    assert one.engine is not two.engine
    await one.dispose()
    await two.ping()
    assert isinstance(two, Database)
