"""Every project that can be asked for is clean source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scaffold.projects import FLAGS, LAYOUTS, TOOLS, name_of, product, run, write

pytestmark = pytest.mark.timeout(600)

BACKENDS = ("sqlite", "postgres", "mysql")
EVERYTHING = product({**FLAGS, **LAYOUTS})


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_project_is_clean(backend: str, tmp_path: Path) -> None:
    """All combinations parse, are formatted, and pass ruff."""
    tools = TOOLS["tool"]
    for number, options in enumerate(EVERYTHING):
        folder = tmp_path / name_of(options)
        plan = write(folder, backend=backend, tool=tools[number % len(tools)], **options)
        (folder / "ruff.toml").touch()  # what is first-party depends on the project's folder
        for change in plan.changes:
            if change.path.endswith(".py"):
                ast.parse(change.after, change.path)
                assert change.after.endswith("\n")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_projects_have_types(backend: str, tmp_path: Path) -> None:
    """mypy, strict, finds nothing in a project that has everything."""
    write(tmp_path / "shop", backend=backend, tool="uv", auth=True, unit_of_work=False)
    run(tmp_path / "shop", "-m", "mypy", "--strict", "app", "tests", "alembic")
