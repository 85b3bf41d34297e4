"""
The same two routes, by the peer that ``BENCH_VARIANT`` names, as its documentation wires FastAPI.

raw driver: https://magicstack.github.io/asyncpg/current/usage.html
everybody's: https://fastapi.tiangolo.com/tutorial/dependencies/dependencies-with-yield/
advanced-alchemy: https://docs.advanced-alchemy.litestar.dev/latest/usage/frameworks/fastapi.html
fastapi-sqla: https://github.com/dialoguemd/fastapi-sqla#readme
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.peers.moorage_peer import settings_of
from benchmarks.schema import Book, Place, row

PLACE = Place(**json.loads(os.environ["BENCH_PLACE"]))


def answer(book: Any) -> dict[str, Any]:
    """Return what the route answers."""
    return {"id": book.id, "title": book.title, "copies": book.copies, "note": book.note}


def routes(app: FastAPI, reading: Any, writing: Any, commits: bool) -> FastAPI:
    """Add routes for sessions of a peer."""

    @app.get("/books/{key}")
    async def get(key: int, session: Annotated[AsyncSession, reading]) -> dict[str, Any]:
        return answer(await session.get_one(Book, key))

    @app.post("/books/{key}")
    async def post(key: int, session: Annotated[AsyncSession, writing]) -> dict[str, int]:
        session.add(Book(**row(key)))
        if commits:
            await session.commit()
        return {"id": key}

    return app


def raw() -> FastAPI:
    """Build it on asyncpg's pool."""
    import asyncpg

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(PLACE.plain, min_size=10, max_size=10, ssl=False) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/books/{key}")
    async def get(key: int) -> dict[str, Any]:
        async with app.state.pool.acquire() as connection:
            # All columns, as a mapped object has them.
            found = await connection.fetchrow("SELECT * FROM book WHERE id = $1", key)
        return {name: found[name] for name in ("id", "title", "copies", "note")}

    @app.post("/books/{key}")
    async def post(key: int) -> dict[str, int]:
        async with app.state.pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO book (id, title, copies, note, author_id) VALUES ($1, $2, $3, $4, $5)",
                *row(key).values(),
            )
        return {"id": key}

    return app


def everybodys() -> FastAPI:
    """Build it with the dependency that everybody writes."""
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    engine = create_async_engine(
        PLACE.sqlalchemy, pool_size=10, max_overflow=20, pool_pre_ping=True, pool_recycle=1800
    )
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    return routes(FastAPI(), Depends(get_session), Depends(get_session), commits=True)


def moorage() -> FastAPI:
    """Build it with moorage's dependencies."""
    from moorage import Database
    from moorage_fastapi import DBReadSession, DBUnitOfWork, lifespan

    app = FastAPI(lifespan=lifespan(Database(settings_of(PLACE))))

    @app.get("/books/{key}")
    async def get(key: int, session: DBReadSession) -> dict[str, Any]:
        return answer(await session.get_one(Book, key))

    @app.post("/books/{key}")
    async def post(key: int, unit: DBUnitOfWork) -> dict[str, int]:
        unit.session.add(Book(**row(key)))
        return {"id": key}

    return app


def advanced_alchemy() -> FastAPI:
    """Build it with advanced-alchemy's extension."""
    from advanced_alchemy.extensions.fastapi import (
        AdvancedAlchemy,
        AsyncSessionConfig,
        SQLAlchemyAsyncConfig,
    )

    config = SQLAlchemyAsyncConfig(
        connection_string=PLACE.sqlalchemy.render_as_string(hide_password=False),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    )
    app = FastAPI()
    alchemy = AdvancedAlchemy(config=config, app=app)
    session = Depends(alchemy.provide_session())
    return routes(app, session, session, commits=False)


def fastapi_sqla() -> FastAPI:
    """Build it with fastapi-sqla."""
    url = PLACE.sqlalchemy.render_as_string(hide_password=False)
    os.environ["sqlalchemy_url"] = url  # noqa: SIM112 (its name)
    os.environ["sqlalchemy_pool_pre_ping"] = "true"  # noqa: SIM112 (its name)
    from fastapi_sqla import setup_middlewares, startup
    from fastapi_sqla.async_sqla import AsyncSessionDependency

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await startup()
        yield

    app = FastAPI(lifespan=lifespan)
    setup_middlewares(app)
    session = Depends(AsyncSessionDependency())
    return routes(app, session, session, commits=False)


def no_database() -> FastAPI:
    """Build what FastAPI itself costs: the same answers out of nothing."""
    app = FastAPI()

    @app.get("/books/{key}")
    async def get(key: int) -> dict[str, Any]:
        return {"id": key, "title": f"title {key}", "copies": 0, "note": "a note"}

    @app.post("/books/{key}")
    async def post(key: int) -> dict[str, int]:
        return {"id": key}

    return app


VARIANTS = {
    "raw driver": raw,
    "everybody's": everybodys,
    "moorage": moorage,
    "advanced-alchemy": advanced_alchemy,
    "fastapi-sqla": fastapi_sqla,
    "no database": no_database,
}

if "BENCH_VARIANT" in os.environ:
    app = VARIANTS[os.environ["BENCH_VARIANT"]]()
