"""
The suite on each fault of a backend; run by ``test_faults.py`` in an interpreter of its own.

All faults of a backend share it, and each has a database of its own: what one leaves behind, open
transactions and their locks included, must not be in the way of the next.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from moorage import DatabaseSettings, Identity, get_connector, register_connector
from moorage.testing import ConnectorSuite

BACKEND = os.environ["MOORAGE_FAULTS_OF"]
PLACE = json.loads(os.environ["MOORAGE_FAULTS_PLACE"])
FAULTS = import_module(f"tests.conformance.faults_{BACKEND}").FAULTS


@pytest.fixture(scope="class")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Return the settings of a database for one fault."""
    name = request.cls.__name__.removeprefix("Test").lower()
    if BACKEND == "sqlite":
        options = {"synchronous": "normal"}  # nothing here has to outlive a power cut
        file = tmp_path_factory.mktemp(name) / "app.db"
        yield {"type": name, "name": str(file), "connector_options": options}
        return
    place = {**PLACE, "name": name, "connector_options": {"identity_roles": "pg_monitor"}}
    right: Any = get_connector(DatabaseSettings(type=BACKEND, **place, _env_file=None))
    asyncio.run(right.create_database())
    yield {"type": name, **place}
    asyncio.run(right.drop_database())


class Suite(ConnectorSuite):
    """The suite as the author of one of these connectors would write it."""

    @pytest.fixture
    def settings(self, place: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**place, lock_timeout_seconds=3, _env_file=None)


MEMBERS: dict[str, Any] = {}
if BACKEND == "postgres":
    from moorage_postgres.provocations import PROVOCATIONS

    MEMBERS = {
        "provocations": PROVOCATIONS,
        "identity": Identity("pg_monitor"),
        "identity_query": "SELECT current_user",
    }
for kind in FAULTS:
    register_connector(kind, kind.__name__.lower())
    members = {**MEMBERS, "expected_failures": kind.expected_failures}
    globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", (Suite,), members)
