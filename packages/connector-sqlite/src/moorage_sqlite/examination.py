"""What SQLite says of a file and of a connection to it, and where that file is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from moorage import ServerFacts, ServerFault

if TYPE_CHECKING:
    from moorage_sqlite.connector import SQLiteConnector

__all__ = ["examine_server"]

# The first with RETURNING.
_OLDEST: Final = (3, 35)
_PRAGMAS: Final = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
_SYNCHRONOUS: Final = ("off", "normal", "full", "extra")
_MOUNTS: Final = Path("/proc/self/mounts")
# Where another machine may have the file open, or the host of a virtual one.
_SHARED: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "drvfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"}
    | {"fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "smb3", "smbfs"}
)


async def examine_server(connector: SQLiteConnector, engine: AsyncEngine) -> ServerFacts:
    """Return what is set on a connection of ``engine``, and what is wrong with it or its place."""
    said: dict[str, Any] = {}
    async with engine.connect() as connection:
        for name in _PRAGMAS:
            said[name] = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
    faults = list(_unlike(connector, said))
    details = {}
    if not connector.in_memory:
        place = await asyncio.to_thread(_file_system, Path(connector.path))
        synchronous = _SYNCHRONOUS[said["synchronous"]]
        details["journal"] = f"{said['journal_mode']}, synchronous={synchronous}"
        details["file system"] = place or "not known"
        if place in _SHARED:
            faults.append(ServerFault("C414", f"{connector.path} is on a file system {place}"))
        elif connector.options.journal_mode != "wal":
            variable = connector.option_variable("journal_mode")
            faults.append(
                ServerFault(
                    "C415",
                    f"{variable} is {connector.options.journal_mode}",
                    f"remove {variable}: the default, wal, lets them work at once",
                )
            )
    return ServerFacts(
        f"SQLite {sqlite3.sqlite_version}",
        release=sqlite3.sqlite_version_info,
        oldest_release=_OLDEST,
        details=details,
        faults=tuple(faults),
    )


def _unlike(connector: SQLiteConnector, said: Mapping[str, Any]) -> Iterator[ServerFault]:
    """Yield what a connection was asked for and does not have."""
    options, wait = connector.options, round(connector.lock_wait_seconds * 1000)
    if not said["foreign_keys"]:
        yield ServerFault("C413", "foreign keys are not enforced")
    if said["busy_timeout"] < wait:
        yield ServerFault(
            "C413", f"a lock is waited for {said['busy_timeout']} ms, and the settings say {wait}"
        )
    if connector.in_memory:
        return
    if said["journal_mode"] != options.journal_mode:
        yield ServerFault(
            "C413",
            f"the journal is in mode {said['journal_mode']}, and the settings say"
            f" {options.journal_mode}",
            "see whether another program keeps the file in that mode, or its file system has no"
            " shared memory",
        )
    if said["synchronous"] < _SYNCHRONOUS.index(options.synchronous):
        yield ServerFault(
            "C413",
            f"synchronous is {_SYNCHRONOUS[said['synchronous']]}, and the settings say"
            f" {options.synchronous}",
        )


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path is on; empty where nothing says."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
        place = path.resolve()
    except OSError:
        return ""
    longest, found = -1, ""
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        mounted = Path(point.replace("\\040", " "))
        # Of two at one point the later one covers the earlier.
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:
            longest, found = len(mounted.parts), kind
    return found
