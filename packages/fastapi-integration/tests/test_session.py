# ruff: noqa: B008 - the plain `Depends` line is what is tested here
"""The sessions of a request: whose they are, what they refuse, how they are replaced."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import anyio
import pytest
from fastapi import Depends, FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from moorage import Database, LifecycleError, ReadOnlyError, UnitOfWork
from moorage_fastapi import (
    DBReadSession,
    DBSession,
    DBUnitOfWork,
    get_db_session,
    get_read_session,
    get_unit_of_work,
)
from tests.matrix.schema import Account, count_accounts

Serve = Callable[..., AsyncClient]
Dependency = Callable[..., Any]


def session_of(asked: AsyncSession | UnitOfWork) -> AsyncSession:
    """Return the session, whichever of the two a parametrised handler got."""
    return asked.session if isinstance(asked, UnitOfWork) else asked


every_dependency = pytest.mark.parametrize(
    "dependency",
    [get_db_session, get_unit_of_work, get_read_session],
    ids=["session", "unit", "read session"],
)


async def test_one_session_per_request(accounts: Database, serve: Serve) -> None:
    """All who ask within one request get one session, and two requests at once get two."""
    app = FastAPI()
    together = asyncio.Barrier(2)
    seen: list[tuple[AsyncSession, AsyncSession]] = []

    async def nested(session: AsyncSession = Depends(get_db_session)) -> AsyncSession:
        return session

    @app.get("/")
    async def meet(
        session: AsyncSession = Depends(get_db_session), other: AsyncSession = Depends(nested)
    ) -> None:
        await session.execute(select(1))
        seen.append((session, other))
        await together.wait()

    client = serve(app)
    await asyncio.gather(client.get("/"), client.get("/"))
    (first, same_as_first), (second, same_as_second) = seen
    assert first is same_as_first
    assert second is same_as_second
    assert first is not second


async def test_one_session_however_it_is_asked_for(accounts: Database, serve: Serve) -> None:
    """Neither a scope of one's own nor the absence of FastAPI's cache makes a second session."""
    app = FastAPI()

    @app.get("/")
    async def compare(
        session: DBSession,
        early: AsyncSession = Depends(get_db_session, scope="function"),
        late: AsyncSession = Depends(get_db_session, scope="request"),
        anew: AsyncSession = Depends(get_db_session, use_cache=False),
        read: AsyncSession = Depends(get_read_session, scope="function"),
        read_anew: AsyncSession = Depends(get_read_session, use_cache=False),
    ) -> bool:
        return session is early is late is anew and read is read_anew

    assert (await serve(app).get("/")).json() is True


async def test_a_request_inside_of_a_request(accounts: Database, serve: Serve) -> None:
    """A request that a handler makes of its own scope, as batches do, has its own session."""
    app = FastAPI()
    seen: list[AsyncSession] = []

    @app.get("/inner")
    async def inner(session: DBSession) -> None:
        await session.execute(select(1))
        seen.append(session)

    @app.get("/")
    async def outer(request: Request, session: DBSession) -> int:
        await session.execute(select(1))
        seen.append(session)
        answers: list[Message] = []

        async def note(message: Message) -> None:
            answers.append(message)

        await app({**request.scope, "path": "/inner"}, request.receive, note)
        await session.execute(select(1))  # it has not ended with the other's
        return int(answers[0]["status"])

    assert (await serve(app).get("/")).json() == 200
    assert len(set(seen)) == 2


async def test_outside_of_fastapi(accounts: Database) -> None:
    """A route that FastAPI does not serve is told that nothing would end its session."""

    async def call_by_hand(request: Request) -> Response:
        await get_read_session(request)
        return Response()

    app = Starlette(routes=[Route("/", call_by_hand)])
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        with pytest.raises(LifecycleError, match="where FastAPI ends no dependencies"):
            await client.get("/")


async def test_read_session_refuses_to_write(accounts: Database, serve: Serve) -> None:
    """The database itself refuses an INSERT in a read session."""
    app = FastAPI()

    @app.get("/")
    async def write(session: AsyncSession = Depends(get_read_session)) -> str:
        session.add(Account(owner="bob"))
        with pytest.raises(ReadOnlyError):
            await session.flush()
        return "refused"

    assert (await serve(app).get("/")).json() == "refused"
    assert await count_accounts(accounts) == 1


async def test_read_session_leaves_no_trace_on_its_connection(
    accounts: Database, serve: Serve
) -> None:
    """The next request writes, on another connection than the one that only reads."""
    app = FastAPI()

    @app.get("/")
    async def read(session: DBReadSession) -> int:
        return len((await session.scalars(select(Account))).all())

    @app.post("/")
    async def create(unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="bob"))

    client = serve(app)
    assert (await client.get("/")).json() == 1
    assert (await client.post("/")).status_code == 200
    assert accounts.pool_statistics().idle == 2
    assert (await client.get("/")).json() == 2


async def test_read_session_is_apart(story: list[str], accounts: Database, serve: Serve) -> None:
    """The read session is not the request's session, does not commit with it, and is one."""
    app = FastAPI()

    @app.post("/")
    async def both(
        unit: DBUnitOfWork,
        read: DBReadSession,
        again: AsyncSession = Depends(get_read_session),
    ) -> list[bool]:
        unit.session.add(Account(owner="bob"))
        await unit.session.flush()
        seen = (await read.scalars(select(Account.owner))).all()
        return [read is unit.session, read is again, "bob" in seen]

    assert (await serve(app, story).post("/")).json() == [False, True, False]
    assert sorted(story) == ["closed", "closed", "commit", "sent 200"]
    assert story[-1] == "sent 200"
    assert await count_accounts(accounts) == 2


