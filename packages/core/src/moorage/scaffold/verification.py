"""What was written, looked at again: files, versions, imports, and the connection."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from moorage.scaffold.changes import digest, read_text
from moorage.scaffold.key_shapes import hide_secrets
from moorage.scaffold.project import ProjectPlan
from moorage.scaffold.requirements import distribution

__all__ = ["Checked", "verify"]

_SECONDS = 60.0
_CONNECT = """
import asyncio
from {layer} import Database

async def connect():
    async with Database() as database:
        await asyncio.wait_for(database.ping(), 10)
        print(database.connector.name)

asyncio.run(connect())
"""


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at; ``not yet`` is what the user has to do something for."""

    what: str
    result: Literal["yes", "no", "not yet"]
    detail: str = ""


def verify(root: Path, plan: ProjectPlan) -> list[Checked]:
    """Return what became of a plan that was carried out."""
    checked = [_files(root, plan), *_versions(plan)]
    if any(one.result != "yes" for one in checked):
        return checked
    for module in plan.modules:
        code, output = _run(root, plan.source, f"import {module}")
        checked.append(Checked(f"{module} imports", "no" if code else "yes", _last(output, code)))
    if plan.variables and not (root / ".env").exists():
        detail = "after the variables are filled in"
        return [*checked, Checked("the database answers", "not yet", detail)]
    code, output = _run(root, plan.source, _CONNECT.format(layer=plan.layer))
    detail = output.strip() if not code else _last(output, code)
    return [*checked, Checked("the database answers", "not yet" if code else "yes", detail)]


def _files(root: Path, plan: ProjectPlan) -> Checked:
    wrong = []
    for change in plan.changes:
        text = read_text(root / change.path)
        if text is None or digest(text) != digest(change.after):
            wrong.append(change.path)
        elif change.path.endswith(".py"):
            compile(text, change.path, "exec")
    return Checked(f"{len(plan.changes)} files written", "no" if wrong else "yes", ", ".join(wrong))


def _versions(plan: ProjectPlan) -> list[Checked]:
    checked = []
    for requirement in plan.requirements:
        name = distribution(requirement)
        try:
            checked.append(Checked(f"{name} is installed", "yes", metadata.version(name)))
        except metadata.PackageNotFoundError:
            checked.append(Checked(f"{name} is installed", "not yet", "not beside this command"))
    return checked


def _run(root: Path, source: str, code: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root / source), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_SECONDS:g} s"
    return done.returncode, done.stderr if done.returncode else done.stdout


def _last(output: str, code: int) -> str:
    if not code:
        return ""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    at = next((i for i in range(len(lines) - 1, -1, -1) if not lines[i].startswith(" ")), 0)
    return hide_secrets(" ".join(line.strip() for line in lines[at:]))[:500]
