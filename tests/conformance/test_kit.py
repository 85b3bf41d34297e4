"""The conformance suite notices each fault, by the checks that are meant to, and by no others."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from moorage import Capabilities
from moorage.testing import ConnectorSuite
from moorage.testing.check import checks_of
from tests.conformance.broken import BROKEN, CHECKS
from tests.fix_backend import Servers

ROOT = Path(__file__).resolve().parents[2]

# Several broken connectors share an interpreter, and each has a database of its own: what one
# leaves behind, open transactions and their locks included, must not be in the way of the next.
RUN = """
import asyncio
import os
import pytest
from moorage import DatabaseSettings, register_connector
from moorage.testing import ConnectorSuite
from moorage_postgres import PostgresConnector
from tests.conformance import broken

BACKEND = os.environ["BACKEND"]
PLACE = dict(item.split("=", 1) for item in os.environ["PLACE"].split())


@pytest.fixture(scope="class")
def place(request, tmp_path_factory):
    name = request.cls.kind.__name__.lower()
    if BACKEND == "sqlite":
        yield {"type": name, "name": str(tmp_path_factory.mktemp(name) / "app.db")}
        return
    place = {**PLACE, "name": name}
    storage = PostgresConnector(DatabaseSettings(**place, _env_file=None))
    asyncio.run(storage.create_database())
    yield {"type": name, **place}
    asyncio.run(storage.drop_database())


class Suite(ConnectorSuite):
    kind = None

    @pytest.fixture
    def settings(self, place):
        return DatabaseSettings(**place, lock_timeout_seconds=3, _env_file=None)


for kind in broken.BROKEN:
    if kind.backend == BACKEND:
        register_connector(kind, kind.__name__.lower())
        members = {"kind": kind, "provocations": getattr(kind, "provocations", {})}
        globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", (Suite,), members)
"""


def start(backend: str, place: str, folder: Path) -> subprocess.Popen[str]:
    """Begin to run the suite on all broken connectors of a backend."""
    module = folder / f"test_broken_{backend}.py"
    module.write_text(RUN, encoding="utf-8")
    options = ["-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-c", os.devnull]
    options += ["--assert=plain", "-p", "pytest_asyncio.plugin"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environment = {**os.environ, "BACKEND": backend, "PLACE": place, "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whatever else is installed takes time
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", str(module), *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def noticed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Run the suite on all broken connectors, and return the checks that failed for each."""
    address = servers.get("postgres").address
    place = f"host={address.host} port={address.port} user={address.user}"
    if address.password:
        place += f" password={address.password}"
    folder = tmp_path_factory.mktemp("kit")
    runs = [start("sqlite", "", folder), start("postgres", place, folder)]
    failed: dict[str, set[str]] = {kind.__name__: set() for kind in BROKEN}
    try:
        for run in runs:
            output, _ = run.communicate(timeout=900)
            assert " passed" in output, output[-3000:]
            for line in re.finditer(
                r"^(?:FAILED|ERROR) \S+::Test(\w+)::(test_\w+)", output, re.MULTILINE
            ):
                failed[line[1]].add(line[2])
        yield failed
    finally:
        for run in runs:
            run.kill()
            run.wait()


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_each_fault_is_noticed(kind: type[Any], noticed: dict[str, set[str]]) -> None:
    """A broken connector fails exactly the checks that are listed beside it."""
    assert noticed[kind.__name__] == kind.noticed_by


def test_every_check_notices_something(capsys: pytest.CaptureFixture[str]) -> None:
    """No check is there for nothing: each is failed by a broken connector, as the matrix shows."""
    matrix: dict[str, list[str]] = {}
    for kind in BROKEN:
        for check in kind.noticed_by:
            matrix.setdefault(check, []).append(kind.__name__)
    with capsys.disabled():
        print("\nchecks of the suite, and the broken connectors that each of them notices:")  # noqa: T201
        for check in sorted(CHECKS):
            print(f"  {check:56} {', '.join(matrix.get(check, []))}")  # noqa: T201
    # Who cannot log in fails nearly everything, which proves nothing.
    proven = {check for check, kinds in matrix.items() if kinds != ["LogsInWithAsterisks"]}
    assert CHECKS - proven == set()


def test_every_capability_has_a_check() -> None:
    """Whatever can be declared is tested where it is declared."""
    checks = checks_of(ConnectorSuite).values()
    tested = {check.capability for check in checks}
    if any(check.error for check in checks):
        tested.add("errors")
    assert {field.name for field in fields(Capabilities)} - tested == set()


def test_checks_cannot_be_hidden() -> None:
    """Overriding or deleting a check, or excusing one that does not exist, is refused."""
    with pytest.raises(TypeError, match="test_a_unit_commits"):
        type("TestHidden", (ConnectorSuite,), {"test_a_unit_commits": None})
    helper = type("Helper", (), {"test_a_unit_commits": None})
    with pytest.raises(TypeError, match="test_a_unit_commits"):
        type("TestHiddenByAnother", (helper, ConnectorSuite), {})
    with pytest.raises(TypeError, match="database"):
        type("TestOwnFixture", (ConnectorSuite,), {"database": None})
    with pytest.raises(TypeError, match="test_nothing"):
        type("TestExcused", (ConnectorSuite,), {"expected_failures": {"test_nothing": "why"}})
    with pytest.raises(TypeError, match="test_a_unit_commits"):
        excuse = {"test_a_unit_commits": " "}
        type("TestWithoutReason", (ConnectorSuite,), {"expected_failures": excuse})