async def test_aliases_are_the_dependencies(accounts: Database, serve: Serve) -> None:
    """``DBSession``, ``DBUnitOfWork`` and ``DBReadSession`` say the same in one word."""
    app = FastAPI()

    @app.get("/")
    async def compare(
        session: DBSession,
        unit: DBUnitOfWork,
        read: DBReadSession,
        plain_session: AsyncSession = Depends(get_db_session),
        plain_unit: UnitOfWork = Depends(get_unit_of_work),
        plain_read: AsyncSession = Depends(get_read_session),
    ) -> bool:
        return (session, unit, read) == (plain_session, plain_unit, plain_read)

    assert (await serve(app).get("/")).json() is True


def test_dependencies_do_not_show_in_the_schema() -> None:
    """The OpenAPI document of a route has nothing of the session in it."""
    app = FastAPI()

    @app.get("/")
    async def read(session: DBSession, unit: DBUnitOfWork, reading: DBReadSession) -> None: ...

    operation = app.openapi()["paths"]["/"]["get"]
    assert set(operation) == {"summary", "operationId", "responses"}
    assert set(operation["responses"]) == {"200"}


@every_dependency
async def test_override_with_a_value(dependency: Dependency, serve: Serve) -> None:
    """``dependency_overrides`` puts something else in place, and no database is looked for."""
    app = FastAPI()

    @app.get("/")
    async def tell(asked: Any = Depends(dependency)) -> str:
        return str(asked)

    app.dependency_overrides[dependency] = lambda: "something else"
    assert (await serve(app).get("/")).json() == "something else"


async def test_override_with_a_generator(accounts: Database, serve: Serve) -> None:
    """A test's own generator takes the place of the session, and its session is the handler's."""
    app = FastAPI()
    made: list[AsyncSession] = []

    async def own_session() -> AsyncIterator[AsyncSession]:
        async with accounts.session() as session:
            made.append(session)
            yield session

    @app.get("/")
    async def compare(session: AsyncSession = Depends(get_db_session)) -> bool:
        await session.execute(select(1))
        return session is made[0]

    app.dependency_overrides[get_db_session] = own_session
    assert (await serve(app).get("/")).json() is True
    app.dependency_overrides.clear()
    assert (await serve(app).get("/")).json() is False


async def test_override_on_top_of_the_original(accounts: Database, serve: Serve) -> None:
    """An override may ask for the session of another dependency of ours."""
    app = FastAPI()

    @app.get("/")
    async def compare(session: DBSession, read: AsyncSession = Depends(get_read_session)) -> bool:
        return session is read

    def read_instead(read: DBReadSession) -> AsyncSession:
        return read

    app.dependency_overrides[get_db_session] = read_instead
    assert (await serve(app).get("/")).json() is True


@every_dependency
async def test_no_database_without_a_statement(
    dependency: Dependency, story: list[str], accounts: Database, serve: Serve
) -> None:
    """A route that asks and sends no statement takes no connection, unless its unit must begin."""
    app = FastAPI()

    @app.get("/")
    async def idle(asked: Any = Depends(dependency)) -> None: ...

    await serve(app, story).get("/")
    begins = dependency is get_unit_of_work and accounts.connector.capabilities.single_writer
    assert ("closed" in story) is begins


async def fail_at_its_end(session: AsyncSession) -> None:
    """Begin a transaction whose end will fail."""

    def fail(session: object, transaction: object) -> NoReturn:
        raise RuntimeError("closing failed")

    await session.execute(select(1))
    event.listen(session.sync_session, "after_transaction_end", fail)


@every_dependency
async def test_failure_while_closing_does_not_hide_the_error(
    dependency: Dependency, accounts: Database, serve: Serve
) -> None:
    """The client sees what the handler raised, even if closing the session fails as well."""

    app = FastAPI()

    @app.get("/")
    async def give_up(asked: Any = Depends(dependency)) -> None:
        await fail_at_its_end(session_of(asked))
        raise HTTPException(418)

    assert (await serve(app).get("/")).status_code == 418


@every_dependency
async def test_failure_while_closing_is_an_error(
    dependency: Dependency, accounts: Database, serve: Serve
) -> None:
    """A session that cannot be closed is a 500, though the handler succeeded."""

    app = FastAPI()

    @app.get("/")
    async def succeed(asked: Any = Depends(dependency)) -> None:
        await fail_at_its_end(session_of(asked))

    assert (await serve(app).get("/")).status_code == 500


@every_dependency
async def test_cancelled_request_returns_its_connection(
    dependency: Dependency, accounts: Database, serve: Serve
) -> None:
    """A request that is cancelled in its handler leaves no connection out."""
    app = FastAPI()
    inside = asyncio.Event()

    @app.get("/")
    async def wait(asked: Any = Depends(dependency)) -> None:
        await session_of(asked).execute(select(Account))
        inside.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(serve(app).get("/"))
    await inside.wait()
    assert accounts.pool_statistics().in_use == 1
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert accounts.pool_statistics().in_use == 0


@every_dependency
async def test_cancelled_scope_returns_its_connection(
    dependency: Dependency, accounts: Database, serve: Serve
) -> None:
    """A middleware that cancels as anyio does, again at each await, leaves no connection out."""
    app = FastAPI()
    inside = asyncio.Event()
    limit = anyio.CancelScope()

    @app.get("/")
    async def wait(asked: Any = Depends(dependency)) -> None:
        await session_of(asked).execute(select(Account))
        inside.set()
        await asyncio.Event().wait()

    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        with limit:
            await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body"})

    request = asyncio.create_task(serve(impatient).get("/"))
    await inside.wait()
    limit.cancel()
    assert (await request).status_code == 503
    assert accounts.pool_statistics().in_use == 0
