"""What was written, looked at again: files, versions, imports, and the connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
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
# One program, since most of the time goes into importing the libraries.
_PROGRAM = """
import asyncio, importlib, json, sys

def tell(*line):
    print(json.dumps(line), flush=True)

def step(what, act):
    try:
        tell(what, "yes", act() or "")
    except Exception as error:
        tell(what, "no", f"{type(error).__name__}: {error}")

def connect():
    from {layer} import Database

    async def ping():
        async with Database() as database:
            await asyncio.wait_for(database.ping(), 10)
            return database.connector.name

    return asyncio.run(ping())

for module in sys.argv[2:]:
    step(module, lambda: importlib.import_module(module) and None)
if sys.argv[1]:
    step(sys.argv[1], connect)
"""
_ANSWERS = "the database answers"


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
    is_set = not plan.variables or (root / ".env").is_file()
    told, problem = _run(root, plan, _ANSWERS if is_set else "")
    for module in plan.modules:
        result, detail = told.get(module, ("no", problem))
        checked.append(Checked(f"{module} imports", "no" if result == "no" else "yes", detail))
    detail = "after the variables are filled in"
    if is_set:
        result, detail = told.get(_ANSWERS, ("no", problem))
        if result == "yes":
            return [*checked, Checked(_ANSWERS, "yes", detail)]
    return [*checked, Checked(_ANSWERS, "not yet", detail)]


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


def _run(root: Path, plan: ProjectPlan, connect: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Return what imports and answers, and what ended the program before all was told."""
    code = _PROGRAM.replace("{layer}", plan.layer)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, connect, *plan.modules],
            cwd=root,
            env={
                **os.environ,
                "PYTHONPATH": str(root / plan.source),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")  # bytes, whatever was asked for
        return dict(_told(output)), f"no answer within {_SECONDS:g} s"
    return dict(_told(done.stdout)), _last(done.stderr)


def _told(output: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for line in output.splitlines():
        with suppress(
            ValueError, TypeError
        ):  # a module may print what it likes when it is imported
            what, result, detail = json.loads(line)
            yield what, (result, hide_secrets(" ".join(str(detail).split()))[:500])


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return hide_secrets(lines[-1])[:500] if lines else "it ended without a word"
