# ruff: noqa: B008 - the plain `Depends` line is what is tested here
"""What a route may ask for: an isolation level, another run, a deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from httpx import AsyncClient
from sqlalchemy import event, select, update

from moorage import (
    CommitOutcomeUnknownError,
    Database,
    DeadlockError,
    SettingsError,
    UniqueViolationError,
    UnitOfWork,
    UnitOfWorkError,
)
from moorage_fastapi import (
    DBSession,
    DBStreamSession,
    DBUnitOfWork,
    add_problem_handlers,
    deadline,
    get_unit_of_work,
    lifespan,
    rerun_route,
    unit_of_work,
)
from tests.matrix.schema import Account, balances, count_accounts

Serve = Callable[..., AsyncClient]

Strict = Annotated[UnitOfWork, Depends(unit_of_work(isolation_level="SERIALIZABLE"))]


async def level_of(unit: UnitOfWork) -> str:
    """Return the isolation level of a unit's connection."""
    connection = await unit.session.connection()
    return str(await connection.get_isolation_level())


async def test_isolation_level_of_a_route(accounts: Database, serve: Serve) -> None:
    """A route's level holds for the request's unit, whoever asked first, and for no other."""
    app = FastAPI()

    async def caller(session: DBSession) -> Any:
        return await session.scalar(select(Account.owner))

    @app.get("/strict")
    async def strict(unit: Strict, plain: DBUnitOfWork, owner: str = Depends(caller)) -> str:
        assert plain is unit
        return await level_of(unit)

    @app.get("/usual")
    async def usual(unit: DBUnitOfWork) -> str:
        return await level_of(unit)

    client = serve(app)
    usual_level = (await client.get("/usual")).json()
    assert (await client.get("/strict")).json() == "SERIALIZABLE"
    assert (await client.get("/usual")).json() == usual_level


def test_two_sets_of_options_stop_the_start() -> None:
    """A route cannot have its one unit in two ways, and is told so at the start."""
    app = FastAPI(lifespan=lifespan())

    @app.get("/")
    async def both(one: Strict, other: UnitOfWork = Depends(unit_of_work(read_only=True))) -> None:
        """Ask for what cannot be."""

    with pytest.raises(UnitOfWorkError, match="different options"), TestClient(app):
        pytest.fail("the application has started")


async def test_an_option_that_comes_too_late(accounts: Database, serve: Serve) -> None:
    """Options that nobody could see before the unit was begun are an error, not ignored."""
    app = FastAPI()
    app.dependency_overrides[get_unit_of_work] = unit_of_work(isolation_level="SERIALIZABLE")
    caught: list[UnitOfWorkError] = []

    @app.get("/")
    async def read(
        other: UnitOfWork = Depends(unit_of_work(statement_timeout_seconds=3)),
        unit: UnitOfWork = Depends(get_unit_of_work),
    ) -> None: ...

    @app.exception_handler(UnitOfWorkError)
    async def remember(request: object, error: UnitOfWorkError) -> None:
        caught.append(error)
        raise error

    if accounts.connector.capabilities.transaction_limits:
        assert (await serve(app).get("/")).status_code == 500
        assert "was begun with" in str(caught[0])


def repeated(attempts: int = 3) -> tuple[FastAPI, APIRouter]:
    """Return an application, and a router of it whose requests are run again."""
    app = FastAPI()
    add_problem_handlers(app)
    return app, APIRouter(route_class=rerun_route(attempts=attempts))


async def test_a_collision_is_run_again(accounts: Database, serve: Serve) -> None:
    """The whole request is run again on new sessions, and what failed leaves nothing."""
    app, router = repeated()
    seen: list[Any] = []
    ended: list[str] = []

    async def watched(session: DBSession) -> AsyncIterator[None]:
        yield
        ended.append("dependency")

    @router.put("/{owner}")
    async def put(
        owner: str,
        unit: DBUnitOfWork,
        balance: dict[str, int],
        _: None = Depends(watched, scope="function"),
    ) -> int:
        unit.session.add(Account(owner=owner, balance=balance["amount"]))
        await unit.session.flush()
        seen.append(unit.session)
        if len(seen) < 3:
            raise DeadlockError("two units waited for each other")
        return len(seen)

    app.include_router(router)
    response = await serve(app).put("/bob", json={"amount": 7})
    assert (response.status_code, response.json()) == (200, 3)
    assert len({id(session) for session in seen}) == 3
    assert await balances(accounts) == [0, 7]
    assert ended == ["dependency"]


