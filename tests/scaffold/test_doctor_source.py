"""What blocks, leaks or shares in asynchronous code is found; its careful twin is not."""

from pathlib import Path
from textwrap import dedent

import pytest

from moorage.doctor.finding import Report
from moorage.doctor.source import check_source

ROOT = Path(__file__).parents[2]
STORE = """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

engine = create_engine("sqlite://")
SessionLocal = sessionmaker(engine)


def get_db():
    with SessionLocal() as db:
        yield db
"""
# Each has the code and the line that is told, the faulty module, and one that is right.
FAULTS: dict[str, tuple[str, int, str, str]] = {
    "a helper that sleeps": (
        "A602",
        13,
        """
        import time


        def pause():
            time.sleep(1)


        def wait():
            pause()


        async def handle():
            wait()
        """,
        """
        import asyncio
        import time


        def pause():
            time.sleep(1)


        async def handle():
            await asyncio.to_thread(pause)
        """,
    ),
    "a helper of another module": (
        "A603",
        5,
        """
        from .remote import fetch as get


        async def handle():
            return get("x")
        """,
        """
        from .remote import fetch as get


        def handle():
            return get("x")
        """,
    ),
    "a method": (
        "A601",
        9,
        """
        import sqlite3


        class Store:
            def read(self):
                return sqlite3.connect("x").execute("SELECT 1")

            async def handle(self):
                return self.read()
        """,
        """
        import aiosqlite


        class Store:
            async def read(self):
                async with aiosqlite.connect("x") as connection:
                    await connection.execute("SELECT 1")
        """,
    ),
    "sessions of another module": (
        "A601",
        5,
        """
        from shop.store import SessionLocal


        async def handle():
            with SessionLocal() as session:
                session.commit()
        """,
        """
        from shop.store import SessionLocal


        def handle():
            with SessionLocal() as session:
                session.commit()
        """,
    ),
    "a blocking session of a request": (
        "A601",
        13,
        """
        from typing import Annotated

        from fastapi import APIRouter, Depends
        from shop.store import get_db
        from sqlalchemy.orm import Session

        router = APIRouter()
        DB = Annotated[Session, Depends(get_db)]


        @router.get("/boats")
        async def boats(db: DB):
            return db.execute("SELECT 1")
        """,
        """
        from typing import Annotated

        from fastapi import APIRouter, Depends
        from shop.store import get_db
        from sqlalchemy.orm import Session

        router = APIRouter()


        @router.get("/boats")
        def boats(db: Annotated[Session, Depends(get_db)]):
            return db.execute("SELECT 1")
        """,
    ),
    "a blocking engine": (
        "A601",
        5,
        """
        from shop import store


        async def handle():
            with store.engine.connect() as connection:
                connection.rollback()
        """,
        """
        from moorage import get_engine


        async def handle():
            async with get_engine().connect() as connection:
                await connection.rollback()
        """,
    ),
    "an engine for each request": (
        "A604",
        6,
        """
        from fastapi import Depends
        from sqlalchemy.ext.asyncio import create_async_engine


        def get_engine():
            return create_async_engine("sqlite+aiosqlite://")


        async def handle(engine=Depends(get_engine)): ...
        """,
        """
        import asyncio

        from sqlalchemy.ext.asyncio import create_async_engine


        async def load():
            engine = create_async_engine("sqlite+aiosqlite://")
            await engine.dispose()


        asyncio.run(load())
        """,
    ),
    "a database for each request": (
        "A604",
        9,
        """
        from fastapi import APIRouter
        from moorage import Database

        router = APIRouter()


        @router.get("/")
        async def index():
            async with Database() as database:
                await database.ping()
        """,
        """
        from moorage import Database


        async def job():
            async with Database() as database:
                await database.ping()
        """,
    ),
    "a session in several tasks": (
        "A606",
        8,
        """
        import asyncio

        from sqlalchemy.ext.asyncio import AsyncSession


        async def handle(db: AsyncSession, keys):
            async with asyncio.TaskGroup() as group:
                [group.create_task(one(db, key)) for key in keys]
        """,
        """
        import asyncio

        import aiohttp
        from moorage import get_database


        async def handle(keys):
            async with aiohttp.ClientSession() as session:
                await asyncio.gather(*(fetch(session, key) for key in keys))
            async with asyncio.TaskGroup() as group:
                for key in keys:
                    async with get_database().session() as db:
                        group.create_task(one(db, key))
        """,
    ),
    "a session given twice": (
        "A606",
        9,
        """
        import asyncio

        from moorage import UnitOfWork


        async def handle():
            async with UnitOfWork() as db:
                first = asyncio.create_task(one(db))
                second = asyncio.create_task(two(db))
                await first, await second
        """,
        """
        import asyncio

        from moorage import UnitOfWork


        async def handle():
            async with UnitOfWork() as db:
                await asyncio.create_task(one(db))
        """,
    ),
    "no await": (
        "A607",
        5,
        """
        from sqlalchemy.ext.asyncio import AsyncSession


        async def handle(session: AsyncSession):
            result = session.execute("SELECT 1")
            return result.scalars()
        """,
        """
        import asyncio

        from sqlalchemy.ext.asyncio import AsyncSession


        async def handle(session: AsyncSession):
            result = await session.execute("SELECT 1")
            await asyncio.wait_for(session.execute("SELECT 1"), 1)
            work = session.scalar("SELECT 1")
            await session.run_sync(lambda below: below.execute("SELECT 1").one())

            def blocking(session):
                session.execute("SELECT 1")

            await session.run_sync(blocking)
            await work
            return result.scalars()
        """,
    ),
    "a commit that is lost": (
        "A607",
        6,
        """
        from moorage_fastapi import DBUnitOfWork


        async def handle(unit: DBUnitOfWork):
            unit.session.add(1)
            unit.session.flush()
        """,
        """
        from moorage_fastapi import DBUnitOfWork


        async def handle(unit: DBUnitOfWork):
            unit.session.add(1)
            await unit.session.flush()
        """,
    ),
    "a session after its request": (
        "A608",
        6,
        """
        from fastapi import BackgroundTasks
        from sqlalchemy.ext.asyncio import AsyncSession


        async def handle(session: AsyncSession, tasks: BackgroundTasks):
            tasks.add_task(mail, session, 7)
        """,
        """
        from fastapi import BackgroundTasks
        from sqlalchemy.ext.asyncio import AsyncSession


        async def handle(session: AsyncSession, tasks: BackgroundTasks):
            tasks.add_task(mail, 7)
        """,
    ),
    "attributes that expire": (
        "A609",
        4,
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker
        from shop.engines import engine

        make_session = async_sessionmaker(engine)
        """,
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker
        from shop.engines import engine

        make_session = async_sessionmaker(engine, expire_on_commit=False)
        """,
    ),
}


