"""
Tests of applications: another database in one line, and requests whose commits are undone.

Not imported by the package itself; it needs the extra ``testing`` (httpx).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from moorage import (
    Admin,
    AsyncSessionMaker,
    Database,
    DatabaseSettings,
    Identity,
    LifecycleError,
    MissingExtraError,
    PoolStatistics,
    UnitOfWork,
    get_database,
)
from moorage_fastapi.lifespan import Served, overridden, override, served_by_application

try:
    import httpx
except ImportError as _error:
    raise MissingExtraError(
        "moorage_fastapi.testing needs httpx, which is not installed",
        hint="pip install 'moorage-fastapi[testing]'",
    ) from _error

__all__ = [
    "QueryLog",
    "assert_queries",
    "isolated_client",
    "override_database",
    "override_settings",
]

# Ends and beginnings, some of which are statements on some backends and messages on others.
_TRANSACTIONAL = re.compile(r"\s*(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)


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
    async with _isolated(used) as isolated:
        transport = _InTurn(app, raise_app_exceptions, isolated)
        client = httpx.AsyncClient(transport=transport, base_url=base_url, **client_options)
        with override_database(app, isolated, name=name):
            async with client:
                yield client


@asynccontextmanager
async def _isolated(database: Database) -> AsyncIterator[Database]:
    if (roll_back := getattr(database, "roll_back", None)) is not None:
        # One of moorage.testing, as its fixtures give, isolates by itself.
        try:
            yield database
        finally:
            await roll_back()
        return
    options = database.connector.get_execution_options("read write")
    async with database.engine.execution_options(**options).connect() as connection:
        outer = await connection.begin()
        try:
            yield IsolatedDatabase(database, connection)
        finally:
            if outer.is_active:
                await outer.rollback()


@dataclass
class QueryLog:
    """
    The statements that were sent inside a block of :func:`assert_queries`.

    Attributes:
        statements: All of them, in their order.
        requests: Method and route of each request of an isolated client, with its statements.
    """

    statements: list[str] = field(default_factory=list)
    requests: list[tuple[str, list[str]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.statements)

    def __str__(self) -> str:
        lines = [
            f"{len(statements)} by {request}:\n" + "".join(f"    {line}\n" for line in statements)
            for request, statements in self.requests
        ]
        return "".join(lines) or "".join(f"    {line}\n" for line in self.statements)


@contextmanager
def assert_queries(
    of: httpx.AsyncClient | Database, *, at_most: int | None = None, exactly: int | None = None
) -> Iterator[QueryLog]:
    """
    Fail if what happens inside the block sends more statements, or another number of them.

    BEGIN, COMMIT and savepoints do not count. An error lists the statements, by route where an
    isolated client was given.

    Args:
        of: A client of :func:`isolated_client`, or a database.
        at_most: Most statements that are allowed.
        exactly: The number that is expected.

    Raises:
        AssertionError: It was another number.
    """
    transport = getattr(of, "_transport", None)
    database = of if isinstance(of, Database) else getattr(transport, "database", None)
    if not isinstance(database, Database):
        raise LifecycleError(
            "assert_queries() was given a client that is not of isolated_client()",
            hint="give it the database: `with assert_queries(database, at_most=2):`",
        )
    log = QueryLog()
    engine = database.engine.sync_engine

    def note(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if not _TRANSACTIONAL.match(statement):
            log.statements.append(" ".join(statement.split()))
            if isinstance(transport, _InTurn) and transport.running is not None:
                transport.running.append(log.statements[-1])

    event.listen(engine, "before_cursor_execute", note)
    if isinstance(transport, _InTurn):
        transport.log = log
    try:
        yield log
    finally:
        event.remove(engine, "before_cursor_execute", note)
        if isinstance(transport, _InTurn):
            transport.log = None
    wrong = (exactly is not None and len(log) != exactly) or (
        at_most is not None and len(log) > at_most
    )
    if wrong:
        allowed = f"exactly {exactly}" if exactly is not None else f"at most {at_most}"
        raise AssertionError(f"{len(log)} statements were sent, {allowed} expected:\n{log}")


class IsolatedDatabase(Database):
    """A database all of whose sessions work on one connection, in one transaction of the test."""

    def __init__(self, database: Database, connection: AsyncConnection) -> None:
        super().__init__(connector=database.connector)
        self._whole = database
        self._loop = asyncio.get_running_loop()
        kw = database.sessionmaker.kw
        base: Any = kw["sync_session_class"]
        self._on_connection: AsyncSessionMaker = async_sessionmaker(
            **{
                **kw,
                "bind": connection,
                "join_transaction_mode": "create_savepoint",
                "sync_session_class": type(f"Isolated{base.__name__}", (_KeepsOptions, base), {}),
            }
        )

    @property
    def engine(self) -> AsyncEngine:
        """Return the engine of the database that is isolated."""
        return self._whole.engine

    @property
    def sessionmaker(self) -> AsyncSessionMaker:
        """
        Return the factory of sessions on the one connection.

        Raises:
            LifecycleError: It is asked for in another event loop.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise LifecycleError(
                "the application runs in another event loop than the connection of this test; the"
                " synchronous TestClient runs it in a thread and a loop of its own",
                hint="use the client that `async with isolated_client(app) as client:` gives, and"
                " one event loop for fixture and test",
            )
        return self._on_connection

    def read_session(self, *, identity: Identity | Admin | None = None) -> AsyncSession:
        """Return a session on the one connection; what it writes is not refused here."""
        return self.session(identity=identity)

    def pool_statistics(self) -> PoolStatistics:
        """Return the state of the pool of the database that is isolated."""
        return self._whole.pool_statistics()

    async def ping(self) -> None:
        """Ask on the one connection."""
        async with UnitOfWork(self.sessionmaker) as session:
            await session.connection()

    async def dispose(self, drain_seconds: float = 5.0) -> None:
        """Do nothing: the connection is the test's."""


class _KeepsOptions:
    """A session whose transaction has begun long before, and is opened for nothing special."""

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        connection: Connection = super().connection(bind_arguments)  # type: ignore[misc]
        return connection


class _InTurn(httpx.ASGITransport):
    """Serves one request at a time, since all are served on one connection."""

    def __init__(self, app: FastAPI, raise_app_exceptions: bool, database: Database) -> None:
        super().__init__(app=self._noted, raise_app_exceptions=raise_app_exceptions)
        self._app = app
        self._turn = asyncio.Lock()
        self.database = database
        self.log: QueryLog | None = None
        self.running: list[str] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with self._turn:
            return await super().handle_async_request(request)

    async def _noted(self, scope: Any, receive: Any, send: Any) -> None:
        self.running = []
        try:
            await self._app(scope, receive, send)
        finally:
            if self.log is not None:
                path = getattr(scope.get("route"), "path", scope["path"])
                self.log.requests.append((f"{scope['method']} {path}", self.running))
            self.running = None


def _current(app: FastAPI, name: str | None) -> Database:
    served = served_by_application(app)
    return get_database() if name is None and served.default is None else served.get(name)
