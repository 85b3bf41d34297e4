"""
The database of the process: one engine, made on first use, found by those who pass nothing on.

It is a convenience on top of :class:`~moorage.Database` for application code. Its life: the first
call makes it from the environment, without a connection and with or without a running loop; it is
the same object for every caller until :func:`dispose_engine`, after which the next call makes a
new one. A forked child gets its own and leaves the parent's connections alone. Tests put their
own in its place with :func:`use_database`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from moorage.database import Database
from moorage.unit_of_work import AsyncSessionMaker

__all__ = [
    "dispose_engine",
    "get_database",
    "get_engine",
    "get_sessionmaker",
    "replace_database",
    "use_database",
]

_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_renew_lock)
_database: Database | None = None
_owner_pid = 0


def get_database() -> Database:
    """
    Return the database of this process, made from the environment at the first call.

    Raises:
        SettingsError: A setting is wrong.
        ConnectorError: The connector cannot be found or used.
    """
    global _database, _owner_pid
    with _lock:
        if _database is not None and _owner_pid != os.getpid():
            _database.abandon()
        if _database is None or _database.state == "disposed":
            _database = Database()
            _owner_pid = os.getpid()
        return _database


def use_database(database: Database) -> None:
    """
    Make ``database`` the one that the process uses from now on.

    The one in use before is not disposed: whoever made it does that.
    """
    global _database, _owner_pid
    with _lock:
        _database = database
        _owner_pid = os.getpid()


@contextmanager
def replace_database(database: Database) -> Iterator[None]:
    """Make ``database`` the one of the process inside the block, as fixtures of tests do."""
    global _database, _owner_pid
    before = (_database, _owner_pid)
    use_database(database)
    try:
        yield
    finally:
        with _lock:
            _database, _owner_pid = before


def get_engine() -> AsyncEngine:
    """Return the engine of this process; see :func:`get_database`."""
    return get_database().engine


def get_sessionmaker() -> AsyncSessionMaker:
    """Return the factory of sessions of this process; see :func:`get_database`."""
    return get_database().sessionmaker


async def dispose_engine(drain_seconds: float = 5.0) -> None:
    """
    Dispose the database of this process, if there is one; the next call makes a new one.

    Connections in use are waited for, up to ``drain_seconds``.
    """
    with _lock:
        database = _database
        if database is not None and _owner_pid != os.getpid():
            database.abandon()
    if database is not None:
        # It stays in its place until it is gone, so that nobody gets a new one in the meantime.
        await database.dispose(drain_seconds)
