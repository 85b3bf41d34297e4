"""Building the distributions of this tree, and others, and using them in fresh environments."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MODULES = {
    "moorage": "moorage",
    "moorage-postgres": "moorage_postgres",
    "moorage-mysql": "moorage_mysql",
    "moorage-sqlite": "moorage_sqlite",
    "moorage-fastapi": "moorage_fastapi",
}


@dataclass(frozen=True)
class Built:
    """The files of one distribution."""

    wheel: Path
    sdist: Path


def run(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end and return its output; a failure shows what it printed."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def uv() -> str:
    """Return the uv of this environment."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def clean_environment(**settings: str) -> dict[str, str]:
    """Return the variables of this process without any that moorage or Python would read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DB_", "PYTHON", "VIRTUAL_ENV")) and name != "DATABASE_URL"
    }
    return {**kept, **settings}


def build(project: Path, dist: Path, target: str = "") -> list[Path]:
    """Build a project with the build backend of this environment, and return what was made."""
    only = ["-t", target] if target else []
    run([sys.executable, "-m", "hatchling", "build", "-d", dist, *only], cwd=project)
    return sorted(dist.iterdir())


def new_environment(place: Path, *requirements: str | Path) -> Path:
    """Return the Python of a new environment that has the requirements."""
    run([uv(), "venv", "--quiet", "--python", sys.executable, place])
    python = place / "bin" / "python"
    run([uv(), "pip", "install", "--quiet", "--python", python, *requirements])
    return python
