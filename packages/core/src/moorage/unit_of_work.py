"""One session, one transaction, used once: commit on success, rollback on everything else."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypedDict

from sqlalchemy import Engine
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction, async_sessionmaker
from sqlalchemy.orm import Session

from moorage.binding import bind_identity
from moorage.commit import commit
from moorage.connector import AccessMode, DBConnector, TransactionLimits
from moorage.engine import connector_of, limit_transaction
from moorage.errors import CommitOutcomeUnknownError, SettingsError, UnitOfWorkError
from moorage.hooks import Hook, Hooks
from moorage.identity import Admin, Identity
from moorage.session import GuardedSession, InnerCommits, guard
from moorage.shield import end_shielded

__all__ = [
    "AsyncSessionFactory",
    "AsyncSessionMaker",
    "CommitOutcome",
    "UnitOfWork",
    "UnitOptions",
    "on_commit",
    "on_rollback",
]

logger: logging.Logger = logging.getLogger("moorage.unit_of_work")

AsyncSessionMaker = async_sessionmaker[AsyncSession]
"""SQLAlchemy's own factory of sessions, as ``Database.sessionmaker`` returns it."""

AsyncSessionFactory = Callable[[], AsyncSession]
"""Anything that returns a new session when called; every :data:`AsyncSessionMaker` is one."""


CommitOutcome = Literal["committed", "rolled_back", "unknown"]
"""What became of a unit of work."""

# For a sessionmaker whose engine is not one of ours.
_COMMIT_SECONDS = 10.0
_HOOK_SECONDS = 10.0
# How long the rollback and the return of the connection may take.
_CLOSE_SECONDS = 5.0


