"""One session, one transaction, used once: commit on success, rollback on everything else."""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from sqlalchemy import Engine
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from moorage.commit import commit
from moorage.connector import AccessMode, DBConnector
from moorage.engine import connector_of
from moorage.errors import CommitOutcomeUnknownError, SettingsError, UnitOfWorkError

__all__ = ["AsyncSessionFactory", "AsyncSessionMaker", "CommitOutcome", "UnitOfWork"]

AsyncSessionMaker = async_sessionmaker[AsyncSession]
"""SQLAlchemy's own factory of sessions, as ``Database.sessionmaker`` returns it."""

AsyncSessionFactory = Callable[[], AsyncSession]
"""Anything that returns a new session when called; every :data:`AsyncSessionMaker` is one."""


CommitOutcome = Literal["committed", "rolled_back", "unknown"]
"""What became of a unit of work."""

# For a sessionmaker whose engine is not one of ours.
_COMMIT_SECONDS = 10.0


class _State(enum.Enum):
    NEW = "not begun"
    ACTIVE = "active"
    ENDED = "ended"


class UnitOfWork:
    """
    A transaction with its session.

    ``async with UnitOfWork() as session:`` commits when the block ends, rolls back on any
    exception (cancellation included), and always closes the session. :meth:`begin` and
    :meth:`end` are the same outside of a ``with``. A unit is used once.

    No connection is taken before the first statement, unless the backend or an option below must
    say something at the start of the transaction.

    Args:
        sessionmaker: Makes the session; the process-wide :func:`moorage.get_sessionmaker` if left
            out. Any ``async_sessionmaker`` will do.
        isolation_level: SQLAlchemy's name of an isolation level, for this unit alone.
        read_only: Let the database refuse writes in this unit.

    Raises:
        UnitOfWorkError: The unit is used twice, or ended before it began.
        SettingsError: The backend does not have what ``isolation_level`` or ``read_only`` ask for.
    """

    def __init__(
        self,
        sessionmaker: AsyncSessionFactory | None = None,
        *,
        isolation_level: str | None = None,
        read_only: bool = False,
    ) -> None:
        self._sessionmaker = sessionmaker
        self._isolation_level = isolation_level
        self._access: AccessMode = "read only" if read_only else "read write"
        self._state = _State.NEW
        self._session: AsyncSession | None = None
        self._outcome: CommitOutcome | None = None

    def __repr__(self) -> str:
        return f"<UnitOfWork {self._state.value}>"

    @property
    def outcome(self) -> CommitOutcome | None:
        """
        Return what became of the unit; ``None`` until it has ended.

        ``unknown`` means that COMMIT was sent and no answer came.
        """
        return self._outcome

    @property
    def session(self) -> AsyncSession:
        """
        Return the session of the running unit.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended.
        """
        if self._state is not _State.ACTIVE or self._session is None:
            raise UnitOfWorkError(
                f"this unit of work is {self._state.value} and has no session",
                hint="use the session inside `async with UnitOfWork() as session:`",
            )
        return self._session

    async def begin(self) -> AsyncSession:
        """
        Begin the unit and return its session.

        Raises:
            UnitOfWorkError: The unit was begun before.
        """
        if self._state is not _State.NEW:
            raise UnitOfWorkError(
                f"this unit of work is {self._state.value}; a unit is used once",
                hint="make a new UnitOfWork() for each transaction",
            )
        session = self._factory()()
        try:
            await self._open(session)
        except BaseException:
            await session.close()
            self._state, self._outcome = _State.ENDED, "rolled_back"
            raise
        self._session = session
        self._state = _State.ACTIVE
        return session

    async def end(self, exc: BaseException | None = None) -> None:
        """
        End the unit: commit if ``exc`` is ``None``, else roll back; close the session either way.

        A commit is waited for, up to ``commit_timeout_seconds``, also when this task is cancelled
        meanwhile; the cancellation is raised afterwards. ``exc`` is not raised again: whatever
        fails beside it is attached to it as a note, since the caller is about to raise it.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended.
            CommitOutcomeUnknownError: COMMIT was sent and no answer came.
            sqlalchemy.exc.SQLAlchemyError: The commit failed; everything is rolled back.
        """
        session = self.session
        self._state = _State.ENDED
        if exc is None:
            try:
                await self._commit(session)
            finally:
                # Closing rolls back what a commit that failed left behind.
                await session.close()
            return
        self._outcome = "rolled_back"
        try:
            # Closing is the rollback, and one step less to be cancelled in.
            await session.close()
        except Exception as failure:  # noqa: BLE001 (whatever it is, it must not hide `exc`)
            exc.add_note(f"moorage: closing the session failed as well: {failure!r}")

    async def _commit(self, session: AsyncSession) -> None:
        connector = _connector_of(session)
        seconds = (
            _COMMIT_SECONDS if connector is None else connector.settings.commit_timeout_seconds
        )
        self._outcome = "rolled_back"
        try:
            cancellation = await commit(session, seconds)
        except CommitOutcomeUnknownError:
            self._outcome = "unknown"
            raise
        self._outcome = "committed"
        if cancellation is not None:
            raise cancellation

    async def __aenter__(self) -> AsyncSession:
        return await self.begin()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.end(exc)

    def _factory(self) -> AsyncSessionFactory:
        if self._sessionmaker is not None:
            return self._sessionmaker
        # Looked up late: the process-wide engine is built on top of this module.
        from moorage.default import get_sessionmaker

        return get_sessionmaker()

    async def _open(self, session: AsyncSession) -> None:
        options = self._execution_options(session)
        # A session that was handed over in the middle of a transaction keeps the one it has.
        if options and not session.in_transaction():
            await session.connection(execution_options=options)

    def _execution_options(self, session: AsyncSession) -> dict[str, Any]:
        options: dict[str, Any] = {}
        connector = _connector_of(session)
        if connector is not None:
            can = connector.capabilities
            if self._access == "read only" and not can.read_only_transactions:
                raise SettingsError(
                    f"connector {connector.name!r} has no read-only transactions",
                    hint="leave read_only out",
                )
            level = self._isolation_level
            if level is not None and level not in can.isolation_levels:
                levels = ", ".join(sorted(can.isolation_levels)) or "none to choose from"
                raise SettingsError(
                    f"connector {connector.name!r} has no isolation level {level!r}",
                    hint=f"it has {levels}",
                )
            options.update(connector.get_execution_options(self._access))
        if self._isolation_level is not None:
            options["isolation_level"] = self._isolation_level
        return options


def _connector_of(session: AsyncSession) -> DBConnector | None:
    try:
        bind = session.get_bind()
    except sa_exc.UnboundExecutionError:
        return None  # a session that spreads its classes over several engines
    return connector_of(bind if isinstance(bind, Engine) else bind.engine)
