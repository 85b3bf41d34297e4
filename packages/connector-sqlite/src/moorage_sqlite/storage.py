"""Making, copying and removing the file of a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["MIGRATION_LOCK_SUFFIX", "copy_database", "create_file", "remove_files"]

MIGRATION_LOCK_SUFFIX = "-migrations"
"""Of the file that is locked while the database migrates."""

# What SQLite itself, and the lock, put beside a database's file.
_BESIDE = ("-wal", "-shm", "-journal", MIGRATION_LOCK_SUFFIX)


def create_file(path: Path, template: Path | None) -> None:
    """
    Create a database, empty or as a copy.

    Raises:
        FileExistsError: The file is there.
        FileNotFoundError: The template, or the folder, is not there.
        sqlite3.Error: The template cannot be read.
    """
    if template is not None and not template.is_file():
        raise FileNotFoundError(f"there is no file {template}")
    path.open("xb").close()  # whoever comes second is refused
    if template is None:
        return
    try:
        copy_database(template, path.absolute().as_uri())
    except BaseException:
        remove_files(path)
        raise


def copy_database(template: Path, uri: str) -> None:
    """Copy a database, with what its write-ahead log holds, to an empty one."""
    # The backup interface would copy the mark of the write-ahead log too, which no database in
    # memory can have.
    source_uri = f"{template.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(source_uri, uri=True)) as source:
        source.execute("VACUUM INTO ?", (uri,))


def remove_files(path: Path) -> None:
    """Remove a database and what lies beside it; whoever has it open keeps what he has."""
    for suffix in ("", *_BESIDE):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
