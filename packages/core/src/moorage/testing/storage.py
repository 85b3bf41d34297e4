"""Databases for a run of tests: a template with its tables, and copies of it."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from moorage.abilities import ManagesStorage
from moorage.connector import DBConnector
from moorage.database import Database
from moorage.errors import SettingsError
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings

__all__ = ["Schema", "Storage", "create_database", "run_in_thread"]

_T = TypeVar("_T")

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
    def template(self) -> Iterator[None]:
        """Have the template at hand, where the backend can copy one."""
        if not self._copies:
            yield
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
