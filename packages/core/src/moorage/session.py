"""
SQLAlchemy's session, with the mistakes named that it would let pass.

Two tasks that use one session at once mix their statements in one transaction, and SQLAlchemy
notices only while a connection is being taken. A session whose unit of work has ended begins a
new transaction that nobody commits. A COMMIT inside a unit makes half of it final. Each of them is
refused here, in the synchronous session that every ``AsyncSession`` works through, so that
``session.sync_session`` and ``run_sync`` are no way around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

from greenlet import getcurrent, greenlet
from sqlalchemy import Connection, Result, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import EMPTY_DICT

from moorage.abilities import TellsWrites
from moorage.by_key import KEY, KEY_TYPES, plan_by_key
from moorage.engine import connector_of
from moorage.errors import ConnectionLostError, DatabaseError, SessionSharedError, UnitOfWorkError
from moorage.identity import Admin, Identity
from moorage.notes import NOTES, Notes, notes_in, notes_of

__all__ = [
    "GuardedSession",
    "InnerCommits",
    "PromptSession",
    "find_uncommitted_changes",
    "guard",
    "retire_session",
    "uncommitted_changes",
]

InnerCommits = Literal["refuse", "savepoint"]
"""What becomes of ``commit()`` and ``rollback()`` on the session inside a unit of work."""

# What does work with the database, or registers work that is lost if nobody commits it.
_WORK = (
    "add",
    "add_all",
    "delete",
    "flush",
    "get_one",
    "merge",
    "refresh",
    "scalar",
    "scalars",
)


# What `AsyncSession.get` hands on where it was given no execution options.
_NONE = EMPTY_DICT

_IN_A_UNIT = "do it inside the unit's block, or in a new unit of work"


class GuardedSession(Session):
    """
    A session that knows its unit of work and the task that is using it.

    Outside of a unit it refuses one thing: being used by two tasks at once.
    """

    owner: object | None = None
    """The running unit of work, which alone may end the transaction."""

    identity: Identity | Admin | None = None
    """On whose behalf it works; ``None`` for nobody's. Set by :func:`moorage.bind_identity`."""

    # Whether `get` is that of SQLAlchemy below.
    _gets_plainly: bool = True
    _savepoint: SessionTransaction | None = None
    _ended: tuple[str, str] | None = None
    _user: asyncio.Task[Any] | None = None
    _greenlet: greenlet | None = None
    _depth: int = 0
    _close_when_left: bool = False
    _streams: tuple[Result[Any], ...] = ()
    _last_connection: Connection | None = None
    _info: dict[Any, Any] | None = None
    _notes: Notes | None = None
    _writes_before: int = 0
    _gave_connection: bool = False
    _is_spread: bool = False
    _transaction_at_work: SessionTransaction | None = None

    def belong_to(self, owner: object) -> None:
        """Let only ``owner`` end the transaction from now on."""
        self.owner = owner

    def divert_commits(self) -> None:
        """Let ``commit()`` and ``rollback()`` of others end savepoints; opens the first one."""
        self._savepoint = super().begin_nested()

    def let_go(self) -> None:
        """Let anybody end the transaction again; called by the owner, which is about to."""
        self.owner = None

    def has_connection(self) -> bool:
        """Return whether the present transaction has taken a connection."""
        return self.in_transaction() and self.get_transaction() is self._transaction_at_work

    def notes_on(self, connection: Connection) -> Notes:
        """Return what is remembered of the transaction on a connection of this session."""
        if self._notes is not None and connection is self._last_connection:
            return self._notes
        return notes_of(connection)

    def expect_commit(self) -> None:
        """Forget the COMMIT of an earlier transaction."""
        if self._notes is not None and self._notes.is_committed:
            self._notes = None

    def commit_is_answered(self) -> bool:
        """Return whether the database has confirmed the COMMIT that was expected."""
        # Of several databases one alone may have.
        return self._notes is not None and self._notes.is_committed and not self._is_spread

    def closes_at_once(self) -> bool:
        """Return whether closing it waits for nothing: no transaction is open."""
        return not self.in_transaction()

    def retire(self, reason: str, hint: str = _IN_A_UNIT) -> None:
        """Refuse all further work; ``reason`` begins the message."""
        self._ended = (reason, hint)

    def begin(self, nested: bool = False) -> SessionTransaction:
        """Begin a transaction; inside a unit there is one already."""
        self._refuse_if_ended()
        if nested or self.owner is None:
            return super().begin(nested)
        if self._savepoint is not None:
            return _DivertedTransaction(self)  # type: ignore[return-value]  # quacks like one
        raise self._refusal("begin")

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement, as SQLAlchemy does; refused after the end of the unit."""
        if self._greenlet is getcurrent():
            result = super().execute(*args, **kwargs)  # on the way of `get`, for one
        else:
            self._take()
            try:
                result = super().execute(*args, **kwargs)
            finally:
                self._leave()
        options = kwargs.get("execution_options")
        if options and (options.get("stream_results") or options.get("yield_per")):
            self._streams = (*(stream for stream in self._streams if not stream.closed), result)
        return result

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return the object with a key, as SQLAlchemy does; refused after the end of the unit."""
        if self._greenlet is getcurrent():
            return self._get(args, kwargs)
        self._take()
        try:
            return self._get(args, kwargs)
        finally:
            self._leave()

    def connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Return the transaction's connection, as SQLAlchemy does."""
        self._take()
        try:
            given = super().connection(*args, **kwargs)
        finally:
            self._leave()
        self._gave_connection = True
        return given

    def commit(self) -> None:
        """Commit; inside a unit an error, or the release of a savepoint."""
        if self.owner is not None and self._savepoint is None:
            raise self._refusal("commit")
        self._take()
        try:
            self._close_streams()
            if self.owner is None or self._savepoint is None:
                super().commit()
            else:
                self._savepoint.commit()
                self._savepoint = super().begin_nested()
        finally:
            self._leave()

    def rollback(self) -> None:
        """Roll back; inside a unit an error, or the rollback to a savepoint."""
        if self.owner is None:
            self._close_streams()
            super().rollback()
        elif self._savepoint is not None:
            self._savepoint.rollback()
            self._savepoint = super().begin_nested()
        else:
            raise self._refusal("rollback")

    def close(self) -> None:
        """Close the session; inside a unit an error, or the rollback to a savepoint."""
        if self.owner is None:
            if self._depth and self._user is not _current_task():
                # SQLAlchemy would refuse, and the connection would never come back.
                self._close_when_left = True
                raise SessionSharedError(
                    f"a session was closed while {_name(self._user)} was using it; it is closed as"
                    " soon as that has ended",
                    hint="wait for the tasks that use a session before you end it",
                )
            if self._streams:
                self._close_streams()
            super().close()
            self._forget_transaction()
        elif self._savepoint is not None:
            self.rollback()
            self.expunge_all()
        else:
            raise self._refusal("close")

    def reset(self) -> None:
        """Close the session for another use; inside a unit an error."""
        if self.owner is not None:
            raise self._refusal("reset")
        super().reset()
        self._forget_transaction()

    def invalidate(self) -> None:
        """Close the session and its connection; inside a unit an error."""
        if self.owner is not None:
            raise self._refusal("invalidate")
        super().invalidate()
        self._forget_transaction()

    def prepare(self) -> None:
        """Prepare a two-phase commit; inside a unit an error."""
        if self.owner is not None:
            raise self._refusal("prepare")
        super().prepare()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let this task alone use the session, for work of several steps."""
        self._take()
        try:
            yield
        finally:
            self._leave()

    def _get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) != 2 or type(args[1]) not in KEY_TYPES or not self._gets_plainly:
            return super().get(*args, **kwargs)
        for value in kwargs.values():
            if value is not None and value is not False and value is not _NONE:
                return super().get(*args, **kwargs)
        plan = plan_by_key(args[0])
        if (
            plan is None
            or plan.mapper.identity_key_from_primary_key((args[1],)) in self.identity_map
        ):
            return super().get(*args, **kwargs)
        result = self.execute(plan.statement, {KEY: args[1]})
        if not plan.is_one_row or self.dispatch.do_orm_execute:
            result = result.unique()  # whoever listens may have joined something
        return result.scalars().one_or_none()

    def _forget_transaction(self) -> None:
        # It refers to the session: the two would keep each other until the collector comes by.
        self._transaction_at_work = self._last_connection = self._info = self._notes = None

    def _close_streams(self) -> None:
        # Some drivers take nothing from a connection, not even COMMIT, before they have had the
        # last row of a result that is fetched piece by piece.
        streams, self._streams = self._streams, ()
        for stream in streams:
            stream.close()

    def _take(self) -> None:
        """
        Note that this task is working with the session, until :meth:`_leave`.

        What is called on the way, in the greenlet that SQLAlchemy made for the outermost call,
        belongs to it and takes nothing.
        """
        if self._ended:
            self._refuse_if_ended()
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None  # a synchronous session, used outside of any loop
        if self._depth and self._user is not task:
            raise SessionSharedError(
                f"{_name(task)} used a session while {_name(self._user)} was using it; their"
                " statements would mix in one transaction",
                hint="give each task a session of its own, also inside gather() and TaskGroup",
            )
        self._user = task
        if not self._depth:
            current = getcurrent()
            # All tasks have the outermost one in common, which therefore says nothing.
            self._greenlet = None if current.parent is None else current
        self._depth += 1

    def _leave(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._user = self._greenlet = None
            if self._close_when_left:
                self._close_when_left = False
                super().close()

    def _refuse_if_ended(self) -> None:
        if self._ended:
            reason, hint = self._ended
            raise UnitOfWorkError(
                f"{reason}; what is done with its session now would never be committed", hint=hint
            )

    def _refusal(self, method: str) -> UnitOfWorkError:
        return UnitOfWorkError(
            f"session.{method}() was called inside {self.owner!r}, which ends the transaction"
            " itself",
            hint=(
                "leave it out; for a part that may be undone use `async with unit.savepoint():`,"
                ' and for code that cannot be changed UnitOfWork(inner_commits="savepoint")'
            ),
        )


class PromptSession(AsyncSession):
    """
    A session that closes at once where that waits for nothing.

    SQLAlchemy closes in a greenlet of its own, since a ROLLBACK waits for the server, and at the
    end of a block in a task of its own, so that nobody interrupts it. Where there is nothing to be
    sent, task and greenlet are all that closing costs: the stack of a greenlet comes from the
    kernel and goes back to it.
    """

    async def close(self) -> None:
        """Close the session, as SQLAlchemy does."""
        below = self.sync_session
        if isinstance(below, GuardedSession) and below.closes_at_once():
            below.close()
        else:
            await super().close()

    async def __aexit__(self, kind: Any, exc: Any, traceback: Any) -> None:
        below = self.sync_session
        if isinstance(below, GuardedSession) and below.closes_at_once():
            below.close()
        else:
            await super().__aexit__(kind, exc, traceback)


class _DivertedTransaction:
    """What ``begin()`` gives inside a unit that lets others end savepoints only."""

    is_active: bool = True

    def __init__(self, session: GuardedSession) -> None:
        self._session = session

    def commit(self) -> None:
        self.is_active = False
        self._session.commit()

    def rollback(self) -> None:
        self.is_active = False
        self._session.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, traceback: object) -> None:
        if self.is_active:
            self.commit() if exc is None else self.rollback()


def guard(session: AsyncSession) -> GuardedSession:
    """
    Return the synchronous session below ``session``, guarded whatever class it was made with.

    A session of a stranger's sessionmaker becomes an instance of a subclass of its own class, so
    that whatever the stranger's class does is still done.
    """
    sync_session = session.sync_session
    if not isinstance(sync_session, GuardedSession):
        sync_session.__class__ = _guarded_class(type(sync_session))
    return sync_session  # type: ignore[return-value]  # its class was changed


_guarded_classes: dict[type[Session], type[GuardedSession]] = {}


def retire_session(session: AsyncSession, reason: str, hint: str) -> None:
    """
    Refuse all further work on a session that was closed, for good.

    Called by whoever ends the life of a session that others may still hold, as an integration of
    a web framework does at the end of a request.

    Args:
        session: A session without an open transaction.
        reason: What has ended, as the beginning of the message: "this request has ended".
        hint: What to use instead.
    """
    guard(session).retire(reason, hint)


def uncommitted_changes(session: AsyncSession) -> str:
    """
    Say what would be lost if ``session`` were closed now; empty if that is nothing.

    Counted are objects that were added, changed or deleted, and statements that write, also those
    on the session's connection. What a driver does behind SQLAlchemy's back is not seen; see
    :func:`find_uncommitted_changes`.
    """
    below = guard(session)
    if below.new or below.deleted or any(map(below.is_modified, below.dirty)):
        return "objects that were added, changed or deleted"
    connection = below._last_connection
    if connection is None or not below.in_transaction():
        return ""
    if connection.closed or connection.invalidated:
        return ""  # it is lost already
    has_written = below.notes_on(connection).writes > below._writes_before
    return "statements that write" if has_written else ""


async def find_uncommitted_changes(session: AsyncSession) -> str:
    """
    Say what would be lost if ``session`` were closed now, and ask the database where it can tell.

    Asked is a connector that :class:`moorage.TellsWrites`, about what :func:`uncommitted_changes`
    cannot see: SQL written by hand that does not look as if it writes, as the call of a function,
    and what a driver was given directly, as COPY. It costs a round trip, in a session that has run
    SQL written by hand or given its connection away, and has not committed; else nothing.

    Raises:
        ConnectionLostError: Nobody can tell any more.
    """
    if lost := uncommitted_changes(session):
        return lost
    below = guard(session)
    connection = below._last_connection
    if (
        connection is None
        or connection.closed
        or not below.in_transaction()
        # Of a transaction that is shared with others nobody knows who wrote.
        or isinstance(below.bind, Connection)
        or not (below._gave_connection or notes_of(connection).has_run_by_hand)
    ):
        return ""
    connector = connector_of(connection.engine)
    if not isinstance(connector, TellsWrites):
        return ""
    try:
        has_written = await connector.has_written(await session.connection())
    except ConnectionLostError:
        raise
    except DatabaseError:  # the transaction has failed, and stores nothing whoever commits it
        return ""
    return "what was written by hand or by the driver" if has_written else ""


@event.listens_for(GuardedSession, "after_begin")
def _note_connection(
    session: GuardedSession, transaction: SessionTransaction, connection: Connection
) -> None:
    session._last_connection = connection
    session._info = info = connection.info  # it has just begun, and is not lost
    session._notes = notes = info.get(NOTES) or notes_in(info)
    if transaction.parent is None:
        # A session that joins the transaction of others, as tests do, answers for its own writes.
        session._writes_before = notes.writes
        session._gave_connection = False
        session._is_spread = session._transaction_at_work is transaction
        session._transaction_at_work = transaction
    else:
        session._transaction_at_work = session.get_transaction()


def _guarded_class(base: type[Session]) -> type[GuardedSession]:
    if base is Session:
        return GuardedSession
    if (known := _guarded_classes.get(base)) is None:
        own = {"_gets_plainly": base.get is Session.get}
        made = type(f"Guarded{base.__name__}", (GuardedSession, base), own)
        known = _guarded_classes.setdefault(base, made)
    return known


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # a synchronous session, used outside of any loop


def _name(task: asyncio.Task[Any] | None) -> str:
    return "code outside of any task" if task is None else f"task {task.get_name()!r}"


def _watched(name: str) -> Callable[..., Any]:
    def method(self: GuardedSession, *args: Any, **kwargs: Any) -> Any:
        theirs = getattr(super(GuardedSession, self), name)
        if self._greenlet is getcurrent():
            return theirs(*args, **kwargs)
        self._take()
        try:
            return theirs(*args, **kwargs)
        finally:
            self._leave()

    method.__name__ = name
    method.__qualname__ = f"GuardedSession.{name}"
    method.__doc__ = getattr(Session, name).__doc__
    return method


for _method in _WORK:
    setattr(GuardedSession, _method, _watched(_method))
