"""SQLite for moorage, on aiosqlite: files and memory, without lost updates."""

from moorage_sqlite.connector import SQLiteConnector
from moorage_sqlite.options import SQLiteOptions

__all__ = ["SQLiteConnector", "SQLiteOptions"]
