"""
The tests that every connector has to pass, whoever wrote it and whatever its backend is.

A connector's own test file is a subclass with one fixture::

    class TestDuckConnector(ConnectorSuite):
        @pytest.fixture
        def settings(self) -> DatabaseSettings:
            return DatabaseSettings(type="duck", name="an empty database", _env_file=None)

What a backend cannot do is declared in its ``Capabilities``, and the checks for it are skipped;
what it declares, it must do. A check that fails for a reason that is understood goes into
:attr:`ConnectorSuite.expected_failures`; overriding or deleting one is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from inspect import getattr_static
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from moorage.database import Database
from moorage.errors import DatabaseError
from moorage.identity import Identity
from moorage.settings import DatabaseSettings
from moorage.testing._tables import drop_tables, make_tables
from moorage.testing.check import checks_of
from moorage.testing.checks.abilities import AbilityChecks
from moorage.testing.checks.building import BuildingChecks
from moorage.testing.checks.concurrency import ConcurrencyChecks
from moorage.testing.checks.failures import FailureChecks
from moorage.testing.checks.hooks import HookChecks
from moorage.testing.checks.transactions import TransactionChecks
from moorage.testing.checks.values import ValueChecks

__all__ = ["ConnectorSuite"]


class ConnectorSuite(
    BuildingChecks,
    TransactionChecks,
    ConcurrencyChecks,
    FailureChecks,
    ValueChecks,
    AbilityChecks,
    HookChecks,
):
    """
    What every connector has to do.

    Subclass it in a test module and give it a fixture ``settings``. pytest-asyncio is needed; its
    mode does not matter.

    Class attributes:
        expected_failures: Checks that fail for a known reason, by name or as ``name[parameter]``,
            and the reason. One that passes is a failure. For what is declared in ``Capabilities``
            there is no excuse: declare less.
        provocations: For errors that the suite cannot bring about: the class, and a coroutine
            function that gets a ``Database`` with the suite's tables, brings it about and leaves
            nothing else behind. Those that ``Capabilities.errors`` does not have are left out; one
            that it has and nobody brings about fails the suite.
        identity: For a connector that binds identities: one whose role the settings allow, and
            which is not the user of the settings.
        identity_query: SQL that returns the role for which the transaction works.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    provocations: ClassVar[
        Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]
    ] = {}
    identity: ClassVar[Identity | None] = None
    identity_query: ClassVar[str] = ""

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checks = checks_of(ConnectorSuite)
        fixed = [*checks, "database"]
        hidden = [
            name
            for name in fixed
            if getattr_static(cls, name) is not getattr_static(ConnectorSuite, name)
        ]
        unknown = [
            name
            for name, reason in cls.expected_failures.items()
            if name.partition("[")[0] not in checks or not reason.strip()
        ]
        if hidden or unknown:
            raise TypeError(
                f"{cls.__name__} overrides or names checks in a way that would hide failures:"
                f" {', '.join([*hidden, *unknown])}; put a check that cannot pass into"
                " expected_failures, with the reason, or declare less in Capabilities"
            )

    @pytest.fixture
    def settings(self) -> DatabaseSettings:
        """Return the settings of an empty database; every subclass gives its own."""
        raise NotImplementedError("give your suite a fixture `settings`; see ConnectorSuite")

    @pytest_asyncio.fixture
    async def database(self, settings: DatabaseSettings) -> AsyncIterator[Database]:
        """Return the database with the suite's tables; nothing may be checked out at the end."""
        database = Database(settings)
        await make_tables(database, "ada", "bob")
        yield database
        if database.state == "disposed":
            return
        in_use = database.pool_statistics().in_use
        await drop_tables(database)
        await database.dispose(drain_seconds=0)
        assert in_use == 0, "a connection was not given back to the pool"
