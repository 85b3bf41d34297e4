"""What a client hears when the database says no."""

import logging
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text

from moorage import (
    AuthenticationError,
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionLostError,
    Database,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DeadlockError,
    ForeignKeyViolationError,
    IdentityError,
    IdentityRequiredError,
    LockTimeoutError,
    MoorageError,
    NotNullViolationError,
    PoolExhaustedError,
    ReadOnlyError,
    SerializationError,
    StatementTimeoutError,
    UncommittedChangesError,
    UndefinedObjectError,
    UniqueViolationError,
    use_database,
)
from moorage_fastapi import (
    PROBLEM_RESPONSES,
    DBSession,
    DBUnitOfWork,
    Problem,
    RequestDeadlineError,
    add_problem_handlers,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account

Serve = Callable[..., AsyncClient]
SECRETS = ("INSERT", "account", "ada", "localhost", "127.0.0.1", "DB_")

ANSWERS: dict[type[MoorageError], tuple[int, str | None]] = {
    UniqueViolationError: (409, None),
    ForeignKeyViolationError: (409, None),
    NotNullViolationError: (422, None),
    DataError: (422, None),
    PoolExhaustedError: (503, "1"),
    LockTimeoutError: (503, "1"),
    DeadlockError: (503, "1"),
    DatabaseUnavailableError: (503, "5"),
    ConnectionLostError: (503, "5"),
    ReadOnlyError: (503, "5"),
    AuthenticationError: (503, "5"),
    DatabaseMissingError: (503, "5"),
    SerializationError: (503, "1"),
    CheckViolationError: (422, None),
    RequestDeadlineError: (504, None),
    UncommittedChangesError: (500, None),
    StatementTimeoutError: (504, None),
    IdentityError: (403, None),
    IdentityRequiredError: (500, None),
    CommitOutcomeUnknownError: (500, None),
    UndefinedObjectError: (500, None),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_each_error_has_its_status(kind: type[MoorageError], serve: Serve) -> None:
    """The class of the error decides on the status, and on when to come back."""
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise kind("INSERT INTO account for ada at 127.0.0.1 (DB_HOST)", hint="see DB_HOST")

    response = await serve(app).get("/")
    assert (response.status_code, response.headers.get("Retry-After")) == ANSWERS[kind]
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:moorage:{kind.anchor}"
    assert body["instance"].startswith("urn:uuid:")
    told = str({key: value for key, value in body.items() if key != "instance"})  # it is random
    assert not any(secret in told for secret in SECRETS)


async def test_a_commit_that_fails_is_answered(accounts: Database, serve: Serve) -> None:
    """A constraint that is violated by the request's commit is a 409, and names its columns."""
    app = FastAPI()
    add_problem_handlers(app)

    @app.post("/")
    async def create(unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="ada"))

    response = await serve(app).post("/")
    assert response.status_code == 409
    assert response.json().get("fields", ["owner"]) == ["owner"]
    assert not any(secret in response.text for secret in ("INSERT", "account", "127.0.0.1"))


FAILING = {
    "unique": ("INSERT INTO account (id, owner, balance) VALUES (1, 's3cret', 0)", 409),
    "missing": ("INSERT INTO account (id, balance) VALUES (7, 0)", 422),
    "undefined": ("SELECT s3cret FROM account", 500),
    "syntax": ("SELEC s3cret FROM account", 500),
}


@pytest.mark.parametrize("statement", FAILING)
async def test_nothing_of_a_real_failure_is_told(
    statement: str, accounts: Database, serve: Serve
) -> None:
    """Neither SQL nor a table, a value or a place is in an answer, unless debug mode shows them."""
    sql, status = FAILING[statement]
    told: list[str] = []
    for debug in (False, True):
        app = FastAPI(debug=debug)
        add_problem_handlers(app)

        @app.post("/")
        async def fail(session: DBSession) -> None:
            await session.execute(text(sql))

        response = await serve(app).post("/")
        assert response.status_code == status
        told.append(f"{response.text} {response.headers}".lower())
    settings = accounts.settings
    secrets = {"insert", "selec", "account", "s3cret", settings.name, settings.host, "asyncpg"}
    assert not {secret for secret in secrets if secret.lower() in told[0]}
    assert '"detail"' in told[1]


async def test_nothing_of_a_place_is_told(
    make_database: DatabaseFactory, backend: str, serve: Serve
) -> None:
    """Where the database was looked for is between us and the log."""
    where = {"name": "/nowhere/app.db"} if backend == "sqlite" else {"host": "::1", "port": 1}
    use_database(make_database(**where))
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/")
    async def read(session: DBSession) -> None:
        await session.execute(text("SELECT 1"))

    response = await serve(app).get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert not any(secret in response.text for secret in ("nowhere", "::1", "DB_", "refused"))


async def test_failures_are_logged_under_their_number(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client is not told stands in the log, under the number that the client has."""
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise CommitOutcomeUnknownError("no answer to COMMIT within 10 s")

    with caplog.at_level(logging.ERROR, logger="moorage.fastapi"):
        response = await serve(app).get("/")
    assert response.json()["instance"] in caplog.text
    assert "no answer to COMMIT within 10 s" in caplog.text


async def test_debug_mode_tells_more(serve: Serve) -> None:
    """An application in debug mode shows the message."""
    app = FastAPI(debug=True)
    add_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise DataError("value too long", hint="correct the value")

    assert "value too long" in (await serve(app).get("/")).json()["detail"]


async def test_answers_can_be_replaced(serve: Serve) -> None:
    """An application gives single classes another answer; their bases keep theirs."""
    app = FastAPI()
    add_problem_handlers(app, {UniqueViolationError: Problem(418, "This name is taken.")})

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise {"unique": UniqueViolationError, "foreign": ForeignKeyViolationError}[name]("no")

    client = serve(app)
    assert (await client.get("/unique")).json()["title"] == "This name is taken."
    assert (await client.get("/foreign")).status_code == 409


async def test_a_pool_that_is_dry_is_a_503(make_database: DatabaseFactory, serve: Serve) -> None:
    """Running dry is answered within the pool's own deadline, with the time to come back."""
    database = make_database(pool_size=1, max_overflow=0, pool_timeout_seconds=0.05)
    use_database(database)
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/")
    async def read(unit: DBUnitOfWork) -> None:
        await unit.session.execute(text("SELECT 1"))

    async with database.engine.connect():
        response = await serve(app).get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


def test_openapi_shows_them() -> None:
    """The responses are there for OpenAPI, in their media type."""
    app = FastAPI(responses=PROBLEM_RESPONSES)

    @app.get("/")
    async def read() -> None:
        """Do nothing."""

    shown = app.openapi()["paths"]["/"]["get"]["responses"]
    assert {"403", "409", "422", "500", "503", "504"} <= set(shown)
    assert all(
        "application/problem+json" in shown[status]["content"]
        for status in ("403", "409", "422", "500", "503", "504")
    )
    assert "Retry-After" in shown["503"]["headers"]
    assert "application/json" in shown["422"]["content"]  # FastAPI's own, of an invalid request


def test_every_error_has_an_answer() -> None:
    """No class of the tree is without an answer: its root has one."""
    app = FastAPI()
    add_problem_handlers(app)
    assert MoorageError in app.exception_handlers
