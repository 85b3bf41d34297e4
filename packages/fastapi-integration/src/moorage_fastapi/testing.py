"""
Tests of applications: another database in one line, and requests whose commits are undone.

Not imported by the package itself; it needs the extra ``testing`` (httpx).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI

from moorage import Database, DatabaseSettings, MissingExtraError, get_database, work_name
from moorage.testing import RolledBackDatabase
from moorage_fastapi.lifespan import Served, overridden, override, served_by_application

try:
    import httpx
except ImportError as _error:
    raise MissingExtraError(
        "moorage_fastapi.testing needs httpx, which is not installed",
        hint="pip install 'moorage-fastapi[testing]'",
    ) from _error

__all__ = ["isolated_client", "make_client", "override_database", "override_settings"]


@contextmanager
def override_database(
    app: FastAPI, database: Database, *, name: str | None = None
) -> Iterator[Database]:
    """
    Serve an application, and what is mounted in it, from another database inside of a block.

    Args:
        app: The application; its lifespan need not run, and is overruled if it does.
        database: What every dependency of ours works on.
        name: Of the database in ``lifespan(databases=…)`` that is replaced; the application's own
            if left out.
    """
    before = overridden(app)
    served = served_by_application(app)
    if name is None:
        override(app, Served(database, served.named, served.on_uncommitted))
    else:
        named = {**served.named, name: database}
        override(app, Served(served.default, named, served.on_uncommitted))
    try:
        yield database
    finally:
        override(app, before)


@asynccontextmanager
async def override_settings(
    app: FastAPI, settings: DatabaseSettings, *, name: str | None = None
) -> AsyncIterator[Database]:
    """Serve an application from a database with other settings, disposed behind the block."""
    async with Database(settings) as database:
        with override_database(app, database, name=name):
            yield database


@asynccontextmanager
async def isolated_client(
    app: FastAPI,
    database: Database | None = None,
    *,
    name: str | None = None,
    base_url: str = "http://test",
    raise_app_exceptions: bool = True,
    **client_options: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """
    Give a client of an application whose commits are undone when the block ends.

    Everything happens on one connection, in one transaction that is rolled back at last: sessions
    and units of the application release and undo savepoints in it, and see what earlier requests
    of the block have committed. Requests are therefore served one after the other. What is beyond
    a savepoint is not isolated: DDL where the backend commits it, constraints that only COMMIT
    checks, isolation levels, and ``database.engine``.

    Args:
        app: The application; its lifespan is not run.
        database: A database with tables; the one that serves the application if left out. With
            the fixture ``db_database`` of ``moorage.testing`` the test's own sessions see what the
            application commits.
        name: As in :func:`override_database`.
        base_url: Of the client.
        raise_app_exceptions: Whether what the application does not handle fails the test; else
            it is a 500.
        **client_options: Further ones of ``httpx.AsyncClient``.
    """
    used = database if database is not None else _current(app, name)
    # One of moorage.testing, as its fixtures give, isolates by itself.
    isolated = used if isinstance(used, RolledBackDatabase) else RolledBackDatabase(of=used)
    client = make_client(
        app, base_url=base_url, raise_app_exceptions=raise_app_exceptions, **client_options
    )
    with override_database(app, isolated, name=name):
        try:
            await isolated.begin()
            async with client:
                yield client
        finally:
            await isolated.roll_back()


def make_client(
    app: FastAPI,
    *,
    base_url: str = "http://test",
    raise_app_exceptions: bool = True,
    **client_options: Any,
) -> httpx.AsyncClient:
    """
    Return a client that serves an application's requests one after the other, in the test's loop.

    Arguments are those of :func:`isolated_client`; the database is whichever serves the
    application.
    """
    transport = _InTurn(app, raise_app_exceptions)
    return httpx.AsyncClient(transport=transport, base_url=base_url, **client_options)


class _InTurn(httpx.ASGITransport):
    """Serves one request at a time, since all are served on one connection."""

    def __init__(self, app: FastAPI, raise_app_exceptions: bool) -> None:
        super().__init__(app=app, raise_app_exceptions=raise_app_exceptions)
        self._turn = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with self._turn:
            # It runs in the task of the test, which does something else afterwards.
            before = work_name.set(None)
            try:
                return await super().handle_async_request(request)
            finally:
                work_name.reset(before)


def _current(app: FastAPI, name: str | None) -> Database:
    served = served_by_application(app)
    return get_database() if name is None and served.default is None else served.get(name)
