"""Databases for a run of tests: a template with its tables, and copies of it."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, inspect, literal, select, table

from moorage.abilities import ManagesStorage
from moorage.connector import DBConnector
from moorage.database import Database
from moorage.errors import DatabaseError, SettingsError
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings

__all__ = ["Schema", "Storage", "create_database", "run_in_thread"]

_T = TypeVar("_T")

# Their rows say which tables there are.
_OF_MIGRATIONS = frozenset({"alembic_version", "moorage_migration_journal"})

Schema = Callable[[Database], Awaitable[None]]
"""Makes the tables of an empty database."""


def run_in_thread(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in a loop of its own, whatever the loops of this thread are doing."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 (raised below)
            failures.append(error)

    thread = threading.Thread(target=call, name="moorage-testing")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def create_database(settings: DatabaseSettings) -> None:
    """Create the database of some settings, with or without a running loop."""
    run_in_thread(_manager(get_connector(settings)).create_database())


class Storage:
    """
    The databases of one run, named after the application's, which itself is never touched.

    They are made anew, whatever an earlier run has left. Workers of pytest-xdist have one each,
    and share the template: the first of them makes it, the last one drops it.

    Args:
        settings: The application's.
        schema: Makes the tables.
        worker: Name of this worker.
        folder: A folder that all workers of the run share, and no other run.

    Raises:
        SettingsError: The connector cannot make databases.
    """

    def __init__(
        self, settings: DatabaseSettings, schema: Schema, worker: str, folder: Path
    ) -> None:
        # A direct URL names a database too, and must not win over the names that are made here.
        self._settings = settings.direct()
        self._schema = schema
        self._worker = worker
        self._folder = folder
        connector = get_connector(settings)
        self._is_server = connector.capabilities.networked
        self._copies = connector.capabilities.template_databases
        self._kept: _Kept | None = None
        _manager(connector)

    def settings(self, purpose: str) -> DatabaseSettings:
        """Return the settings of the database for one purpose."""
        name = self._settings.name
        if self._is_server:
            name = f"{name}_test_{purpose}"
        else:
            name = str(self._folder / f"{Path(name).stem.strip(':')}_test_{purpose}.db")
        return self._settings.replaced("the test kit", name=name)

    @contextmanager
    def database(self, purpose: str, *, empty: bool = False) -> Iterator[DatabaseSettings]:
        """Make a database with the tables, or an empty one; it is dropped afterwards."""
        settings = self.settings(f"{self._worker}_{purpose}")
        if empty or not self._copies:
            run_in_thread(_make(settings, None, None if empty else self._schema))
        else:
            run_in_thread(_make(settings, self.settings("template").name, None))
        try:
            yield settings
        finally:
            run_in_thread(_manager(get_connector(settings)).drop_database())

    @contextmanager
    def committed(self) -> Iterator[DatabaseSettings]:
        """
        Give a database with its tables, and with the rows that they are made with.

        It is a copy where the backend can copy. Elsewhere one is kept for the run and emptied for
        each use; it is made anew if its tables are made with rows, or others came to them.
        """
        if self._copies:
            with self.database("committed") as settings:
                yield settings
            return
        kept, self._kept = self._kept, None
        if kept is None or not run_in_thread(kept.emptied()):
            settings = self.settings(f"{self._worker}_committed")
            kept = run_in_thread(_make_kept(settings, self._schema))
        try:
            yield kept.settings
        finally:
            self._kept = kept

    @contextmanager
    def template(self) -> Iterator[None]:
        """Have the template at hand, where the backend can copy one; drop what was kept."""
        if not self._copies:
            try:
                yield
            finally:
                if self._kept is not None:
                    kept = self._kept.settings
                    run_in_thread(_manager(get_connector(kept)).drop_database())
            return
        settings = self.settings("template")
        with self._counted() as users:
            if not users:
                run_in_thread(_make(settings, None, self._schema))
            users.append(self._worker)
        try:
            yield
        finally:
            with self._counted() as users:
                users.remove(self._worker)
                if not users:
                    run_in_thread(_manager(get_connector(settings)).drop_database())

    @contextmanager
    def _counted(self) -> Iterator[list[str]]:
        """Let one worker after the other change the list of those that use the template."""
        with (self._folder / "moorage-template-users").open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            users = file.read().split()
            yield users
            file.truncate(0)
            file.write(" ".join(users))


@dataclass(frozen=True)
class _Kept:
    """A database that is emptied, and not made anew, for the next test."""

    settings: DatabaseSettings
    tables: frozenset[str]
    begins_empty: bool

    async def emptied(self) -> bool:
        """Delete all rows, and return whether it is as it was made then."""
        if not self.begins_empty:
            return False
        async with Database(self.settings) as database:
            try:
                async with database.engine.begin() as connection:
                    names = await connection.run_sync(_tables)
                    for name in reversed(names):
                        if name not in _OF_MIGRATIONS:
                            await connection.execute(delete(table(name)))
            except DatabaseError:  # tables that refer to each other
                return False
        return frozenset(names) == self.tables


def _tables(connection: Connection) -> list[str]:
    """Return the names of tables, those that others refer to first."""
    ordered = inspect(connection).get_sorted_table_and_fkc_names()
    return [name for name, _ in ordered if name is not None]


async def _make_kept(settings: DatabaseSettings, schema: Schema) -> _Kept:
    await _make(settings, None, schema)
    async with Database(settings) as database, database.engine.connect() as connection:
        names = await connection.run_sync(_tables)
        filled = [
            name
            for name in names
            if name not in _OF_MIGRATIONS
            and (
                await connection.execute(select(literal(1)).select_from(table(name)).limit(1))
            ).all()
        ]
    return _Kept(settings, frozenset(names), not filled)


async def _make(settings: DatabaseSettings, template: str | None, schema: Schema | None) -> None:
    manager = _manager(get_connector(settings))
    await manager.drop_database()
    await manager.create_database(template=template)
    if schema is not None:
        async with Database(settings) as database:
            await schema(database)


def _manager(connector: DBConnector) -> ManagesStorage:
    if not isinstance(connector, ManagesStorage):
        raise SettingsError(
            f"connector {connector.name!r} cannot create databases, which the fixtures need",
            hint="override the fixture db_database with a database that you have made",
        )
    return connector
