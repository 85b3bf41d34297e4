"""Every project that can be asked for is clean source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_scale import Scale
from tests.scaffold.projects import FLAGS, LAYOUTS, TOOLS, name_of, product, run, write

pytestmark = pytest.mark.timeout(600)

BACKENDS = ("sqlite", "postgres", "mysql", "supabase")
EVERYTHING = product({**FLAGS, **LAYOUTS, "backend": BACKENDS})


def test_every_project_is_clean(tmp_path: Path) -> None:
    """All combinations parse, are formatted, and pass ruff."""
    tools = TOOLS["tool"]
    for number, options in enumerate(EVERYTHING):
        folder = tmp_path / name_of(options)
        plan = write(folder, tool=tools[number % len(tools)], **options)
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


def test_a_project_has_types(tmp_path: Path) -> None:
    """mypy, strict, finds nothing in a project that has everything."""
    write(tmp_path / "shop", backend="supabase", tool="uv", auth=True, unit_of_work=False)
    run(tmp_path / "shop", "-m", "mypy", "--strict", "app", "tests", "alembic")


@pytest.mark.scaled
def test_other_projects_have_types(scale: Scale, tmp_path: Path) -> None:
    """Nor in others."""
    others = [{"backend": "sqlite"}, {"backend": "mysql", "fastapi": False, "example": False}]
    for number, options in enumerate(others[: scale(small=0, full=len(others))]):
        folder = tmp_path / str(number)
        write(folder, tool="pip", **options)
        run(folder, "-m", "mypy", "--strict", "app", "tests", "alembic")
