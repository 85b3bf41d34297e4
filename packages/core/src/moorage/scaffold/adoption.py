"""
How code that is there already comes to use what was written: said, line by line, and never done.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moorage.scaffold.discovery import Application, Found, Place
from moorage.scaffold.key_shapes import hide_secrets

__all__ = ["Note", "adoption_notes", "to_markdown"]

_LIFESPAN = "from moorage_fastapi import add_problem_handlers, lifespan as database_lifespan"


@dataclass(frozen=True)
class Note:
    """
    One place to change by hand.

    Attributes:
        path: The file.
        line: The line.
        why: What the change is for.
        remove: What stands there.
        add: What shall stand there.
    """

    path: str
    line: int
    why: str
    remove: tuple[str, ...] = ()
    add: tuple[str, ...] = ()

    def __str__(self) -> str:
        removed = [f"    - {line}" for line in self.remove]
        added = [f"    + {line}" for line in self.add]
        return "\n".join([f"{self.path}:{self.line}: {self.why}", *removed, *added])


def adoption_notes(
    found: Found, *, db: str, router: str, unit_of_work: bool, fastapi: bool
) -> list[Note]:
    """
    Return what to change by hand in a project that has code of its own.

    Args:
        found: The project.
        db: Import name of the database package.
        router: Import name of the module with the example's routes; empty for none.
        unit_of_work: Whether units of work are used.
        fastapi: Whether FastAPI is.
    """
    served = found.applications if fastapi else ()
    notes = [_serve(found.root, application, router) for application in served]
    notes += [_replace(found.root, place, db, unit_of_work) for place in found.database_code]
    if found.alembic:
        notes += _migrate(found.root, db)
    return notes


def to_markdown(notes: list[Note]) -> str:
    """Return notes as the text of a file."""
    blocks = [
        f"## {note.path}, line {note.line}\n\n{note.why[0].upper()}{note.why[1:]}.\n\n```diff\n"
        + "".join(f"- {line}\n" for line in note.remove)
        + "".join(f"+ {line}\n" for line in note.add)
        + "```\n"
        for note in notes
    ]
    head = (
        "# What is left to change by hand\n\n"
        "`moorage init` changes no code of yours. These are the lines, as they were when it ran;"
        " remove this\nfile when they are done.\n"
    )
    return "\n".join([head, *blocks])


def _serve(root: Path, application: Application, router: str) -> Note:
    source = (root / application.path).read_text(encoding="utf-8", errors="replace")
    call = next(
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and node.lineno == application.line
        and ast.unparse(node.func).rpartition(".")[2] == "FastAPI"
    )
    before = ast.get_source_segment(source, call) or ""
    inner = next((k.value for k in call.keywords if k.arg == "lifespan"), None)
    if inner is not None:
        own = ast.get_source_segment(source, inner) or ""
        start = before.rfind(own, before.find("lifespan"))
        after = f"{before[:start]}database_lifespan(inner={own}){before[start + len(own) :]}"
    else:
        head = before.rstrip()[:-1].rstrip().removesuffix(",")
        comma = ", " if call.args or call.keywords else ""
        after = f"{head}{comma}lifespan=database_lifespan())"
    name = application.name if application.name != "FastAPI" else "app"
    routes = [f"{name}.include_router(router)"] if router else []
    imports = [_LIFESPAN, *([f"from {router} import router"] if router else [])]
    return Note(
        application.path,
        application.line,
        "the database starts and ends with the application, and its errors get answers",
        tuple(hide_secrets(before).splitlines()),
        (*imports, *hide_secrets(after).splitlines(), *routes, f"add_problem_handlers({name})"),
    )


def _replace(root: Path, place: Place, db: str, unit_of_work: bool) -> Note:
    lines = (root / place.path).read_text(encoding="utf-8", errors="replace").splitlines()
    before = hide_secrets(lines[place.line - 1].strip())
    add: tuple[str, ...]
    if place.kind.startswith("engine"):
        why = "one engine serves the process"
        add = ("from moorage import get_engine", f"{place.name} = get_engine()")
    elif place.kind.startswith("sessions"):
        why = f"sessions come from {db}"
        add = (f"from {db} import read_session, {'unit_of_work' if unit_of_work else 'session'}",)
    elif before.startswith("class "):
        why = "constraints get names, and types mean the same on every backend"
        head = before.replace("(DeclarativeBase", "(Conventions, DeclarativeBase")
        add = ("from moorage.models import Conventions", head)
    else:
        why, add = "one base for all models", (f"from {db} import Base",)
    if "blocking" in place.kind:
        why += "; it is asynchronous: `async with`, and `await` before each call of a session"
    return Note(place.path, place.line, why, (before,), add)


def _migrate(root: Path, db: str) -> Iterator[Note]:
    for env in sorted(root.glob("*/env.py")):
        text = env.read_text(encoding="utf-8", errors="replace")
        if "moorage.migrations" in text or f"{db}.migrations" in text:
            continue
        lines = text.splitlines()
        line = next((n for n, t in enumerate(lines, 1) if t.startswith("target_metadata")), 1)
        yield Note(
            env.relative_to(root).as_posix(),
            line,
            "this reads DB_* as the application does, and lets one process migrate at a time;"
            " everything that connects can go",
            (lines[line - 1],) if lines else (),
            (
                "from moorage.migrations import run",
                f"from {db}.models import Base as DatabaseBase",
                f"run([DatabaseBase.metadata, {_metadata(lines[line - 1] if lines else '')}])",
            ),
        )


def _metadata(line: str) -> str:
    value = line.partition("=")[2].strip()
    return value if value and value != "None" else "Base.metadata"
