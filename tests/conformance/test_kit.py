"""The conformance suite notices each fault, by the checks that are meant to, and by no others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.testing import ConnectorSuite
from tests.conformance.broken import BROKEN, CHECKS
from tests.fix_backend import Servers

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import os
import pytest
from moorage import DatabaseSettings, register_connector
from moorage.testing import ConnectorSuite
from tests.conformance import broken

pytest_plugins = ()
register_connector(getattr(broken, os.environ["BROKEN"]), "broken")


class TestBroken(ConnectorSuite):
    @pytest.fixture
    def settings(self, tmp_path):
        place = dict(item.split("=", 1) for item in os.environ["PLACE"].split())
        return DatabaseSettings(
            type="broken", **place or {"name": str(tmp_path / "app.db")}, _env_file=None
        )
"""


def failing_checks(name: str, place: str, folder: Path) -> set[str]:
    """Run the suite on a broken connector and return the names of the checks that failed."""
    module = folder / "test_broken.py"
    module.write_text(RUN, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", str(module), "-q", "-rfE", "-p", "no:cacheprovider"]
    environment = {**os.environ, "BROKEN": name, "PLACE": place, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, "-c", os.devnull, "-o", "asyncio_default_fixture_loop_scope=function"],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert " passed" in run.stdout, run.stdout[-2000:] + run.stderr[-2000:]
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(test_\w+)", run.stdout, re.MULTILINE))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_each_fault_is_noticed(kind: type, servers: Servers, tmp_path: Path) -> None:
    """A broken connector fails exactly the checks that are listed beside it."""
    place = ""
    if kind.backend == "postgres":  # type: ignore[attr-defined]
        server = servers.get("postgres")
        server.create_database("broken")
        address = server.address
        place = f"host={address.host} port={address.port} user={address.user} name=broken"
        if address.password:
            place += f" password={address.password}"
    try:
        assert failing_checks(kind.__name__, place, tmp_path) == kind.noticed_by  # type: ignore[attr-defined]
    finally:
        if place:
            server.drop_database("broken")


def test_every_check_notices_something() -> None:
    """No check is there for nothing: each is failed by a broken connector, as the matrix shows."""
    matrix: dict[str, list[str]] = {}
    for kind in BROKEN:
        for check in kind.noticed_by:
            matrix.setdefault(check, []).append(kind.__name__)
    for check in sorted(CHECKS):
        print(f"{check:48} {', '.join(matrix.get(check, []))}")  # noqa: T201 (it is the result)
    # Who cannot log in fails nearly everything, which proves nothing.
    proven = {check for check, kinds in matrix.items() if kinds != ["LogsInWithAsterisks"]}
    assert CHECKS - proven == set()


def test_checks_cannot_be_hidden() -> None:
    """Overriding or deleting a check, or excusing one that does not exist, is refused."""
    with pytest.raises(TypeError, match="test_a_unit_commits"):
        type("TestHidden", (ConnectorSuite,), {"test_a_unit_commits": None})
    with pytest.raises(TypeError, match="test_nothing"):
        type("TestExcused", (ConnectorSuite,), {"expected_failures": {"test_nothing": "why"}})
