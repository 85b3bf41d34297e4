# ruff: noqa: B008 - the plain `Depends` line is what is tested here
"""A unit of work commits before the response is sent, or the response is not a success."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import SecurityScopes
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database, DatabaseMissingError, UnitOfWork, use_database
from moorage_fastapi import DBSession, DBUnitOfWork, get_db_session, get_unit_of_work
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, balances, count_accounts

Serve = Callable[..., AsyncClient]
Reply = type[BaseModel]


def refuse(session: object) -> NoReturn:
    """Stand for whatever can go wrong when a session commits."""
    raise RuntimeError("no commit today")


async def listener_fails(session: AsyncSession) -> None:
    """Let the commit fail before anything is sent to the database."""
    session.add(Account(owner="bob"))
    event.listen(session.sync_session, "before_commit", refuse)


async def flush_fails(session: AsyncSession) -> None:
    """Let the flush of the commit fail in the database."""
    session.add(Account(owner="bob"))
    session.add(Account(owner="ada"))


Spoil = Callable[[AsyncSession], Awaitable[None]]
failures = pytest.mark.parametrize(
    "spoil", [listener_fails, flush_fails], ids=lambda spoil: spoil.__name__
)


async def test_commit_comes_before_the_response(
    reply: Reply, story: list[str], accounts: Database, serve: Serve
) -> None:
    """The response is serialised, then the unit commits, then the response is sent."""
    app = FastAPI()

    @app.post("/", response_model=reply)
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> Any:
        unit.session.add(Account(owner="bob"))
        return {}

    response = await serve(app, story).post("/")
    assert response.status_code == 200
    assert story == ["serialised", "commit", "closed", "sent 200"]
    assert await count_accounts(accounts) == 2


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_commit_comes_before_the_response_in_every_scope(
    scope: Any, reply: Reply, story: list[str], serve: Serve
) -> None:
    """The user's own ``scope=`` does not move the commit."""
    app = FastAPI()

    @app.post("/", response_model=reply)
    async def create(unit: UnitOfWork = Depends(get_unit_of_work, scope=scope)) -> Any:
        unit.session.add(Account(owner="bob"))
        return {}

    await serve(app, story).post("/")
    assert story == ["serialised", "commit", "closed", "sent 200"]


@failures
async def test_failed_commit_is_a_500(
    spoil: Spoil, reply: Reply, story: list[str], accounts: Database, serve: Serve
) -> None:
    """A commit that fails is a 500, and nothing of the unit is there."""
    app = FastAPI()

    @app.post("/", response_model=reply)
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> Any:
        await spoil(unit.session)
        await unit.session.connection()
        return {}

    response = await serve(app, story).post("/")
    assert response.status_code == 500
    assert story == ["serialised", "closed", "sent 500"]
    assert await count_accounts(accounts) == 1


@failures
async def test_usual_dependency_loses_the_row_behind_a_200(
    spoil: Spoil, accounts: Database, serve: Serve
) -> None:
    """The dependency that everybody writes answers 200, and nothing was stored."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with accounts.sessionmaker() as session:
            yield session
            await session.commit()

    app = FastAPI()

    @app.post("/")
    async def create(session: AsyncSession = Depends(get_session)) -> None:
        await spoil(session)

    response = await serve(app).post("/")
    assert response.status_code == 200
    assert await count_accounts(accounts) == 1


async def test_constraint_that_fails_at_commit_is_a_500(
    backend: str, story: list[str], accounts: Database, serve: Serve
) -> None:
    """A deferred constraint, which only COMMIT itself checks, is a 500 as well."""
    if backend == "mysql":
        pytest.skip("MySQL has no deferred constraints")
    async with accounts.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE late (account_id INTEGER NOT NULL REFERENCES account (id)"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    story.clear()
    app = FastAPI()

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        await unit.session.execute(text("INSERT INTO late (account_id) VALUES (99)"))

    response = await serve(app, story).post("/")
    assert response.status_code == 500
    assert story == ["commit", "closed", "sent 500"]
    async with accounts.session() as session:
        assert (await session.execute(text("SELECT * FROM late"))).all() == []


async def test_failed_commit_reaches_the_exception_handlers(
    accounts: Database, serve: Serve
) -> None:
    """The application's exception handlers see a commit that failed, and answer for it."""
    app = FastAPI()

    @app.exception_handler(RuntimeError)
    async def explain(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409)

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        await listener_fails(unit.session)

    response = await serve(app).post("/")
    assert (response.status_code, response.json()) == (409, {"detail": "no commit today"})
    assert await count_accounts(accounts) == 1


