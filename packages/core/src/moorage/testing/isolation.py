"""
A database of which nothing stays: what the application commits is rolled back after the test.

All sessions share one connection and one outer transaction; a COMMIT of theirs releases a
savepoint. Two sessions with open savepoints on one connection would undo each other's work, so
they are served one after the other, as on a backend with one writer: a session that begins waits
until the one before it has committed, rolled back or closed.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, util
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util.concurrency import in_greenlet

from moorage.connector import DBConnector
from moorage.database import Database, PoolStatistics
from moorage.errors import LifecycleError
from moorage.identity import Admin, Identity
from moorage.session import GuardedSession
from moorage.settings import DatabaseSettings
from moorage.unit_of_work import AsyncSessionMaker

__all__ = ["RolledBackDatabase"]

_HINT = (
    "commit or close the first one before the second begins; for tests of concurrency use the"
    " fixture db_committed"
)


class RolledBackDatabase(Database):
    """
    A ``Database`` for one test at a time.

    Its sessions and units of work behave as the application expects, hooks included; what they
    commit is visible to the sessions after them, and gone after :meth:`roll_back`. Options of a
    single transaction (isolation, read only) have no meaning inside of the outer one and are
    left out. ``engine`` is the real one: what is done on connections of its own is not rolled
    back, and does not see what the sessions wrote.

    Args:
        settings: Of a database that has its tables.
        connector: Built from the settings if left out.
        of: A database to work in, instead of one of its own; it is not disposed with this one.
        wait_seconds: Longest wait of a session for the one before it.
    """

    def __init__(
        self,
        settings: DatabaseSettings | None = None,
        *,
        connector: DBConnector | None = None,
        of: Database | None = None,
        wait_seconds: float = 5.0,
    ) -> None:
        super().__init__(settings, connector=connector if of is None else of.connector)
        self._of = of
        self._shared = _SharedConnection(self, wait_seconds)

    @property
    def engine(self) -> AsyncEngine:
        """Return the real engine, which knows nothing of the shared connection."""
        return super().engine if self._of is None else self._of.engine

    def pool_statistics(self) -> PoolStatistics:
        """Return the state of the pool, of which the shared connection is one."""
        return super().pool_statistics() if self._of is None else self._of.pool_statistics()

    async def dispose(self, drain_seconds: float = 5.0) -> None:
        """Undo everything, and close the database unless it is another one's."""
        if self._of is None:
            await super().dispose(drain_seconds)
        else:
            await self.roll_back()

    @property
    def sessionmaker(self) -> AsyncSessionMaker:
        """Return the factory of sessions on the shared connection."""
        return async_sessionmaker(
            expire_on_commit=False,
            sync_session_class=_SharedSession,
            join_transaction_mode="create_savepoint",
            shared=self._shared,
        )

    def read_session(self, *, identity: Identity | Admin | None = None) -> AsyncSession:
        """Return a new session; that it only reads is not enforced here."""
        return self.session(identity=identity)

    async def begin(self) -> None:
        """Open the connection now: its sessions belong to the event loop that runs."""
        await self._shared.open()

    async def roll_back(self) -> None:
        """Undo everything and close the connection; the next session begins anew."""
        await self._shared.close()

    def roll_back_after_test(self) -> None:
        """Do the same from outside of the event loop that the test has run in."""
        loop = self._shared.loop
        if loop is None or loop.is_closed():
            self._shared.forget()
        else:
            loop.run_until_complete(self._shared.close())


class _SharedSession(GuardedSession):
    def __init__(self, *, shared: _SharedConnection, **options: Any) -> None:
        super().__init__(**options)
        self.shared = shared
        self.origin: str = _origin()

    def get_bind(self, *_: Any, **__: Any) -> Engine | Connection:
        """Return the shared connection, which the session has from now on; waits for its turn."""
        if in_greenlet():  # SQLAlchemy asks because it is about to use it
            if self.identity is not None:
                raise LifecycleError(
                    "a session on somebody's behalf was used in a test with rollback, where the"
                    " sessions after it would keep the identity: all are one transaction",
                    hint="use the fixture db_committed",
                )
            self.bind = util.await_only(self.shared.take(self))
            return self.bind
        return self.shared.sync_connection or self.shared.database.engine.sync_engine

    def connection(self, *arguments: Any, **options: Any) -> Connection:
        """Return the connection; options that begin a transaction come too late for it."""
        options.pop("execution_options", None)
        return super().connection(*arguments, **options)

    def close(self) -> None:
        """Close the session, and let the next one in."""
        super().close()
        self.shared.give_back(self)


