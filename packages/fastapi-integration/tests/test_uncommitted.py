"""A request whose writes nobody commits is an error, not a 200 with nothing behind it."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from moorage import Database, TellsWrites, UncommittedChangesError
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


async def call(session: AsyncSession) -> None:
    """Call a function of the database that writes."""
    await session.execute(text("SELECT remember('bob')"))


async def call_by_connection(session: AsyncSession) -> None:
    """Call it on the session's connection."""
    connection = await session.connection()
    await connection.exec_driver_sql("SELECT remember('bob')")


async def copy(session: AsyncSession) -> None:
    """Give rows to the driver, in the transaction that the first statement has begun."""
    await session.execute(select(Account.id))
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    await driver.copy_records_to_table("account", records=[(7, "bob", 0)])


UNSEEN: dict[str, Write] = {"function": call, "connection": call_by_connection, "COPY": copy}


@pytest.fixture
async def telling(accounts: Database) -> Database:
    """Return a database that tells by itself whether a transaction has written."""
    if not isinstance(accounts.connector, TellsWrites):
        pytest.skip("this backend does not tell whether a transaction has written")
    async with accounts.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION remember(owner text) RETURNS void LANGUAGE sql AS"
                " 'INSERT INTO account (id, owner, balance) VALUES (7, owner, 0)'"
            )
        )
    return accounts


@pytest.mark.parametrize("write", UNSEEN.values(), ids=UNSEEN)
async def test_what_nobody_sees_the_database_tells(
    write: Write, telling: Database, serve: Serve
) -> None:
    """Writes that only the database knows of are a 500 without a commit, and a 200 with one."""
    app = FastAPI()

    @app.post("/{commit}")
    async def create(session: DBSession, commit: bool) -> None:
        await write(session)
        if commit:
            await session.commit()
            await session.execute(text("SELECT 1"))

    assert (await serve(app).post("/false")).status_code == 500
    assert await count_accounts(telling) == 1
    assert (await serve(app).post("/true")).status_code == 200
    assert await count_accounts(telling) == 2


async def read_compiled(session: AsyncSession) -> None:
    """Read what SQLAlchemy has compiled."""
    await session.execute(select(Account))


async def read_by_hand(session: AsyncSession) -> None:
    """Read by hand."""
    await session.execute(text("SELECT owner FROM account"))


async def fail_by_hand(session: AsyncSession) -> None:
    """Read by hand, fail, and swallow that: the transaction is lost, whoever commits it."""
    await read_by_hand(session)
    with suppress(SQLAlchemyError):
        await session.execute(text("SELECT nothing FROM account"))


@pytest.mark.parametrize(
    ("read", "statements"), [(read_compiled, 1), (read_by_hand, 2), (fail_by_hand, 3)]
)
async def test_the_database_is_asked_only_behind_sql_by_hand(
    read: Write, statements: int, telling: Database, serve: Serve
) -> None:
    """A session that SQLAlchemy knows all about costs no question; one that only reads is fine."""
    app = FastAPI()
    questions: list[str] = []

    @event.listens_for(telling.engine.sync_engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        questions.append(statement)

    @app.get("/")
    async def get(session: DBSession) -> None:
        await read(session)

    assert (await serve(app).get("/")).status_code == 200
    assert len(questions) == statements


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
