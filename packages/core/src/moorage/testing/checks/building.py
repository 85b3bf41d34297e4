"""Checks of what a connector computes before there is a connection, and of the engine's end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from sqlalchemy import event, select

from moorage.abilities import ManagesStorage
from moorage.connector import DBConnector
from moorage.database import Database
from moorage.errors import (
    DatabaseDisposedError,
    DatabaseError,
    PoolExhaustedError,
)
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Owner, names
from moorage.testing.check import PATIENCE_SECONDS, check, checks_of

__all__ = ["BuildingChecks"]


_NEEDED = {
    "transaction_limits": "limit_transaction",
    "read_only_connections": "make_read_only",
    "read_hosts": "get_read_connect_args",
}


class BuildingChecks:
    """URL, arguments, declarations; and the life of the engine that is made of them."""

    expected_failures: ClassVar[Mapping[str, str]]
    provocations: ClassVar[Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]]

    @check("get_url and get_engine_args: they are called before any loop runs, and only compute")
    async def test_building_does_no_input_or_output(self, settings: DatabaseSettings) -> None:
        """Building a connector, its URL and its arguments opens nothing."""
        with _watch_connects() as connects:
            connector = get_connector(settings)
            connector.get_url()
            connector.get_engine_args()
        assert connects == []

    @check(
        "build_url: it hands the password over in the clear, to SQLAlchemy and nobody else",
        capability="networked",
    )
    async def test_the_password_is_used_and_not_shown(self, settings: DatabaseSettings) -> None:
        """The driver gets the real password, and nothing that can be printed has it."""
        secret = "s3cret-and-long"  # noqa: S105
        connector = get_connector(settings.model_copy(update={"password": SecretStr(secret)}))
        assert connector.get_url().password == secret
        database = Database(connector=connector)
        shown = f"{database!r} {database.engine!r} {connector!r} {connector.get_url()!r}"
        assert secret not in shown
        await database.dispose()

    @check("Capabilities: declare what the connector implements, and nothing that fails")
    async def test_what_is_declared_is_checked(self, settings: DatabaseSettings) -> None:
        """Whatever is declared has what it needs in the class, and a check that must pass."""
        connector = get_connector(settings)
        can = connector.capabilities
        for capability, method in _NEEDED.items():
            overridden = getattr(type(connector), method) is not getattr(DBConnector, method)
            assert overridden or not getattr(can, capability), (
                f"Capabilities.{capability} needs {method}"
            )
        assert isinstance(connector, ManagesStorage) or not can.template_databases, (
            "Capabilities.template_databases needs the methods of ManagesStorage"
        )
        assert can.read_only_connections or not can.read_hosts, (
            "Capabilities.read_hosts needs read_only_connections"
        )
        assert can.read_only_transactions or not can.deferrable_transactions, (
            "Capabilities.deferrable_transactions needs read_only_transactions"
        )
        declared = {name for name, value in vars(can).items() if value}
        checks = checks_of(type(self))
        excused = []
        for excuse in self.expected_failures:
            name, _, parameter = excuse.rstrip("]").partition("[")
            about = checks[name]
            kinds = {kind.__name__ for kind in about.brings & can.errors}
            if about.capability in declared or (parameter in kinds if parameter else kinds):
                excused.append(excuse)
        assert not excused, f"declared, and expected to fail: {excused}"

    @check("Capabilities.errors: what the suite cannot bring about belongs into `provocations`")
    async def test_each_declared_error_is_brought_about(self, settings: DatabaseSettings) -> None:
        """Each error that is declared is brought about, by a check or by the author."""
        connector = get_connector(settings)
        declared = connector.capabilities.errors
        brought = set(self.provocations)
        for about in checks_of(type(self)).values():
            if not about.lacking(connector):
                brought |= about.brings
        unproven = sorted(kind.__name__ for kind in declared - brought)
        assert not unproven, (
            f"declared, and nothing brings them about: {', '.join(unproven)}; say how in"
            " `provocations`, or declare less"
        )

    @check("create_engine: return the engine of super(), and add listeners to that")
    async def test_disposal_ends_everything(self, database: Database) -> None:
        """A disposed database has no connection left, and refuses to open one."""
        closed = _closed_connections(database)
        idle = database.pool_statistics().idle
        await database.dispose()
        assert len(closed) == idle > 0
        with pytest.raises(DatabaseDisposedError):
            await database.ping()

    @check("get_engine_args: extend the result of super(), whose pool knows what is in use")
    async def test_disposal_waits_for_what_is_in_use(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """Disposal lets a unit that has begun commit, and refuses new ones meanwhile."""
        async with database.unit_of_work() as session:
            session.add(Owner(id=3, name="eve"))
            await session.flush()
            disposal = asyncio.create_task(database.dispose(drain_seconds=PATIENCE_SECONDS))
            for _ in range(20):  # what does not wait at all is done by then
                await asyncio.sleep(0)
            assert not disposal.done(), "it did not wait"
            with pytest.raises(DatabaseDisposedError):
                await database.ping()
        await disposal
        async with Database(settings) as again:
            assert await names(again) == ["ada", "bob", "eve"]

    @check("create_engine: return the engine of super(); its pool closes what comes back late")
    async def test_disposal_without_patience_closes_what_comes_back(
        self, database: Database
    ) -> None:
        """Disposal that does not wait closes what its own task holds as soon as that is back."""
        closed = _closed_connections(database)
        async with database.engine.connect() as connection:
            await database.dispose(drain_seconds=0)
            assert await connection.scalar(select(Owner.name).where(Owner.id == 1)) == "ada"
            before = len(closed)
        assert len(closed) == before + 1

    @check("get_engine_args: extend the result of super(), which has the pool")
    async def test_a_dry_pool_says_so(self, settings: DatabaseSettings) -> None:
        """Running out of connections is moorage's own error, within its deadline."""
        small = settings.model_copy(
            update={"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.05}
        )
        async with Database(small) as database, database.engine.connect():
            with pytest.raises(PoolExhaustedError):
                await database.ping()


def _closed_connections(database: Database) -> list[object]:
    closed: list[object] = []
    event.listen(database.engine.sync_engine, "close", lambda connection, _: closed.append(1))
    return closed


_watchers: list[list[str]] = []
_installed: list[Callable[[str, Any], None]] = []


def _audit(event: str, arguments: object) -> None:
    if _watchers and event.endswith(".connect"):
        _watchers[-1].append(event)


@contextmanager
def _watch_connects() -> Iterator[list[str]]:
    """Collect what Python's auditing calls connecting: of sockets, and of databases in files."""
    if _audit not in _installed:
        sys.addaudithook(_audit)  # for the rest of the process; it does nothing outside of here
        _installed.append(_audit)
    _watchers.append([])
    try:
        yield _watchers[-1]
    finally:
        _watchers.pop()
