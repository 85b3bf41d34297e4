"""
Tests for users of moorage, to run with pytest: ``pip install 'moorage[testing]'``.

:class:`ConnectorSuite` tells whoever writes a connector whether it is right; the fixtures for
applications are in :mod:`moorage.testing.fixtures`.
"""

from __future__ import annotations

from importlib.util import find_spec

from moorage.errors import MissingExtraError

if find_spec("pytest") is None or find_spec("pytest_asyncio") is None:
    raise MissingExtraError(
        "moorage.testing needs pytest and pytest-asyncio, which are not installed",
        hint="pip install 'moorage[testing]'",
    )

import pytest

# What an assertion of the suite compared is shown to whoever writes a connector.
pytest.register_assert_rewrite("moorage.testing.checks", "moorage.testing.suite")

from moorage.testing.assertions import QueryLog, assert_queries, no_lazy_loads, no_leaks
from moorage.testing.isolation import RolledBackDatabase
from moorage.testing.migration_suite import MigrationSuite
from moorage.testing.stepper import Stepper
from moorage.testing.storage import create_database
from moorage.testing.suite import ConnectorSuite
from moorage.testing.throwaway import ThrowawayServer

__all__ = [
    "ConnectorSuite",
    "MigrationSuite",
    "QueryLog",
    "RolledBackDatabase",
    "Stepper",
    "ThrowawayServer",
    "assert_queries",
    "create_database",
    "no_lazy_loads",
    "no_leaks",
]
