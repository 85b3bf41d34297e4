"""
Read sessions: statements without BEGIN and ROLLBACK, on connections that refuse writes.

A one-row read in a transaction waits for the server three times on some backends, for BEGIN, for
the row and for ROLLBACK, where the row alone is wanted. A connection in autocommit needs the one,
and would let every write pass without a word. So read sessions have connections of their own,
which the backend has been told, once, to refuse writes on; they never serve anything else.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool

from moorage.connector import DBConnector
from moorage.engine import own_resets
from moorage.errors import ReadOnlyError, SettingsError, blend
from moorage.notes import DRIVER_CONNECTION, READS_ONLY, RESTS
from moorage.pool import pool_of_marked
from moorage.session import GuardedSession

__all__ = ["ReadSession", "attach_read_rules", "build_read_engine"]

_HINT = "use database.session() or a unit of work for writing"


class ReadSession(GuardedSession):
    """A session that refuses to write what was added to it, changed or deleted in it."""

    def closes_at_once(self) -> bool:
        """Return whether closing it waits for nothing, as that of a connection in autocommit."""
        connection, info = self._last_connection, self._info
        if connection is None or info is None or self._streams or connection.closed:
            return super().closes_at_once()
        engine = connection.engine
        return isinstance(engine, _EngineWithOwnPool) and engine.rests(info)


@event.listens_for(ReadSession, "before_flush")
def _refuse_flush(session: ReadSession, context: object, instances: object) -> None:
    added, deleted = list(session.new), list(session.deleted)
    changed = list(filter(session.is_modified, session.dirty))
    if added or deleted or changed:
        # As after every flush that fails, what was done to the objects is forgotten.
        for instance in added:
            session.expunge(instance)
        for instance in deleted:
            session.add(instance)
        for instance in changed:
            session.expire(instance)
        ours = ReadOnlyError(
            "objects were added, changed or deleted in a session that only reads", hint=_HINT
        )
        raise blend(ours, sa_exc.InvalidRequestError(str(ours)))


def build_read_engine(engine: AsyncEngine, connector: DBConnector) -> AsyncEngine:
    """
    Return the engine of read sessions for an engine of :func:`~moorage.engine.build_engine`.

    Listeners of ``engine`` see what happens on it as well. Where read sessions need no transaction
    it has a pool of its own, as large as that of ``engine``; else it shares that one, and each
    session is a transaction that only reads.
    """
    if not (connector.capabilities.read_only_connections and connector.reads_without_transaction):
        return engine.execution_options(**connector.get_execution_options("read only"))
    options = connector.get_execution_options("read statements")
    return AsyncEngine(_EngineWithOwnPool(engine.sync_engine, dict(options), connector))


def attach_read_rules(engine: AsyncEngine) -> None:
    """
    Let the read sessions of an engine refuse to be transactions.

    What would outlive them is refused where statements are watched.
    """
    dialect: Any = engine.sync_engine.dialect
    set_options = dialect.set_connection_execution_options

    def set_connection_execution_options(connection: Connection, options: Any) -> None:
        if "isolation_level" in options and isinstance(connection.engine, _EngineWithOwnPool):
            raise SettingsError(
                "read sessions run each statement for itself, and have no isolation level",
                hint="write database.unit_of_work(read_only=True, isolation_level=…)",
            )
        set_options(connection, options)

    dialect.set_connection_execution_options = set_connection_execution_options


class _EngineWithOwnPool(OptionEngine):
    """What ``engine.execution_options()`` returns, which shares everything, but for the pool."""

    pool: Pool = None  # type: ignore[assignment]  # in place of a property of the base

    def __init__(self, proxied: Engine, options: dict[str, Any], connector: DBConnector) -> None:
        super().__init__(proxied, options)
        self._connector = connector
        # The very listeners of the other engine, not a list joined to them, which every event of
        # every connection would go through.
        self.dispatch = proxied.dispatch
        self.pool = pool_of_marked(proxied.pool, READS_ONLY)
        self._own_resets = own_resets(proxied)

    def rests(self, info: dict[Any, Any]) -> bool:
        """Return whether nothing waits where the connection of ``info`` is given back."""
        heard_by = self.pool.dispatch
        if heard_by.checkin or len(heard_by.reset) > self._own_resets:
            return False  # others that listen may talk to the server
        # On some drivers, the rest of what was streamed has to be read.
        is_at_rest: bool = info.get(RESTS, False)
        return is_at_rest and not self._connector.in_transaction(info[DRIVER_CONNECTION])