@event.listens_for(_SharedSession, "after_transaction_end")
def _pass_on(session: _SharedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.shared.give_back(session)


class _SharedConnection:
    """One connection in one transaction, held by one session at a time."""

    def __init__(self, database: Database, wait_seconds: float) -> None:
        self.database = database
        self.loop: asyncio.AbstractEventLoop | None = None
        self._wait_seconds = wait_seconds
        self._connection: AsyncConnection | None = None
        self._holder: _SharedSession | None = None
        self._task: asyncio.Task[Any] | None = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._waiters: deque[tuple[_SharedSession, asyncio.Future[None]]] = deque()

    @property
    def sync_connection(self) -> Connection | None:
        return None if self._connection is None else self._connection.sync_connection

    async def take(self, session: _SharedSession) -> Connection:
        """
        Return the connection, once the session before has let it go.

        Raises:
            LifecycleError: That would be never, or was not soon enough.
        """
        self._refuse_other_loop()
        if self._holder is not session:
            if self._holder is not None:
                await self._wait(session, self._holder)
            self._holder, self._task = session, asyncio.current_task()
        try:
            return await self.open()
        except BaseException:
            self.give_back(session)
            raise

    def give_back(self, session: _SharedSession) -> None:
        """Let the next session in; does nothing for one that does not hold the connection."""
        if self._holder is not session:
            return
        self._holder = self._task = None
        while self._waiters:
            following, waiter = self._waiters.popleft()
            if not waiter.done():
                self._holder = following
                waiter.set_result(None)
                return

    async def close(self) -> None:
        """Roll back and close the connection."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()

    def forget(self) -> None:
        """Begin anew; the connection was closed by its loop."""
        self._connection = self.loop = self._holder = self._task = self._guard = None
        self._waiters.clear()

    async def _until_the_end(self, connection: AsyncConnection) -> AsyncGenerator[None, None]:
        # A loop that ends closes its generators, and gives each the time to clean up.
        try:
            yield
        finally:
            self.forget()
            await connection.close()

    async def open(self) -> Connection:
        """Open the connection and its transaction, unless that was done; return it."""
        if self._connection is None:
            connector = self.database.connector
            options = connector.get_execution_options("read write")
            connection = await self.database.engine.connect()
            try:
                if options:
                    await connection.execution_options(**options)
                await connection.begin()
            except BaseException:
                await connection.close()
                raise
            self._connection, self.loop = connection, asyncio.get_running_loop()
            self._guard = self._until_the_end(connection)
            await anext(self._guard)
        below = self._connection.sync_connection
        assert below is not None
        return below

    async def _wait(self, session: _SharedSession, holder: _SharedSession) -> None:
        if self._task is asyncio.current_task():
            raise LifecycleError(
                f"the session of {session.origin} would wait for the session of {holder.origin},"
                " which has begun in the same task and is open: it would wait for ever",
                hint=_HINT,
            )
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((session, waiter))
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.give_back(session)  # it was its turn in this very moment
            if isinstance(error, TimeoutError):
                raise LifecycleError(
                    f"the session of {session.origin} has waited {self._wait_seconds:g} s for the"
                    f" session of {holder.origin}, which is open: in a test with rollback they"
                    " take turns",
                    hint=_HINT,
                ) from None
            raise

    def _refuse_other_loop(self) -> None:
        if self.loop is not None and self.loop is not asyncio.get_running_loop():
            raise LifecycleError(
                "a session was used in another event loop than the ones before it in this test;"
                " the connection that they share belongs to one loop, and Starlette's TestClient"
                " runs the application in one of its own",
                hint="use the client that `async with isolated_client(app) as client:` of"
                " moorage_fastapi.testing gives, or the fixture db_committed",
            )


_LIBRARIES = tuple(str(Path(sys.modules[name].__file__ or "").parent) for name in ("sqlalchemy",))
_OWN = str(Path(__file__).parents[1])


def _origin() -> str:
    """Return where a session was made, outside of libraries."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, _OWN, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "somewhere"