class UnitOptions(TypedDict, total=False):
    """What can be asked of a unit of work; see :class:`UnitOfWork`."""

    isolation_level: str | None
    read_only: bool
    deferrable: bool
    statement_timeout_seconds: float | None
    lock_timeout_seconds: float | None
    inner_commits: InnerCommits
    identity: Identity | Admin | None


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

    Inside, only the unit ends the transaction: ``commit()``, ``rollback()``, ``close()`` and
    ``begin()`` of the session are refused. Afterwards the session is refused for good. A unit
    inside another one is another transaction; to take part in the outer one, :meth:`join` it.

    No connection is taken before the first statement, unless the backend or an option below must
    say something at the start of the transaction.

    Args:
        sessionmaker: Makes the session; the process-wide :func:`moorage.get_sessionmaker` if left
            out. Any ``async_sessionmaker`` will do.
        isolation_level: SQLAlchemy's name of an isolation level, for this unit alone.
        read_only: Let the database refuse writes in this unit.
        deferrable: Let a read-only SERIALIZABLE unit wait for a snapshot that cannot fail.
        statement_timeout_seconds: Longest run of one statement in this unit; 0 is no limit.
        lock_timeout_seconds: Longest wait for a lock in this unit; 0 is no limit.
        inner_commits: ``"savepoint"`` lets ``commit()`` and ``rollback()`` of code that cannot be
            changed release and undo savepoints, which costs a round trip each.
        identity: On whose behalf the unit works, where the backend has row level security.

    Raises:
        UnitOfWorkError: The unit is used twice, or ended before it began.
        IdentityError: The identity may not be bound.
        SettingsError: The backend does not have what an option asks for.
    """

    def __init__(
        self,
        sessionmaker: AsyncSessionFactory | None = None,
        *,
        isolation_level: str | None = None,
        read_only: bool = False,
        deferrable: bool = False,
        statement_timeout_seconds: float | None = None,
        lock_timeout_seconds: float | None = None,
        inner_commits: InnerCommits = "refuse",
        identity: Identity | Admin | None = None,
    ) -> None:
        if deferrable or inner_commits != "refuse":
            _check_options(isolation_level, read_only, deferrable, inner_commits)
        self._sessionmaker = sessionmaker
        self._isolation_level = "SERIALIZABLE" if deferrable else isolation_level
        self._access: AccessMode = "read write"
        if read_only:
            self._access = "read only deferrable" if deferrable else "read only"
        self._limits: TransactionLimits | None = None
        if statement_timeout_seconds is not None or lock_timeout_seconds is not None:
            self._limits = _checked_limits(statement_timeout_seconds, lock_timeout_seconds)
        self._inner_commits: InnerCommits = inner_commits
        self._identity = identity
        self._state = _State.NEW
        self._session: AsyncSession | None = None
        self._connector: DBConnector | None = None
        # Most units ask for nothing that a backend could lack.
        self._asks = read_only or self._isolation_level is not None or self._limits is not None
        self._asks = self._asks or inner_commits != "refuse"
        self._hooks: Hooks | None = None
        self._outcome: CommitOutcome | None = None
        self._rollback_only = False
        self._spoiled_by: BaseException | None = None

    def __repr__(self) -> str:
        return f"<UnitOfWork {self._state.value}>"

    @classmethod
    def of(cls, session: AsyncSession | Session) -> UnitOfWork:
        """
        Return the running unit of work that a session belongs to.

        Raises:
            UnitOfWorkError: It belongs to none.
        """
        sync_session = session.sync_session if isinstance(session, AsyncSession) else session
        owner = sync_session.owner if isinstance(sync_session, GuardedSession) else None
        if not isinstance(owner, UnitOfWork):
            raise UnitOfWorkError(
                "this session does not belong to a running unit of work",
                hint="use the session that `async with UnitOfWork() as session:` gives",
            )
        return owner

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

    def savepoint(self) -> AsyncSessionTransaction:
        """
        Return a block that can be undone by itself: ``async with unit.savepoint():``.

        An exception that leaves the block undoes what the block did and goes on; caught outside
        of it, the rest of the unit is still committed.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended.
        """
        return self.session.begin_nested()

    @asynccontextmanager
    async def join(self) -> AsyncIterator[AsyncSession]:
        """
        Take part in this unit, from code that must be in one transaction with it.

        The block gives the unit's session and ends nothing. An exception that leaves it dooms the
        unit, even if somebody swallows it: the unit rolls back and its end raises an error.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended.
        """
        session = self.session
        try:
            yield session
        except BaseException as failure:
            self._spoiled_by = failure
            raise

    def rollback_only(self) -> None:
        """
        Let the unit roll back at its end, though nothing is raised.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended.
        """
        _ = self.session
        self._rollback_only = True

    async def begin(self) -> AsyncSession:
        """
        Begin the unit and return its session.

        Raises:
            UnitOfWorkError: The unit was begun before, or the session that was given to it
                belongs to another unit.
        """
        if self._state is not _State.NEW:
            raise UnitOfWorkError(
                f"this unit of work is {self._state.value}; a unit is used once",
                hint="make a new UnitOfWork() for each transaction",
            )
        factory = self._sessionmaker
        session = self._default_factory()() if factory is None else factory()
        guarded = guard(session)
        if guarded.owner is not None:
            raise UnitOfWorkError(
                "this session belongs to another unit of work, which is running",
                hint="to take part in it: `async with UnitOfWork.of(session).join():`",
            )
        try:
            if self._identity is not None:
                bind_identity(session, self._identity)
            await self._open(session)
            guarded.belong_to(self)
            if self._inner_commits == "savepoint":
                await session.run_sync(lambda _: guarded.divert_commits())
        except BaseException:
            self._state, self._outcome = _State.ENDED, "rolled_back"
            guarded.let_go()
            await self._close(session)
            guarded.retire(_RETIRED)
            raise
        self._session = session
        self._state = _State.ACTIVE
        return session

    async def end(self, exc: BaseException | None = None) -> None:
        """
        End the unit: commit if ``exc`` is ``None``, else roll back; close the session either way.

        Then the hooks of the outcome run. Neither the commit, the rollback nor a hook is
        interrupted when this task is cancelled meanwhile; each has its own deadline, and the
        cancellation is raised afterwards. ``exc`` is not raised again: whatever fails beside it
        is attached to it as a note, since the caller is about to raise it.

        Raises:
            UnitOfWorkError: The unit has not begun, or has ended; or a block that had joined it
                failed, and it was rolled back for that.
            CommitOutcomeUnknownError: COMMIT was sent and no answer came.
            sqlalchemy.exc.SQLAlchemyError: The commit failed; everything is rolled back.
        """
        session = self.session
        self._state = _State.ENDED
        guarded = guard(session)
        guarded.let_go()
        self._outcome = "rolled_back"
        failure, cancellation = exc, None
        if exc is None and self._spoiled_by is not None:
            failure = UnitOfWorkError(
                "a block that had joined this unit of work failed, so that all of it was rolled"
                " back",
                hint="let the error of the block pass, or undo a part by unit.savepoint()",
            )
            failure.__cause__ = self._spoiled_by
        elif exc is None and not self._rollback_only:
            try:
                cancellation = await self._commit(session)
            except BaseException as error:  # noqa: BLE001 (raised below, after the clean-up)
                failure = error
        cancellation = await self._close(session, failure) or cancellation
        guarded.retire(f"this unit of work was {self._outcome.replace('_', ' ')}")
        if self._hooks is not None:
            limit = self._limit("hook_timeout_seconds", _HOOK_SECONDS)
            cancellation = await self._hooks.run(self._outcome, *limit) or cancellation
        if failure is not None and failure is not exc:
            raise failure
        if cancellation is not None:
            raise cancellation

    async def _commit(self, session: AsyncSession) -> asyncio.CancelledError | None:
        limit = self._limit("commit_timeout_seconds", _COMMIT_SECONDS)
        guarded = guard(session)
        guarded.expect_commit()
        try:
            cancellation = await commit(session, *limit, guarded.commit_is_answered)
        except BaseException as error:
            if guarded.commit_is_answered():
                self._outcome = "committed"  # a listener behind it has failed
            elif isinstance(error, CommitOutcomeUnknownError):
                self._outcome = "unknown"
            raise
        self._outcome = "committed"
        return cancellation

    async def _close(
        self, session: AsyncSession, failure: BaseException | None = None
    ) -> asyncio.CancelledError | None:
        """Close the session, which rolls back what is open; nothing that goes wrong is raised."""
        problem: BaseException | None = None
        cancellation = None
        if session.in_transaction():
            closing = asyncio.create_task(session.close())
            in_time, cancellation = await end_shielded(closing, _CLOSE_SECONDS, _CLOSE_SECONDS)
            if not in_time:
                problem = TimeoutError(f"not done within {_CLOSE_SECONDS:g} s")
            elif not closing.cancelled():
                problem = closing.exception()
        else:
            try:
                await session.close()  # says nothing to the server
            except Exception as error:  # noqa: BLE001 (it must not hide what came before)
                problem = error
        if problem is not None:
            # The connection is not used again; the server ends its transaction with it.
            if failure is not None:
                failure.add_note(f"moorage: closing the session failed as well: {problem!r}")
            else:
                logger.warning("closing a session failed after its unit had ended: %r", problem)
        return cancellation

    def __aenter__(self) -> Coroutine[Any, Any, AsyncSession]:
        return self.begin()

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        return self.end(exc)

    def _default_factory(self) -> AsyncSessionFactory:
        # Looked up late: the process-wide engine is built on top of this module.
        from moorage.default import get_sessionmaker

        return get_sessionmaker()

    async def _open(self, session: AsyncSession) -> None:
        self._connector = connector = _connector_of(session)
        if connector is not None and self._asks:
            self._refuse_what_it_cannot(connector)
        options = self._execution_options(connector)
        # A session that was handed over in the middle of a transaction keeps the one it has.
        if options and not session.in_transaction():
            await session.connection(execution_options=options)
        if self._limits is not None and connector is not None:
            connection = await session.connection()
            await connection.run_sync(limit_transaction, connector, self._limits)

    def _refuse_what_it_cannot(self, connector: DBConnector) -> None:
        can = connector.capabilities
        level = self._isolation_level
        if self._access != "read write" and not can.read_only_transactions:
            raise SettingsError(
                f"connector {connector.name!r} has no read-only transactions",
                hint="leave read_only out",
            )
        if self._access == "read only deferrable" and not can.deferrable_transactions:
            raise SettingsError(
                f"connector {connector.name!r} has no deferrable transactions",
                hint="leave deferrable out",
            )
        if level is not None and level not in can.isolation_levels:
            levels = ", ".join(sorted(can.isolation_levels)) or "none to choose from"
            raise SettingsError(
                f"connector {connector.name!r} has no isolation level {level!r}",
                hint=f"it has {levels}",
            )
        if self._limits is not None and not can.transaction_limits:
            raise SettingsError(
                f"connector {connector.name!r} has no time-outs of single transactions",
                hint=f"set {connector.settings.variable('statement_timeout_seconds')} and"
                f" {connector.settings.variable('lock_timeout_seconds')}, which hold for all",
            )
        if self._inner_commits == "savepoint" and not can.savepoints:
            raise SettingsError(
                f"connector {connector.name!r} has no savepoints",
                hint='leave inner_commits="savepoint" out',
            )

    def _execution_options(self, connector: DBConnector | None) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if connector is not None:
            options.update(connector.get_execution_options(self._access))
        if self._isolation_level is not None:
            options["isolation_level"] = self._isolation_level
        return options

    def _limit(self, setting: str, default: float) -> tuple[float, Callable[[], str]]:
        """Return a limit in seconds, and what names it for whoever wants to change it."""
        if self._connector is None:
            return default, lambda: setting
        settings = self._connector.settings
        return float(getattr(settings, setting)), partial(settings.variable, setting)

    def _register(self, ending: Literal["committed", "rolled_back"], hook: Hook) -> None:
        if self._hooks is None:
            self._hooks = Hooks(guard(self.session))
        self._hooks.add(ending, hook)


def on_commit(session: AsyncSession | Session, hook: Hook) -> None:
    """
    Let ``hook`` run once after the unit of work that ``session`` belongs to has committed.

    Hooks run in the order of their registration, when the transaction is over and the connection
    returned, and are not interrupted by a cancellation of the unit's task; each has
    ``DB_HOOK_TIMEOUT_SECONDS``. Whatever they raise is logged and changes nothing: the work is
    stored. A hook that was registered inside a savepoint is discarded with it.

    Args:
        session: The session of a running unit of work.
        hook: Called without arguments and awaited.

    Raises:
        UnitOfWorkError: The session belongs to no running unit of work.
    """
    UnitOfWork.of(session)._register("committed", hook)


def on_rollback(session: AsyncSession | Session, hook: Hook) -> None:
    """
    Let ``hook`` run once after the work that was being done was rolled back, as above.

    That is the whole unit, or the savepoint inside which the hook is registered; it runs when the
    unit has ended. When the outcome of a COMMIT is unknown, no hook runs.

    Args:
        session: The session of a running unit of work.
        hook: Called without arguments and awaited.

    Raises:
        UnitOfWorkError: The session belongs to no running unit of work.
    """
    UnitOfWork.of(session)._register("rolled_back", hook)


_RETIRED = "this unit of work could not begin"


def _check_options(
    isolation_level: str | None, read_only: bool, deferrable: bool, inner_commits: str
) -> None:
    if deferrable and (not read_only or isolation_level not in {None, "SERIALIZABLE"}):
        raise SettingsError(
            "deferrable has a meaning in read-only SERIALIZABLE transactions only",
            hint="write UnitOfWork(read_only=True, deferrable=True)",
        )
    if inner_commits not in {"refuse", "savepoint"}:
        raise SettingsError(
            f"inner_commits is {inner_commits!r}", hint='write "refuse" or "savepoint"'
        )


def _checked_limits(statement: float | None, lock: float | None) -> TransactionLimits:
    for name, seconds in (("statement", statement), ("lock", lock)):
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise SettingsError(
                f"{name}_timeout_seconds is {seconds!r}",
                hint="write a number of seconds; 0 is no limit",
            )
    return TransactionLimits(statement, lock)


def _connector_of(session: AsyncSession) -> DBConnector | None:
    try:
        bind = session.get_bind()
    except sa_exc.UnboundExecutionError:
        return None  # a session that spreads its classes over several engines
    return connector_of(bind if isinstance(bind, Engine) else bind.engine)
