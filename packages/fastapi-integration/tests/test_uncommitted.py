"""A request whose writes nobody commits is an error, not a 200 with nothing behind it."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from moorage import Database, UncommittedChangesError
from moorage_fastapi import DBSession, DBUnitOfWork, lifespan
from tests.matrix.schema import Account, count_accounts

Serve = Callable[..., AsyncClient]
Write = Callable[[AsyncSession], Awaitable[object]]


async def add(session: AsyncSession) -> None:
    """Leave a new object pending."""
    session.add(Account(owner="bob"))


async def change(session: AsyncSession) -> None:
    """Change an object that was loaded."""
    (await session.get_one(Account, 1)).balance = 5


async def flush(session: AsyncSession) -> None:
    """Flush a new object."""
    session.add(Account(owner="bob"))
    await session.flush()


async def below(session: AsyncSession) -> None:
    """Write on the session's connection."""
    connection = await session.connection()
    await connection.execute(insert(Account).values(owner="bob", balance=0))


WRITES: dict[str, Write] = {
    "pending": add,
    "changed": change,
    "flushed": flush,
    "insert": lambda session: session.execute(insert(Account).values(owner="bob", balance=0)),
    "update": lambda session: session.execute(update(Account).values(balance=3)),
    "delete": lambda session: session.execute(delete(Account)),
    "text": lambda session: session.execute(text("-- by hand\nUPDATE account SET balance = 3")),
    "connection": below,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_writes_without_a_commit_are_a_500(
    write: Write, accounts: Database, serve: Serve
) -> None:
    """However a session wrote, its end without a commit fails before the response is sent."""
    app = FastAPI()

    @app.post("/")
    async def create(session: DBSession) -> None:
        await write(session)

    assert (await serve(app).post("/")).status_code == 500
    assert await count_accounts(accounts) == 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_committed_writes_are_fine(write: Write, accounts: Database, serve: Serve) -> None:
    """The same writes are a 200 when the session is committed, or rolled back on purpose."""
    app = FastAPI()

    @app.post("/{ending}")
    async def create(session: DBSession, ending: str) -> None:
        await write(session)
        await getattr(session, ending)()
        await session.execute(select(Account))

    for ending in ("rollback", "commit"):
        assert (await serve(app).post(f"/{ending}")).status_code == 200


async def test_reading_is_fine(accounts: Database, serve: Serve) -> None:
    """What only reads needs no commit, nor does an attribute that is set to what it was."""
    app = FastAPI()

    @app.get("/")
    async def read(session: DBSession) -> str:
        account = await session.get_one(Account, 1)
        account.balance = account.balance
        await session.execute(text("SELECT 'delete' FROM account"))
        return account.owner

    assert (await serve(app).get("/")).status_code == 200


async def test_the_unit_commits(accounts: Database, serve: Serve) -> None:
    """Who asks for the unit anywhere in the request gets no complaint."""
    app = FastAPI()

    @app.post("/")
    async def create(session: DBSession, unit: DBUnitOfWork) -> None:
        session.add(Account(owner="bob"))

    assert (await serve(app).post("/")).status_code == 200
    assert await count_accounts(accounts) == 2


def test_the_error_says_what_to_do(database: Database) -> None:
    """The error names the unit of work, and the setting that turns it into a warning."""
    app = FastAPI(lifespan=lifespan(database))

    @app.post("/")
    async def create(session: DBSession) -> None:
        session.add(Account(owner="bob"))

    with TestClient(app) as client, pytest.raises(UncommittedChangesError) as caught:
        client.post("/")
    assert "lost objects that were added" in str(caught.value)
    assert "unit: DBUnitOfWork" in caught.value.hint


def test_a_warning_instead(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Who opts out gets a warning in the log, and the response."""
    app = FastAPI(lifespan=lifespan(database, on_uncommitted="warn"))

    @app.post("/")
    async def create(session: DBSession) -> None:
        session.add(Account(owner="bob"))

    with caplog.at_level(logging.WARNING, logger="moorage.fastapi"), TestClient(app) as client:
        assert client.post("/").status_code == 200
    assert "which nobody had committed" in caplog.text
