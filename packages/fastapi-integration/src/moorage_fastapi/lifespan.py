"""From the start of an application to its end: databases that are ready, and then closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from moorage import Database, LifecycleError, get_database
from moorage_fastapi.routes import refuse_what_cannot_work

__all__ = [
    "Check",
    "DatabaseSource",
    "Lifespan",
    "OnUncommitted",
    "Served",
    "applications",
    "lifespan",
    "overridden",
    "override",
    "served_by",
    "served_by_application",
]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

# In the state that a lifespan hands to each request, mounted applications included; and, for
# servers and transports that hand on no state, in the state of the application itself.
_STATE_KEY = "moorage_served"
# Beyond draining: closing idle connections is a word to each, and may meet a dead link.
_CLOSE_SECONDS = 5.0

OnUncommitted = Literal["raise", "warn"]
"""What becomes of a request that ends with writes that nobody committed."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
"""What FastAPI takes as ``lifespan=``."""

DatabaseSource = Database | Callable[[], Database]
"""A database, or what makes one at each start of the application."""

Check = Callable[[Database], Awaitable[object]]
"""Raises if the database that it is given must not be served from."""


@dataclass(frozen=True)
class Served:
    """The databases that an application serves from."""

    default: Database | None = None
    named: Mapping[str, Database] = field(default_factory=dict)
    on_uncommitted: OnUncommitted = "raise"

    def get(self, name: str | None) -> Database:
        """
        Return the default database, or the one with a name.

        Raises:
            LifecycleError: There is none with this name.
        """
        if name is None:
            return self.default if self.default is not None else get_database()
        if name not in self.named:
            known = ", ".join(map(repr, self.named)) or "none with a name"
            raise LifecycleError(
                f"this application serves no database named {name!r}; it serves {known}",
                hint=f"FastAPI(lifespan=lifespan(databases={{{name!r}: Database(…)}})), and let the"
                " lifespan run: httpx's ASGITransport does not",
            )
        return self.named[name]


def lifespan(
    database: DatabaseSource | None = None,
    *,
    databases: Mapping[str, DatabaseSource] | None = None,
    inner: Lifespan | None = None,
    ready_seconds: float = 30.0,
    checks: Iterable[Check] = (),
    warm_connections: int = 0,
    drain_seconds: float = 5.0,
    on_uncommitted: OnUncommitted = "raise",
) -> Lifespan:
    """
    Return a lifespan for ``FastAPI(lifespan=…)``: ready before the first request, closed at last.

    Settings are checked and the databases are waited for while the application starts, so that a
    wrong variable stops the start, not the first request; so do routes that use a session where
    it cannot work. Without a lifespan (as under httpx's ``ASGITransport``) the database of the
    process starts with the first request that needs it.

    Args:
        database: The application's database; the process-wide one if left out.
        databases: Further ones by name, for :func:`moorage_fastapi.dependencies_for`.
        inner: The application's own lifespan; it runs while the databases are ready, and what it
            yields reaches the requests' state as usual.
        ready_seconds: How long to wait for all databases; 0 starts without asking.
        checks: Each is awaited with the application's database once that answers; what one raises
            stops the start, as "the schema is not at head" should.
        warm_connections: Connections of the application's database to open before the first
            request; as many as the pool may have, at most.
        drain_seconds: How long to wait for requests in progress before closing.
        on_uncommitted: What becomes of a request whose session ends with writes that nobody
            committed: an ``UncommittedChangesError``, or a warning in the log.
    """
    checks = tuple(checks)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        for each in applications(app):
            refuse_what_cannot_work(each.routes)
        async with AsyncExitStack() as stack:
            default = get_database() if database is None else _made(database)
            named = {name: _made(source) for name, source in (databases or {}).items()}
            every = [default, *named.values()]
            stack.push_async_callback(_dispose, every, drain_seconds)
            if ready_seconds:
                await _all_ready(every, ready_seconds)
            for check in checks:
                await check(default)
            if warm_connections:
                await _warm(default, warm_connections)
            served = Served(default, named, on_uncommitted)
            stack.enter_context(_known_to(app, served))
            state: dict[str, Any] = {}
            if inner is not None:
                state.update(await stack.enter_async_context(inner(app)) or {})
            yield {**state, _STATE_KEY: served}

    return run


def served_by(connection: HTTPConnection) -> Served:
    """Return what serves a request: an override, its lifespan's, else what the process has."""
    scope = connection.scope
    app = scope.get("app")
    found: Served = (
        _overrides.get(app)
        or scope.get("state", {}).get(_STATE_KEY)
        or getattr(getattr(app, "state", None), _STATE_KEY, None)
        or Served()
    )
    return found


def served_by_application(app: FastAPI) -> Served:
    """Return what serves an application: an override, its running lifespan's, else nothing yet."""
    return _overrides.get(app) or getattr(app.state, _STATE_KEY, None) or Served()


def applications(app: FastAPI) -> Iterator[FastAPI]:
    """Yield an application and the applications that are mounted in it, however deep."""
    yield app
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            yield from applications(route.app)


# By application, for tests. Not in its state, where looking in vain is what costs most.
_overrides: dict[object, Served] = {}


def override(app: FastAPI, served: Served | None) -> None:
    """Serve an application from something else, for tests; ``None`` ends that."""
    for each in applications(app):
        if served is None:
            _overrides.pop(each, None)
        else:
            _overrides[each] = served


def overridden(app: FastAPI) -> Served | None:
    """Return what an application is served from instead, if that is so."""
    return _overrides.get(app)


@contextmanager
def _known_to(app: FastAPI, served: Served) -> Iterator[None]:
    """Tell an application, and those mounted in it, what they are served from."""
    told = list(applications(app))
    for each in told:
        setattr(each.state, _STATE_KEY, served)
    try:
        yield
    finally:
        for each in told:
            setattr(each.state, _STATE_KEY, None)


def _made(source: DatabaseSource) -> Database:
    return source if isinstance(source, Database) else source()


async def _all_ready(databases: Iterable[Database], seconds: float) -> None:
    waiting = [asyncio.create_task(database.wait_until_ready(seconds)) for database in databases]
    try:
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _warm(database: Database, wanted: int) -> None:
    """Hold as many connections at once as the pool shall have open, and give them back."""
    number = min(wanted, database.pool_statistics().capacity or wanted)
    together = asyncio.Barrier(number)

    async def hold() -> None:
        async with database.engine.connect():
            await together.wait()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(hold())
    except BaseExceptionGroup as failures:  # one reason is enough, and easier to catch
        raise failures.exceptions[0] from None


async def _dispose(databases: Iterable[Database], drain_seconds: float) -> None:
    await asyncio.gather(*(_dispose_one(database, drain_seconds) for database in databases))


async def _dispose_one(database: Database, drain_seconds: float) -> None:
    try:
        async with asyncio.timeout(drain_seconds + _CLOSE_SECONDS):
            await database.dispose(drain_seconds)
    except TimeoutError:
        logger.warning("%r did not close in time; its connections are let go", database)
        database.abandon()