async def raise_http(session: AsyncSession) -> Any:
    """Give up in FastAPI's way."""
    raise HTTPException(418)


async def raise_other(session: AsyncSession) -> Any:
    """Give up by accident."""
    raise LookupError("accident")


async def return_nonsense(session: AsyncSession) -> Any:
    """Return what the response model refuses."""
    return {"text": object()}


@pytest.mark.parametrize(
    ("give_up", "status"),
    [(raise_http, 418), (raise_other, 500), (return_nonsense, 500)],
    ids=["HTTPException", "exception", "response model"],
)
async def test_exception_rolls_back(
    give_up: Callable[[AsyncSession], Awaitable[Any]],
    status: int,
    reply: Reply,
    story: list[str],
    accounts: Database,
    serve: Serve,
) -> None:
    """Any exception rolls back before the response is sent, and keeps its status."""
    app = FastAPI()

    @app.post("/", response_model=reply)
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> Any:
        unit.session.add(Account(owner="bob"))
        await unit.session.flush()
        return await give_up(unit.session)

    response = await serve(app, story).post("/")
    assert response.status_code == status
    assert story == ["closed", f"sent {status}"]
    assert await count_accounts(accounts) == 1


async def test_invalid_request_rolls_back(
    story: list[str], accounts: Database, serve: Serve
) -> None:
    """What a dependency wrote is undone if the request turns out to be invalid."""

    async def log_call(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        unit.session.add(Account(owner="bob"))
        await unit.session.flush()

    app = FastAPI(dependencies=[Depends(log_call)])

    @app.post("/")
    async def create(amount: int) -> None: ...

    response = await serve(app, story).post("/", params={"amount": "much"})
    assert response.status_code == 422
    assert story == ["closed", "sent 422"]
    assert await count_accounts(accounts) == 1


@pytest.mark.parametrize("status", [200, 204, 404, 409, 500])
async def test_returned_response_commits(status: int, accounts: Database, serve: Serve) -> None:
    """A response that is returned commits, whatever its status."""
    app = FastAPI()

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> JSONResponse:
        unit.session.add(Account(owner="bob"))
        return JSONResponse(None, status_code=status)

    response = await serve(app).post("/")
    assert response.status_code == status
    assert await count_accounts(accounts) == 2


async def test_session_without_unit_commits_nothing(accounts: Database, serve: Serve) -> None:
    """What a session wrote is rolled back at its end if nobody asked for the unit."""
    app = FastAPI()

    @app.post("/")
    async def create(session: AsyncSession = Depends(get_db_session)) -> None:
        session.add(Account(owner="bob"))
        await session.flush()

    await serve(app).post("/")
    assert await count_accounts(accounts) == 1


async def current_user(session: AsyncSession = Depends(get_db_session)) -> Account:
    """Load the caller, as an authentication dependency does."""
    return (await session.scalars(select(Account))).one()


async def scoped_user(
    scopes: SecurityScopes, session: AsyncSession = Depends(get_db_session)
) -> Account:
    """Load the caller and look at the scopes, as FastAPI's own tutorial does."""
    return (await session.scalars(select(Account))).one()


@pytest.mark.parametrize(
    "asked",
    [
        Depends(current_user),
        Depends(current_user, scope="request"),
        Depends(current_user, use_cache=False),
        Security(current_user, scopes=["me"]),
        Security(scoped_user, scopes=["me"]),
    ],
    ids=["Depends", "request scope", "use_cache=False", "Security", "SecurityScopes"],
)
async def test_session_and_unit_are_one(
    asked: Any, story: list[str], accounts: Database, serve: Serve
) -> None:
    """A user who was loaded by the session is stored by the unit, on one connection."""
    app = FastAPI()

    @app.post("/")
    async def deposit(
        user: Account = asked,
        session: AsyncSession = Depends(get_db_session),
        unit: UnitOfWork = Depends(get_unit_of_work),
    ) -> bool:
        user.balance = 10
        return unit.session is session and user in session

    response = await serve(app, story).post("/")
    assert response.json() is True
    assert story == ["commit", "closed", "sent 200"]
    assert await balances(accounts) == [10]


async def test_unit_may_be_asked_for_first(
    story: list[str], accounts: Database, serve: Serve
) -> None:
    """The order in which session and unit are asked for does not matter."""
    app = FastAPI()

    @app.post("/")
    async def deposit(unit: DBUnitOfWork, session: DBSession) -> bool:
        session.add(Account(owner="bob"))
        return unit.session is session

    assert (await serve(app, story).post("/")).json() is True
    assert story == ["commit", "closed", "sent 200"]
    assert await count_accounts(accounts) == 2


async def in_dependency(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
    """Ask for the unit and for nothing else."""


def by_route(app: FastAPI, endpoint: Callable[..., Any]) -> None:
    """Ask in a dependency of the route."""
    app.post("/", dependencies=[Depends(in_dependency)])(endpoint)


def by_router(app: FastAPI, endpoint: Callable[..., Any]) -> None:
    """Ask in a dependency of the router."""
    router = APIRouter(dependencies=[Depends(get_unit_of_work)])
    router.post("/")(endpoint)
    app.include_router(router)


def by_app(app: FastAPI, endpoint: Callable[..., Any]) -> None:
    """Ask in a dependency of the application."""
    app.router.dependencies.append(Depends(in_dependency))
    app.post("/")(endpoint)


@pytest.mark.parametrize("place", [by_route, by_router, by_app], ids=lambda place: place.__name__)
async def test_one_dependency_may_ask_for_the_unit(
    place: Callable[[FastAPI, Callable[..., Any]], None], accounts: Database, serve: Serve
) -> None:
    """Asking for the unit anywhere in a request makes its session commit."""

    async def create(session: AsyncSession = Depends(get_db_session)) -> None:
        session.add(Account(owner="bob"))

    app = FastAPI()
    place(app, create)
    assert (await serve(app).post("/")).status_code == 200
    assert await count_accounts(accounts) == 2


async def test_requests_have_units_of_their_own(accounts: Database, serve: Serve) -> None:
    """Two requests one after the other get two units with two sessions."""
    app = FastAPI()
    seen: list[object] = []

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        seen.extend([unit, unit.session])

    client = serve(app)
    assert [(await client.post("/")).status_code for _ in range(2)] == [200, 200]
    assert len({id(one) for one in seen}) == 4


async def test_unit_without_a_database_says_why(
    make_database: DatabaseFactory, serve: Serve
) -> None:
    """A unit that cannot connect, be it as it begins or later, shows the database's own error."""
    use_database(make_database(name="nowhere/app.db"))
    app = FastAPI()
    caught: list[Exception] = []

    @app.exception_handler(DatabaseMissingError)
    async def remember(request: Request, error: Exception) -> JSONResponse:
        caught.append(error)
        return JSONResponse(None, status_code=503)

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        await unit.session.execute(select(1))

    assert (await serve(app).post("/")).status_code == 503
    assert not hasattr(caught[0], "__notes__")


async def test_failure_beside_an_exception_is_a_note(accounts: Database, serve: Serve) -> None:
    """A unit that the handler ended itself does not hide the exception that came afterwards."""
    app = FastAPI()
    caught: list[BaseException] = []

    @app.exception_handler(LookupError)
    async def remember(request: Request, error: Exception) -> JSONResponse:
        caught.append(error)
        return JSONResponse(None, status_code=404)

    @app.post("/")
    async def create(unit: UnitOfWork = Depends(get_unit_of_work)) -> None:
        await unit.end()
        raise LookupError("not here")

    assert (await serve(app).post("/")).status_code == 404
    assert "moorage" in caught[0].__notes__[0]


async def test_reading_before_the_unit_is_part_of_it(accounts: Database, serve: Serve) -> None:
    """Requests that read in one dependency and write in the unit all succeed and all count."""
    app = FastAPI()

    async def current(session: DBSession) -> Account:
        return (await session.scalars(select(Account).with_for_update())).one()

    @app.post("/")
    async def deposit(
        account: Account = Depends(current), unit: UnitOfWork = Depends(get_unit_of_work)
    ) -> int:
        account.balance += 1
        await asyncio.sleep(0)
        return account.balance

    client = serve(app)
    responses = await asyncio.gather(*(client.post("/") for _ in range(8)))
    assert [response.status_code for response in responses] == [200] * 8
    assert await balances(accounts) == [8]
