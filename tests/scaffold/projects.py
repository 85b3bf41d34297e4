"""Projects made for one test."""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moorage.scaffold.changes import Manifest, apply_changes
from moorage.scaffold.discovery import discover
from moorage.scaffold.project import ProjectPlan, plan_project
from moorage.scaffold.questions import make_answers, questions

FLAGS: dict[str, Sequence[Any]] = {
    "fastapi": (True, False),
    "unit_of_work": (True, False),
    "example": (True, False),
    "auth": (False, True),
    "standalone": (False, True),
}
BACKENDS: dict[str, Sequence[Any]] = {"backend": ("sqlite", "postgres", "mysql", "supabase")}
LAYOUTS: dict[str, Sequence[Any]] = {"layout": ("package", "src", "flat")}
TOOLS: dict[str, Sequence[Any]] = {"tool": ("uv", "pip", "poetry", "hatch", "pdm")}


def product(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return all combinations."""
    rows = itertools.product(*options.values())
    return [dict(zip(options, values, strict=True)) for values in rows]


def pairwise(
    options: Mapping[str, Sequence[Any]], first: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """
    Return few combinations in which each two values of two options meet; always the same.

    They begin with the combinations that are given.
    """
    everything = [(row, _pairs(row)) for row in product(options)]
    open_pairs = {pair for _, pairs in everything for pair in pairs}
    chosen = list(first)
    for row in chosen:
        open_pairs -= _pairs(row)
    while open_pairs:
        best, pairs = max(everything, key=lambda one: len(open_pairs & one[1]))
        open_pairs -= pairs
        chosen.append(best)
    return chosen


def _pairs(row: Mapping[str, Any]) -> set[Any]:
    return set(itertools.combinations(sorted(row.items()), 2))


def name_of(row: Mapping[str, Any]) -> str:
    """Return a readable name of a combination."""
    return "-".join(
        name if value is True else str(value) for name, value in row.items() if value is not False
    )


def make_plan(folder: Path, force: Sequence[str] = (), **given: Any) -> ProjectPlan:
    """Return what `moorage init` would do in a folder."""
    manifest = Manifest.read(folder)
    found = discover(folder, frozenset(manifest.files))
    asked = questions(found, manifest.answers)
    return plan_project(found, make_answers(asked, given), manifest, force)


def write(folder: Path, **given: Any) -> ProjectPlan:
    """Set up a project in a folder, and return what was done."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(folder, **given)
    apply_changes(folder, plan.changes)
    return plan


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def environment(database: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the variables of this process, with no other database than the one given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DB_") and name not in {"DATABASE_URL", "CI"}
    }
    settings = {f"DB_{name.upper()}": str(value) for name, value in (database or {}).items()}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **settings}


def run(
    folder: Path,
    *arguments: str,
    database: Mapping[str, Any] | None = None,
    python: str = sys.executable,
    **more: str,
) -> str:
    """Run Python in a project to its end, and return what it printed; it must succeed."""
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**environment(database), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


MOORAGE = ("-c", "from moorage.cli import main; main()")
