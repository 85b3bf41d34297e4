"""The conformance suite has no check for nothing, and cannot be told to look away."""

from dataclasses import fields

import pytest

from moorage import Capabilities
from moorage.testing import ConnectorSuite
from moorage.testing.check import checks_of
from tests.conformance import faults_postgres, faults_sqlite
from tests.conformance.fault import CHECKS

BROKEN = [kind for kind in (*faults_sqlite.FAULTS, *faults_postgres.FAULTS) if kind.noticed_by]


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