def look(folder: Path) -> list[tuple[str, str, int]]:
    """Return code, file and line of what is found in a folder."""
    report = Report()
    check_source(folder, report)
    assert all(finding.why and finding.advice for finding in report.findings)
    return [(one.code, one.path, one.line) for one in report.findings]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_told_from_its_careful_twin(fault: str, tmp_path: Path) -> None:
    """A mistake has one finding, at its line; the same done right has none."""
    code, line, wrong, right = FAULTS[fault]
    shop = tmp_path / "src/shop"
    shop.mkdir(parents=True)
    (shop / "store.py").write_text(STORE)
    (shop / "remote.py").write_text(
        "import requests\n\n\ndef fetch(url):\n    return requests.get(url)\n"
    )
    (shop / "views.py").write_text(dedent(wrong).lstrip("\n"))
    assert look(tmp_path) == [(code, "src/shop/views.py", line)]
    (shop / "views.py").write_text(dedent(right).lstrip("\n"))
    assert look(tmp_path) == []


def test_the_way_to_what_blocks_is_told(tmp_path: Path) -> None:
    """Of a helper, the finding says what it calls in the end, and where."""
    (tmp_path / "slow.py").write_text("import time\n\n\ndef wait():\n    time.sleep(1)\n")
    (tmp_path / "main.py").write_text("import slow\n\n\nasync def handle():\n    slow.wait()\n")
    report = Report()
    check_source(tmp_path, report)
    (finding,) = report.findings
    assert finding.place == "main.py:5"
    assert finding.what == "slow.wait(), which calls time.sleep() (slow.py:5), in async def handle"


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "examples").iterdir()))
def test_examples_have_no_mistakes(folder: str) -> None:
    """Nothing is found in the examples of this repository."""
    assert look(ROOT / "examples" / folder) == []


def test_packages_have_no_mistakes() -> None:
    """Of the packages themselves only one is told of: it opens memory, which waits for nobody."""
    found = {one[:2] for path in sorted((ROOT / "packages").glob("*/src")) for one in look(path)}
    assert found == {("A601", "moorage_sqlite/connector.py")}
