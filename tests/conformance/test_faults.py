"""
The conformance suite notices each fault, by the checks that are meant to, and by no others.

At small counts each fault meets the checks that are listed beside it and every fourteenth of
the others, another fourteenth for the next one; at full counts all meet all.
"""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.fault import CHECKS
from tests.fix_backend import Servers, chosen_backends
from tests.fix_scale import Scale

ROOT = Path(__file__).resolve().parents[2]
RUN = "tests/conformance/run_faults.py"
FAULTS: dict[str, list[type[Any]]] = {
    backend: import_module(f"tests.conformance.faults_{backend}").FAULTS
    for backend in chosen_backends()
    if backend != "mysql"
}
# Who fails nearly everything need not fail it all each time.
_FEW = 20
ONE_IN = 14
_PATIENCE_SECONDS = 1500.0


def checks_for(kind: type[Any], number: int, every: int) -> list[str]:
    """Return the checks that a fault meets when one in ``every`` of the unlikely ones is tried."""
    listed = kind.noticed_by | kind.passes
    turn = [check for index, check in enumerate(sorted(CHECKS)) if index % every == number % every]
    return sorted({*turn} if len(listed) >= _FEW else {*turn, *listed})


def run_suite(backend: str, place: dict[str, Any], every: int, folder: Path) -> Path:
    """Run the suite on all faults of a backend, and return its report."""
    report = folder / f"{backend}-{every}.xml"
    options = ["-q", "--tb=no", "--noconftest", "--assert=plain", "-c", os.devnull]
    options += ["-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "--rootdir", str(ROOT)]
    options += ["-o", "asyncio_default_fixture_loop_scope=function", f"--junitxml={report}"]
    selected = [
        f"{RUN}::Test{kind.__name__}::{check}"
        for number, kind in enumerate(FAULTS[backend])
        for check in checks_for(kind, number, every)
    ]
    environment = {
        **os.environ,
        "MOORAGE_FAULTS_OF": backend,
        "MOORAGE_FAULTS_PLACE": json.dumps(place),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # whatever else is installed takes time
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *selected],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    return report


Outcomes = dict[str, dict[str, set[str]]]


def outcomes(report: Path) -> Outcomes:
    """Return how the tests of each check ended for each fault: passed, skipped or failed."""
    found: Outcomes = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 (it was written a moment ago)
        kind = case.get("classname", "").rpartition(".Test")[2]
        check = case.get("name", "").partition("[")[0]
        marks = {"failed" if mark.tag in {"failure", "error"} else mark.tag for mark in case}
        ended = marks & {"failed", "skipped"} or {"passed"}
        found.setdefault(kind, {}).setdefault(check, set()).update(ended)
    return found


@pytest.fixture(scope="module")
def suite_on_faults(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], Outcomes]:
    """Return a function that runs the suite on all faults of a backend, once."""

    @cache
    def run(backend: str, every: int) -> Outcomes:
        place: dict[str, Any] = {}
        if backend != "sqlite":
            address = servers.get(backend).address
            place = {"host": address.host, "port": address.port}
            place |= {"user": address.user, "password": address.password}
        return outcomes(run_suite(backend, place, every, tmp_path_factory.mktemp("faults")))

    return run


@pytest.mark.scaled
@pytest.mark.timeout(_PATIENCE_SECONDS)
@pytest.mark.parametrize("backend", FAULTS)
def test_each_fault_is_noticed(
    backend: str, suite_on_faults: Callable[[str, int], Outcomes], scale: Scale
) -> None:
    """A broken connector fails exactly the checks that are listed beside it."""
    every = scale(small=ONE_IN, full=1)
    ended = suite_on_faults(backend, every)
    wrong: list[str] = []
    for number, kind in enumerate(FAULTS[backend]):
        tried = set(checks_for(kind, number, every))
        mine = ended.get(kind.__name__, {})
        failed = {check for check, how in mine.items() if "failed" in how}
        passed = {check for check, how in mine.items() if how == {"passed"}}
        if mine.keys() != tried or failed != kind.noticed_by & tried or kind.passes - passed:
            wrong.append(
                f"{kind.__name__}: not run {sorted(tried - mine.keys())},"
                f" not noticed by {sorted((kind.noticed_by & tried) - failed)},"
                f" noticed by others {sorted(failed - kind.noticed_by)},"
                f" not passed {sorted(kind.passes - passed)}"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("backend", FAULTS)
def test_few_checks_tell_as_much(backend: str) -> None:
    """At small counts a fault meets what must notice it, and each check meets several others."""
    met: dict[str, int] = dict.fromkeys(CHECKS, 0)
    for number, kind in enumerate(FAULTS[backend]):
        chosen = set(checks_for(kind, number, ONE_IN))
        assert len(kind.noticed_by) >= _FEW or kind.noticed_by | kind.passes <= chosen
        assert len(chosen) < len(CHECKS) / 2
        for check in chosen - kind.noticed_by:
            met[check] += 1
    assert min(met.values()) >= 1
