"""The life of one engine: made from settings, handed out as sessions, disposed once."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, Unpack

from sqlalchemy import select, util
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import Pool

from moorage.binding import bind_identity
from moorage.connector import DBConnector
from moorage.engine import build_engine, unwanted_connections_closed
from moorage.errors import DatabaseDisposedError, DatabaseError
from moorage.identity import Admin, Identity
from moorage.pool import LoopPool, PoolObserver, leave_to_parent
from moorage.reading import ReadSession, attach_read_rules, build_read_engine
from moorage.registry import get_connector
from moorage.session import GuardedSession, PromptSession
from moorage.settings import DatabaseSettings
from moorage.unit_of_work import AsyncSessionMaker, UnitOfWork, UnitOptions

__all__ = ["Database", "PoolStatistics"]

logger: logging.Logger = logging.getLogger("moorage.database")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
# How long cancelled tasks may take to give their connections back.
_CANCEL_SECONDS = 2.0


@dataclass(frozen=True)
class PoolStatistics:
    """
    The pool at one moment.

    Attributes:
        capacity: Most connections that one event loop may have open, those of read sessions
            included: where they have connections of their own, as many as all others again.
        in_use: Connections handed out, in all event loops of this process.
        idle: Open connections that wait for work.
        waiting: Tasks that wait for a connection.
        size: Connections that one event loop keeps open.
        timeouts: How often somebody waited for a connection in vain.
    """

    capacity: int
    in_use: int
    idle: int
    waiting: int = 0
    size: int = 0
    timeouts: int = 0


class Database:
    """
    One database, from its settings to its sessions.

    Making it opens nothing, and needs no running loop; the engine is made on first use, and the
    first connection with the first statement. Several can live side by side. Leaving
    ``async with`` disposes it, and a disposed ``Database`` stays disposed.

    Args:
        settings: Read from the environment if left out.
        connector: Built from the settings if left out.

    Raises:
        SettingsError: A setting is wrong.
        ConnectorError: The connector cannot be found or used.
    """

    def __init__(
        self, settings: DatabaseSettings | None = None, *, connector: DBConnector | None = None
    ) -> None:
        if connector is None:
            connector = get_connector(settings or DatabaseSettings())
        self._connector = connector
        self._lock = threading.Lock()
        self._engine: AsyncEngine | None = None
        self._sessionmaker: AsyncSessionMaker | None = None
        self._read_engine: AsyncEngine | None = None
        self._read_sessionmaker: AsyncSessionMaker | None = None
        self._end: Literal["", "closing", "disposed"] = ""
        self._observers: list[PoolObserver] = []

    def __repr__(self) -> str:
        return f"<Database {self._connector.name} {self.state}>"

    @property
    def state(self) -> Literal["new", "started", "closing", "disposed"]:
        """
        Return where the database is in its life.

        ``closing`` means that it opens nothing any more and waits for what is in use.
        """
        return self._end or ("new" if self._engine is None else "started")

    @property
    def settings(self) -> DatabaseSettings:
        """Return the settings of the connector."""
        return self._connector.settings

    @property
    def connector(self) -> DBConnector:
        """Return the connector that knows the backend."""
        return self._connector

    @property
    def engine(self) -> AsyncEngine:
        """
        Return the engine, made at the first call; opens no connection.

        Raises:
            DatabaseDisposedError: The database was disposed.
            ConnectorImportError: The driver is not installed.
        """
        self._refuse_if_disposed()
        with self._lock:
            if self._engine is None:
                engine = build_engine(self._connector)
                attach_read_rules(engine)
                self._engine = engine
                for observer in self._observers:
                    self._tell(observer)
            return self._engine

    @property
    def sessionmaker(self) -> AsyncSessionMaker:
        """
        Return the factory of sessions; what it makes does not expire on commit.

        Raises:
            DatabaseDisposedError: The database was disposed.
        """
        if self._sessionmaker is not None and not self._end:
            return self._sessionmaker
        engine = self.engine
        with self._lock:
            if self._sessionmaker is None:
                self._sessionmaker = async_sessionmaker(
                    engine,
                    class_=PromptSession,
                    expire_on_commit=False,
                    sync_session_class=GuardedSession,
                )
            return self._sessionmaker

    def session(self, *, identity: Identity | Admin | None = None) -> AsyncSession:
        """
        Return a new session, to be used as ``async with database.session() as session:``.

        What is not committed when the block ends is rolled back.

        Args:
            identity: On whose behalf it works, where the backend has row level security.
        """
        session = self.sessionmaker()
        if identity is not None:
            bind_identity(session, identity)
        return session

    def read_session(self, *, identity: Identity | Admin | None = None) -> AsyncSession:
        """
        Return a new session that only reads; the backend refuses writes where it can.

        Whether it can says ``connector.capabilities``. With ``read_only_connections`` there is no
        transaction: each statement sees what is committed when it begins, so that two of them may
        see different data. One view for all of them has a unit of work that is ``read_only`` and
        has an ``isolation_level``, as REPEATABLE READ. Such sessions have connections of their
        own, as many as the pool's settings say, opened when they are needed.

        Args:
            identity: On whose behalf it works; such a session is a transaction that only reads.
        """
        if identity is None and self._read_sessionmaker is not None and not self._end:
            return self._read_sessionmaker()
        engine = self.engine
        if identity is not None:
            options = self._connector.get_execution_options("read only")
            session = self.sessionmaker(
                bind=engine.execution_options(**options), sync_session_class=ReadSession
            )
            bind_identity(session, identity)
            return session
        with self._lock:
            if self._read_sessionmaker is None:
                self._read_engine = build_read_engine(engine, self._connector)
                self._read_sessionmaker = async_sessionmaker(
                    self._read_engine,
                    class_=PromptSession,
                    expire_on_commit=False,
                    sync_session_class=ReadSession,
                )
            return self._read_sessionmaker()

    def unit_of_work(self, **options: Unpack[UnitOptions]) -> UnitOfWork:
        """Return a new unit of work on this database; see :class:`UnitOfWork`."""
        return UnitOfWork(self.sessionmaker, **options)

    async def ping(self) -> None:
        """
        Make one round trip to the database.

        Raises:
            DatabaseError: It cannot be reached, or does not answer.
        """
        async with self.engine.connect() as connection:
            await connection.execute(select(1))

    async def wait_until_ready(self, deadline_seconds: float = 60.0) -> None:
        """
        Return as soon as the database answers; for the start of a service.

        Waits with growing, jittered pauses while the server is not reachable or is starting up.
        What does not pass by itself (a wrong password, a missing database) is raised at once.

        Raises:
            DatabaseError: The deadline is over, or waiting is of no use; the last failure.
        """
        end = time.monotonic() + deadline_seconds
        pause = _FIRST_PAUSE_SECONDS
        last = "it has not answered"
        while True:
            try:
                async with asyncio.timeout(max(end - time.monotonic(), 0.0)):
                    return await self.ping()
            except TimeoutError:
                diagnosis = self._connector.unreachable(
                    ConnectionError(f"not ready within {deadline_seconds:g} s; {last}")
                )
                raise diagnosis.to_error() from None
            except DatabaseError as error:
                wait = pause * random.uniform(0.5, 1.0)
                if not error.is_transient or time.monotonic() + wait >= end:
                    raise
                last = str(error.args[0])
                logger.warning("waiting for the database: %s", last)
                await asyncio.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def pool_statistics(self) -> PoolStatistics:
        """
        Return the state of the pool; zeros for a pool that keeps no count.

        While the database is closing, and afterwards, it tells what is still in use.
        """
        if self._engine is None:
            _ = self.engine
        pools = self._pools()
        count = {
            name: sum(int(getattr(pool, name)()) for pool in pools if hasattr(pool, name))
            for name in ("capacity", "checkedout", "checkedin", "waiting", "size", "timeouts")
        }
        return PoolStatistics(
            capacity=count["capacity"],
            in_use=count["checkedout"],
            idle=count["checkedin"],
            waiting=count["waiting"],
            size=count["size"],
            timeouts=count["timeouts"],
        )

    def observe_pool(self, observer: PoolObserver) -> None:
        """
        Tell ``observer`` how long opening, waiting for and using connections takes, from now on.

        It is called in the way of the work, and must not wait. Pools that are not ours tell
        nothing.
        """
        with self._lock:
            self._observers.append(observer)
            if self._engine is not None:
                self._tell(observer)

    def _tell(self, observer: PoolObserver) -> None:
        if self._engine is not None and isinstance(self._engine.pool, LoopPool):
            self._engine.pool.observe(observer)

    def _pools(self) -> list[Pool]:
        """Return the pool, and that of read sessions where they have one."""
        pools: list[Pool] = []
        for engine in (self._engine, self._read_engine):
            if engine is not None and engine.pool not in pools:
                pools.append(engine.pool)
        return pools

    async def dispose(self, drain_seconds: float = 5.0) -> None:
        """
        Close the database for good; further calls do nothing.

        New sessions and connections are refused at once. Those in use are waited for, up to
        ``drain_seconds``; then the tasks that hold them are cancelled, and what is open after that
        is closed. It takes no more than some 15 seconds longer than ``drain_seconds``, whatever
        hangs. What the calling task itself holds is closed when it gives it back.
        """
        if self._end:
            return
        self._end = "closing"
        try:
            if self._engine is not None:
                await self._drain(drain_seconds)
                await unwanted_connections_closed(self._engine.sync_engine)
                for pool in self._pools():
                    if pool is not self._engine.pool:
                        await util.greenlet_spawn(pool.dispose)
                await self._engine.dispose()
        finally:
            self._end = "disposed"

    async def _drain(self, seconds: float) -> None:
        # Others are a connector's own choice, which close what is idle and no more.
        pools = [pool for pool in self._pools() if isinstance(pool, LoopPool)]
        busy = await _drained(pools, seconds)
        if busy:
            logger.warning(
                "disposing with %d connection(s) in use or waited for after %g s; their tasks are"
                " cancelled",
                busy,
                seconds,
            )
            for pool in pools:
                pool.cancel_holders()
            await _drained(pools, _CANCEL_SECONDS)

    def abandon(self) -> None:
        """
        Let go of all connections without a word to the server, as a forked child must.

        The connections belong to the parent process, which goes on using them.
        """
        self._end = "disposed"
        if self._engine is not None:
            for pool in self._pools():
                leave_to_parent(pool)
            self._engine.sync_engine.dispose(close=False)

    async def __aenter__(self) -> Self:
        self._refuse_if_disposed()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.dispose()

    def _refuse_if_disposed(self) -> None:
        if self._end:
            raise DatabaseDisposedError(
                "this Database was disposed and opens no further connection",
                hint="make a new Database(settings); dispose it where the application ends",
            )


async def _drained(pools: list[LoopPool], seconds: float) -> int:
    """Wait until nothing of any pool is in use; return how much is when the time is over."""
    end = time.monotonic() + seconds
    return sum([await pool.drain(max(end - time.monotonic(), 0.0)) for pool in pools])
