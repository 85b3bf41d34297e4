"""What `moorage connector new` writes is a distribution that works."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.building import (
    ROOT,
    Built,
    build,
    clean_environment,
    new_environment,
    run,
)
from tests.servers import throwaway

EXAMPLE = ROOT / "examples" / "connector-template"


def test_the_example_is_current() -> None:
    """The example is what the command writes today."""
    run([sys.executable, str(ROOT / "scripts" / "connector_example.py"), "--check"])


@pytest.fixture(scope="module")
def place() -> Iterator[dict[str, str]]:
    """Return the settings of an empty database for the example's own tests."""
    with throwaway("postgres") as server:
        server.create_database("heron")
        address = server.address
        yield {
            "HERON_TEST_HOST": address.host,
            "HERON_TEST_PORT": str(address.port),
            "HERON_TEST_USER": address.user,
            "HERON_TEST_PASSWORD": address.password or "",
            "HERON_TEST_NAME": "heron",
        }
        server.drop_database("heron")


@pytest.mark.timeout(600)
def test_the_example_passes_its_own_tests(
    built: dict[str, Built], place: dict[str, str], tmp_path: Path
) -> None:
    """Built and installed as others would, the example is listed and passes the suite."""
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "dist"))
    (wheel,) = build(project, tmp_path / "dist", "wheel")
    core = f"{built['moorage'].wheel}[testing,cli]"
    python = new_environment(tmp_path / "venv", core, wheel)

    command = [str(python.with_name("moorage")), "connectors", "--json"]
    (listed,) = json.loads(run(command, cwd=tmp_path, env=clean_environment()))
    assert (listed["name"], listed["distribution"], listed["version"]) == (
        "heron",
        "moorage-heron",
        "0.1.0",
    )
    assert listed["problem"] == ""

    shutil.rmtree(project / "src")  # the wheel is what is tested
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=clean_environment(**place),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