@pytest.mark.parametrize(
    ("method", "error", "runs", "status"),
    [
        ("PUT", DeadlockError, 3, 503),
        ("POST", DeadlockError, 1, 503),
        ("PUT", UniqueViolationError, 1, 409),
        ("PUT", CommitOutcomeUnknownError, 1, 500),
    ],
)
async def test_what_is_not_run_again(
    method: str, error: type[Exception], runs: int, status: int, accounts: Database, serve: Serve
) -> None:
    """Not run again is what a repetition does not cure, or a client may not repeat."""
    app, router = repeated()
    seen: list[int] = []

    @router.api_route("/", methods=[method])
    async def fail(unit: DBUnitOfWork) -> None:
        seen.append(1)
        raise error("no")

    app.include_router(router)
    assert (await serve(app).request(method, "/")).status_code == status
    assert len(seen) == runs


async def test_a_commit_that_collides_is_run_again(accounts: Database, serve: Serve) -> None:
    """A failure of the request's commit is one of the request, and is cured like any other."""
    app, router = repeated()
    runs: list[int] = []

    @router.put("/")
    async def put(unit: DBUnitOfWork) -> None:
        runs.append(1)
        unit.session.add(Account(owner="bob"))
        if len(runs) == 1:
            event.listen(unit.session.sync_session, "before_commit", collide)

    def collide(session: object) -> None:
        raise DeadlockError("the commit collided")

    app.include_router(router)
    assert (await serve(app).put("/")).status_code == 200
    assert len(runs) == 2
    assert await count_accounts(accounts) == 2


async def test_real_collisions_are_run_again(accounts: Database, serve: Serve) -> None:
    """Of two strict units that read what both will write one collides, and is cured by a rerun."""
    if accounts.connector.capabilities.single_writer:
        pytest.skip("writers wait for each other here, and never collide")
    app, router = repeated(attempts=20)
    both_have_read = asyncio.Barrier(2)
    arrived = {"again": 0, "once": 0}

    async def increment(unit: Strict, kind: str) -> None:
        balance = (await unit.session.scalars(select(Account.balance))).one()
        arrived[kind] += 1
        if arrived[kind] <= 2:
            await both_have_read.wait()
        await unit.session.execute(update(Account).values(balance=balance + 1))

    router.put("/again")(increment)
    app.include_router(router)
    app.put("/once")(increment)
    client = serve(app)
    for kind, answers, balance in (("again", [200, 200], 2), ("once", [200, 503], 3)):
        put = (client.put(f"/{kind}", params={"kind": kind}) for _ in range(2))
        responses = await asyncio.gather(*put)
        assert sorted(response.status_code for response in responses) == answers
        assert await balances(accounts) == [balance]
    assert arrived == {"again": 3, "once": 2}


async def test_a_stream_may_be_run_again(accounts: Database, serve: Serve) -> None:
    """What lives until the response was sent belongs to the run that succeeded."""
    app, router = repeated()
    seen: list[Any] = []

    @router.get("/")
    async def export(session: DBStreamSession) -> StreamingResponse:
        seen.append(session)
        await session.scalar(select(1))
        if len(seen) == 1:
            raise DeadlockError("no")

        async def rows() -> AsyncIterator[str]:
            yield str(await session.scalar(select(Account.owner)))

        return StreamingResponse(rows())

    app.include_router(router)
    assert (await serve(app).get("/")).text == "ada"
    assert len(seen) == 2


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"deadline_seconds": 0}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    """A number of runs, or of seconds, that means nothing is refused where it is written."""
    with pytest.raises(SettingsError):
        rerun_route(**wrong)
    with pytest.raises(SettingsError):
        deadline(0)


async def test_a_deadline_ends_the_request(accounts: Database, serve: Serve) -> None:
    """What is not done in time is rolled back and is a 504; what is done in time is not touched."""
    app = FastAPI(dependencies=[deadline(0.05)])
    add_problem_handlers(app)

    @app.post("/{ending}")
    async def create(ending: str, unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="bob"))
        await unit.session.flush()
        if ending == "late":
            await asyncio.Event().wait()

    client = serve(app)
    response = await client.post("/late")
    assert response.status_code == 504
    assert response.json()["type"] == "urn:moorage:request-deadline"
    assert accounts.pool_statistics().in_use == 0
    assert await count_accounts(accounts) == 1


async def test_a_deadline_that_is_not_reached(accounts: Database, serve: Serve) -> None:
    """A request that is done in time commits, and another's time-out stays what it is."""
    app = FastAPI(dependencies=[deadline(60)])
    add_problem_handlers(app)

    @app.post("/")
    async def create(unit: DBUnitOfWork) -> None:
        unit.session.add(Account(owner="bob"))

    @app.get("/")
    async def elsewhere() -> None:
        raise TimeoutError("another service did not answer")

    client = serve(app)
    assert (await client.post("/")).status_code == 200
    assert await count_accounts(accounts) == 2
    assert (await client.get("/")).status_code == 500
