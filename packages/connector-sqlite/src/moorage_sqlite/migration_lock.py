"""
Who may migrate: a lock that is held between transactions, and ends with its holder.

SQLite's own locks end with the transaction. A file gets a second file beside it, locked by the
operating system, which lets go when the process ends; a database in memory belongs to one
``Database`` and needs no file.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

__all__ = ["MigrationLock"]


class MigrationLock:
    """
    The lock of one database; its holders are connections of the driver.

    Args:
        path: The lock's file; ``None`` for a database in memory. It stays when the lock is free:
            removing it would let two hold the lock.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._holder: Any = None
        self._file: int | None = None

    def attach(self, engine: Engine) -> None:
        """Let the lock go when the connection that holds it is closed."""

        @event.listens_for(engine, "close")
        def closed(connection: Any, record: object) -> None:
            self.release(connection.driver_connection)

    def try_acquire(self, holder: object) -> bool:
        """Take the lock for ``holder`` if it is free; never waits."""
        with self._mutex:
            if self._holder is not None:
                return self._holder is holder
            if self._path is not None:
                self._file = _lock(self._path)
                if self._file is None:
                    return False
            self._holder = holder
            return True

    def release(self, holder: object) -> None:
        """Let the lock go, if ``holder`` has it."""
        with self._mutex:
            if self._holder is not holder or holder is None:
                return
            self._holder = None
            file, self._file = self._file, None
            if file is not None:
                os.close(file)


def _lock(path: Path) -> int | None:
    """Return the locked file, open; ``None`` if somebody else holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # less the umask, as SQLite's own files
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file
