"""From the start of an application to its end: a database that is ready, and one that is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from moorage import Database, get_database

__all__ = ["Lifespan", "OnUncommitted", "database_of", "lifespan", "on_uncommitted_of"]

# Key in the state that a lifespan hands to each request, mounted applications included.
_STATE_KEY = "moorage_database"
_UNCOMMITTED_KEY = "moorage_on_uncommitted"

OnUncommitted = Literal["raise", "warn"]
"""What becomes of a request that ends with writes that nobody committed."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""What FastAPI takes as ``lifespan=``."""


def lifespan(
    database: Database | None = None,
    *,
    inner: Lifespan | None = None,
    ready_seconds: float = 30.0,
    drain_seconds: float = 5.0,
    on_uncommitted: OnUncommitted = "raise",
) -> Lifespan:
    """
    Return a lifespan for ``FastAPI(lifespan=…)``: ready before the first request, closed at last.

    Settings are checked and the database is waited for while the application starts, so that a
    wrong variable stops the start, not the first request. Without a lifespan (as under httpx's
    ``ASGITransport``) the database starts with the first request that needs it.

    Args:
        database: The application's database; the process-wide one if left out.
        inner: The application's own lifespan; it runs while the database is ready, and what it
            yields reaches the requests' state as usual.
        ready_seconds: How long to wait for the database; 0 starts without asking.
        drain_seconds: How long to wait for requests in progress before closing.
        on_uncommitted: What becomes of a request whose session ends with writes that nobody
            committed: an ``UncommittedChangesError``, or a warning in the log.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            used = database if database is not None else get_database()
            stack.push_async_callback(used.dispose, drain_seconds)
            if ready_seconds:
                await used.wait_until_ready(ready_seconds)
            state: dict[str, Any] = {}
            if inner is not None:
                state.update(await stack.enter_async_context(inner(app)) or {})
            yield {**state, _STATE_KEY: used, _UNCOMMITTED_KEY: on_uncommitted}

    return run


def database_of(connection: HTTPConnection) -> Database:
    """Return the database that serves a request: its lifespan's, else that of the process."""
    found = connection.scope.get("state", {}).get(_STATE_KEY)
    return found if isinstance(found, Database) else get_database()


def on_uncommitted_of(connection: HTTPConnection) -> OnUncommitted:
    """Return what a request does with writes that nobody committed."""
    return "warn" if connection.scope.get("state", {}).get(_UNCOMMITTED_KEY) == "warn" else "raise"
