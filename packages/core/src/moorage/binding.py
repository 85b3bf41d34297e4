"""
Sessions that work on somebody's behalf: the identity is told to each of their transactions.

What is told to a session of the database outlives the transaction and meets whoever gets the
connection next; what is told to a transaction is lost with each COMMIT, and the next statement runs
with the rights of the service. So each transaction of a session is told again, before anything
else, and a database that demands identities refuses sessions that have none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import SessionTransaction

from moorage.abilities import BindsIdentities
from moorage.connector import DBConnector
from moorage.engine import connector_of
from moorage.errors import IdentityError, IdentityRequiredError, SettingsError
from moorage.identity import Admin, Identity
from moorage.session import GuardedSession, guard

__all__ = ["bind_identity"]


def bind_identity(session: AsyncSession, identity: Identity | Admin) -> None:
    """
    Let ``session`` work on somebody's behalf, in each of its transactions from now on.

    For integrations that are given a session, as of a web framework; else write
    ``database.session(identity=…)`` or ``database.unit_of_work(identity=…)``. Nothing is sent
    before the first statement.

    Args:
        session: One that has not begun to work, and has no other identity.
        identity: On whose behalf; ``ADMIN`` for nobody's.

    Raises:
        IdentityError: The role is not allowed, or the session belongs to somebody else already, or
            has begun.
        SettingsError: The backend has no such thing.
    """
    guarded = guard(session)
    connector = connector_of(session.get_bind().engine)
    if connector is None or not _binds(type(connector)):
        name = "this engine" if connector is None else f"connector {connector.name!r}"
        raise SettingsError(
            f"{name} cannot work on somebody's behalf: its backend has no row level security",
            hint="leave identity out, and filter by user in each query",
        )
    binder = cast("BindsIdentities", connector)
    if guarded.identity == identity:
        return
    if guarded.identity is not None:
        raise IdentityError(
            f"this session works on behalf of {guarded.identity!r} already",
            hint="open a session of its own for each identity",
        )
    # A session of somebody else's class that was used before has its listeners already.
    is_late = _tell not in tuple(guarded.dispatch.after_begin)
    if guarded.has_connection() or (is_late and guarded.in_transaction()):
        raise IdentityError(
            "this session has begun its work without an identity",
            hint="bind the identity before the session's first statement",
        )
    binder.check_identity(identity)
    if is_late:
        event.listen(guarded, "after_begin", _tell)
    guarded.identity = identity


@lru_cache(maxsize=64)
def _binds(connector: type[DBConnector]) -> bool:
    # Once per class: asking for a protocol takes longer than all the rest of a transaction's start.
    return issubclass(connector, BindsIdentities)


@event.listens_for(GuardedSession, "after_begin")
def _tell(session: GuardedSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return  # what was told holds inside of savepoints, and a rollback to one keeps it
    identity = session.identity
    connector = connector_of(connection)
    if connector is None or not _binds(type(connector)):
        if identity is not None:
            raise IdentityError(
                f"a session of {identity!r} reached an engine whose backend has no such thing",
                hint="give each database a session of its own",
            )
        return
    binder: BindsIdentities = connector  # type: ignore[assignment]  # just asked
    if identity is None and binder.requires_identity():
        raise IdentityRequiredError(
            "a session without an identity reached a database that demands one",
            hint="write database.session(identity=…) or database.unit_of_work(identity=…); for work"
            " of the service itself identity=ADMIN",
        )
    # A transaction that somebody else began may have had an identity before.
    notes = session.notes_on(connection)
    if identity is not None or notes.is_bound:
        notes.is_bound = True
        binder.bind_identity(connection, identity)
