"""A request's session is refused after the request; what outlives it has sessions of its own."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from moorage import Database, LifecycleError, UnitOfWorkError
from moorage_fastapi import AppDatabase, DBReadSession, DBSession, DBUnitOfWork
from tests.matrix.schema import Account, count_accounts

Serve = Callable[..., AsyncClient]


async def test_a_session_in_a_background_task(accounts: Database, serve: Serve) -> None:
    """A background task that uses the request's session is told what to use."""
    errors: list[UnitOfWorkError] = []
    app = FastAPI()

    @app.post("/")
    async def create(session: DBSession, reading: DBReadSession, tasks: BackgroundTasks) -> None:
        async def later() -> None:
            for used in (session, reading):
                try:
                    await used.execute(select(Account))
                except UnitOfWorkError as error:
                    errors.append(error)

        tasks.add_task(later)

    assert (await serve(app).post("/")).status_code == 200
    assert len(errors) == 2
    assert "the request of this session has ended" in str(errors[0])
    assert "database: AppDatabase" in errors[0].hint


async def test_a_unit_in_a_stream(accounts: Database, serve: Serve) -> None:
    """A stream that adds to the session of the request's unit is told what to use."""
    errors: list[UnitOfWorkError] = []
    app = FastAPI()

    @app.post("/")
    async def create(unit: DBUnitOfWork) -> StreamingResponse:
        session = unit.session

        async def rows() -> AsyncIterator[str]:
            try:
                session.add(Account(owner="bob"))
            except UnitOfWorkError as error:
                errors.append(error)
            yield "done"

        return StreamingResponse(rows())

    assert (await serve(app).post("/")).text == "done"
    assert "database: AppDatabase" in errors[0].hint
    assert await count_accounts(accounts) == 1


async def test_what_outlives_a_request_has_its_own(accounts: Database, serve: Serve) -> None:
    """A stream and a task work on sessions of the application's database, and hold nothing."""
    app = FastAPI()

    @app.post("/")
    async def create(database: AppDatabase, tasks: BackgroundTasks) -> StreamingResponse:
        async def later() -> None:
            async with database.unit_of_work() as session:
                session.add(Account(owner="bob"))

        async def rows() -> AsyncIterator[str]:
            async with database.session() as session:
                owners = (await session.scalars(select(Account.owner))).all()
            for owner in owners:
                assert database.pool_statistics().in_use == 0
                yield owner

        tasks.add_task(later)
        return StreamingResponse(rows(), background=tasks)

    assert (await serve(app).post("/")).text == "ada"
    assert await count_accounts(accounts) == 2


class Repository:
    """What users put on top of a session."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session


async def get_repository(session: DBSession) -> AsyncIterator[Repository]:
    """Give a repository, and look at the database afterwards."""
    yield Repository(session)
    await session.execute(select(Account))


def app_with(dependency: Any) -> FastAPI:
    """Return an application whose route uses the dependency, by way of another one."""
    app = FastAPI()

    async def service(repository: Repository = dependency) -> Repository:
        return repository

    @app.get("/")
    async def read(repository: Annotated[Repository, Depends(service)]) -> int:
        return len((await repository.session.scalars(select(Account))).all())

    return app


def test_a_generator_that_ends_too_late_is_refused(accounts: Database) -> None:
    """A generator on top of the session that would end after it is shown how to end before."""
    client = TestClient(app_with(Depends(get_repository)))
    with pytest.raises(LifecycleError, match=r"get_repository\(\) uses the request's") as caught:
        client.get("/")
    assert 'Depends(get_repository, scope="function")' in caught.value.hint


async def test_a_generator_that_ends_in_time_works(accounts: Database, serve: Serve) -> None:
    """With the scope of the function, what stands behind the yield has the session still."""
    app = app_with(Depends(get_repository, scope="function"))
    response = await serve(app).get("/")
    assert (response.status_code, response.json()) == (200, 1)
