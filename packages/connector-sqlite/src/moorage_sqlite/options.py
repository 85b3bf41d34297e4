"""Options of the SQLite connector, read from ``DB_SQLITE_<OPTION>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moorage import ConnectorOptions


class SQLiteOptions(ConnectorOptions):
    """What can be chosen about a SQLite database beyond the core settings."""

    journal_mode: Literal["wal", "delete", "truncate"] = Field(
        "wal",
        description="`wal` lets readers and one writer work at once; it needs a local file system.",
    )
    synchronous: Literal["full", "normal"] = Field(
        "full",
        description="`normal` is faster and may lose the last commits when the power fails.",
    )
