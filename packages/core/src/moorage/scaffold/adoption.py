"""
How code that is there already comes to use what was written: said, line by line, and never done.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage.scaffold.discovery import Found
from moorage.scaffold.key_shapes import hide_secrets
from moorage.scaffold.landmarks import Application, Handler, Place, read_source, statement_at
from moorage.scaffold.own_alembic import OwnAlembic

__all__ = ["Note", "adoption_notes", "to_markdown"]

_LIFESPAN = "from moorage_fastapi import add_problem_handlers, lifespan as database_lifespan"
_PROBLEMS = "from moorage_fastapi import add_problem_handlers"
_OLDEST_PYTHON = 11


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
    notes = list(_allow_python(found)) if found.python else []
    served = found.applications if fastapi else ()
    first = next((one for one in served if not one.is_mounted), None)
    for application in served:
        is_first = first and (application.path, application.name) == (first.path, first.name)
        notes.append(_serve(found.root, application, router if is_first else ""))
        notes += [_end_handler(found.root, application, one) for one in application.handlers]
    notes += [_replace(found.root, place, db, unit_of_work) for place in found.database_code]
    if found.alembic is not None:
        notes += _migrate(found.root, found.alembic, db)
    return notes


def to_markdown(notes: list[Note]) -> str:
    """Return notes as the text of a file."""
    blocks = [
        f"## {note.path}, line {note.line}\n\n{note.why[0].upper()}{note.why[1:]}.\n\n```diff\n"
        + "".join(f"-{line and f' {line}'}\n" for line in note.remove)
        + "".join(f"+{line and f' {line}'}\n" for line in note.add)
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
    source = read_source(root / application.path)
    statement = statement_at(source, application.line)
    before = _lines_of(source, statement)
    indent = before[0][: len(before[0]) - len(before[0].lstrip())]
    call = next(
        node
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
        and node.lineno == application.line
        and ast.unparse(node.func) == application.called
    )
    written = ast.get_source_segment(source, call) or ""
    name = application.name if application.name != "FastAPI" else "app"
    own: list[str] = []
    if application.is_mounted:
        imports, made = [_PROBLEMS], written
        why = "its errors get answers; its database is that of the application around it"
    else:
        imports, made = [_LIFESPAN], _with_lifespan(source, call, bool(application.handlers))
        why = "the database starts and ends with the application, and its errors get answers"
        if application.handlers:
            imports.insert(0, "from contextlib import asynccontextmanager")
            own = _lifespan_of(application)
            why += "; beside a lifespan, functions of on_event are not called"
        if {keyword.arg for keyword in call.keywords} & {"on_startup", "on_shutdown"}:
            why += "; beside a lifespan, on_startup and on_shutdown are not called: await what they"
            why += " name in a lifespan of yours, and give it as inner="
    after = "\n".join(before).replace(written, made, 1)
    lines = [f"from {router} import router"] if router else []
    routes = [f"{name}.include_router(router)"] if router else []
    rest = [*routes, f"add_problem_handlers({name})"]
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        after = f"{indent}{name} = {made}"
        rest.append("\n".join(before).replace(written, name, 1).strip())
    return Note(
        application.path,
        statement.lineno,
        why,
        _hidden(before),
        (
            *imports,
            *lines,
            *(line and f"{indent}{line}" for line in own),
            *_hidden(after.splitlines()),
            *(f"{indent}{line}" for line in rest),
        ),
    )


def _with_lifespan(source: str, call: ast.Call, has_handlers: bool) -> str:
    """Return the call with our lifespan, around its own one."""
    before = ast.get_source_segment(source, call) or ""
    inner = next((k.value for k in call.keywords if k.arg == "lifespan"), None)
    if inner is not None:
        own = ast.get_source_segment(source, inner) or ""
        start = before.rfind(own, before.find("lifespan"))
        return f"{before[:start]}database_lifespan(inner={own}){before[start + len(own) :]}"
    lifespan = f"lifespan=database_lifespan({'inner=own_lifespan' if has_handlers else ''})"
    if "\n" not in before:
        comma = ", " if call.args or call.keywords else ""
        return f"{before[:-1].rstrip().removesuffix(',')}{comma}{lifespan})"
    # Not at its end, where a comment may stand.
    start = before.index("(", len(ast.get_source_segment(source, call.func) or "")) + 1
    first = min((*call.args, *(k.value for k in call.keywords)), key=lambda one: one.lineno)
    line = source.splitlines()[first.lineno - 1]
    indent = line[: len(line) - len(line.lstrip())] if first.lineno > call.lineno else ""
    return f"{before[:start]}\n{indent}{lifespan},{before[start:]}"


def _lifespan_of(application: Application) -> list[str]:
    """Return a lifespan that calls what on_event called."""

    def calls(event: str) -> list[str]:
        called = [one for one in application.handlers if one.event == event]
        return [f"    {'await ' if one.is_async else ''}{one.function}()" for one in called]

    head = ["@asynccontextmanager", f"async def own_lifespan(app: {application.called}):"]
    return ["", "", *head, *calls("startup"), "    yield", *calls("shutdown"), "", ""]


def _end_handler(root: Path, application: Application, handler: Handler) -> Note:
    lines = read_source(root / application.path).splitlines()
    why = f"own_lifespan calls {handler.function}()"
    return Note(application.path, handler.line, why, (lines[handler.line - 1],))


def _replace(root: Path, place: Place, db: str, unit_of_work: bool) -> Note:
    source = read_source(root / place.path)
    statement = statement_at(source, place.line)
    before = _hidden(_lines_of(source, statement))
    indent = before[0][: len(before[0]) - len(before[0].lstrip())]
    add: tuple[str, ...]
    if place.kind.startswith("engine"):
        why = "one engine serves the process"
        add = ("from moorage import get_engine", f"{indent}{place.name} = get_engine()")
    elif place.kind.startswith("sessions"):
        why = f"sessions come from {db}"
        add = (f"from {db} import read_session, {'unit_of_work' if unit_of_work else 'session'}",)
    elif isinstance(statement, ast.ClassDef):
        why = "constraints get names, and types mean the same on every backend"
        before = before[:1]
        head = before[0].replace("(DeclarativeBase", "(Conventions, DeclarativeBase")
        add = ("from moorage.models import Conventions", head)
    else:
        why, add = "one base for all models", (f"from {db} import Base",)
    if "blocking" in place.kind:
        why += "; it is asynchronous: `async with`, and `await` before each call of a session"
    return Note(place.path, statement.lineno, why, before, add)


def _migrate(root: Path, alembic: OwnAlembic, db: str) -> Iterator[Note]:
    path = f"{alembic.folder}/env.py".removeprefix("/")
    env = root / path
    if not env.is_file():
        return
    source = read_source(env)
    if "moorage.migrations" in source or f"{db}.migrations" in source:
        return
    statement = next(
        (
            node
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "target_metadata"
        ),
        None,
    )
    value = ast.unparse(statement.value) if statement is not None else "None"
    ours = "DatabaseBase.metadata"
    known = value.removeprefix("[").removesuffix("]").strip().removesuffix(",")
    why = (
        "this reads DB_* as the application does, and lets one process migrate at a time;"
        " everything that connects can go"
    )
    if len(alembic.heads) > 1:
        heads = ", ".join(alembic.heads)
        why += f"; there are {len(alembic.heads)} heads ({heads}), which are to be joined first:"
        why += ' alembic merge heads -m "one head"'
    yield Note(
        path,
        statement.lineno if statement is not None else 1,
        why,
        _hidden(_lines_of(source, statement)) if statement is not None else (),
        (
            "from moorage.migrations import run",
            f"from {db}.models import Base as DatabaseBase",
            f"run([{ours}, {known}])" if known != "None" else f"run({ours})",
        ),
    )


def _allow_python(found: Found) -> Iterator[Note]:
    """Say where a project is for Pythons that moorage, or its own layer, is not for."""
    oldest = re.search(r"(?:>=|\^|~=?)\s*3\.(\d+)", found.python)
    if oldest is None or int(oldest[1]) >= _OLDEST_PYTHON:
        return
    path = "pyproject.toml"
    lines = (found.root / path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*(?:requires-python|python)\s*=", line) and found.python in line:
            raised = line.replace(oldest[0], re.sub(r"\d+$", str(_OLDEST_PYTHON), oldest[0]))
            why = "what was added needs this Python; with an older one, the tool finds no solution"
            yield Note(path, number, why, (line,), (raised,))


def _lines_of(source: str, statement: ast.stmt) -> list[str]:
    return source.splitlines()[statement.lineno - 1 : statement.end_lineno]


def _hidden(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(hide_secrets("\n".join(lines)).splitlines())
