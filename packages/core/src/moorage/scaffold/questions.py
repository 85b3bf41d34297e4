"""
What has to be decided before a project is set up, and what is recommended.

The questions are the same for a person at a terminal, for options of the command line, and for a
program that asks for them as JSON and answers with a file.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from keyword import iskeyword
from typing import Any, Literal, get_args

from moorage.errors import ScaffoldError
from moorage.registry import installed_connectors
from moorage.scaffold.backends import find_backend, known_backends
from moorage.scaffold.dependency_lists import Tool
from moorage.scaffold.discovery import Found
from moorage.settings import DatabaseSettings

__all__ = ["Answers", "Question", "make_answers", "questions"]

Kind = Literal["choice", "yes or no", "number", "name"]
_LAYOUTS = ("package", "src", "flat")
_TAKEN = frozenset({"alembic", "moorage", "test", "tests"})


@dataclass(frozen=True)
class Question:
    """
    One question.

    Attributes:
        name: Its key in a file of answers.
        text: The question, as a person is asked.
        kind: What an answer is.
        options: All answers to a choice.
        recommended: The answer that ``--yes`` takes.
        option: How the command line gives the answer.
        is_asked: Whether a person is asked, or only told what was found.
    """

    name: str
    text: str
    kind: Kind
    options: tuple[str, ...]
    recommended: str | bool | int
    option: str
    is_asked: bool = True


@dataclass(frozen=True)
class Answers:
    """The decisions; the attributes are the names of the questions."""

    backend: str
    fastapi: bool
    unit_of_work: bool
    example: bool
    auth: bool
    standalone: bool
    pool_size: int
    max_overflow: int
    layout: Literal["package", "src", "flat"]
    package: str
    tool: Tool

    def to_json(self) -> dict[str, Any]:
        """Return what a file of answers holds."""
        return asdict(self)


def questions(found: Found, given: Mapping[str, Any] | None = None) -> list[Question]:
    """
    Return the questions about a project, each with the answer that fits what is there.

    Args:
        found: The project.
        given: What is decided already, as by an earlier run; it is what is recommended then.
    """
    given = given or {}
    fields = DatabaseSettings.model_fields
    backends = tuple(known_backends())
    is_new = found.layout == "none"
    listed = found.dependencies
    tool = listed.tool if listed.path else "uv" if shutil.which("uv") else "pip"
    layout = "package" if is_new else found.layout
    has_none = layout == "flat" or (layout == "src" and not is_new)
    package = found.package or ("" if has_none else _package_name(found))
    asked = [
        Question("backend", "Which database?", "choice", backends, _installed(backends), "BACKEND"),
        _yes_no("fastapi", "With FastAPI?", found.uses_fastapi or is_new),
        _yes_no("unit_of_work", "Units of work, which commit by themselves?", True),
        _yes_no("example", "Example models, with queries and tests?", is_new),
        _yes_no("auth", "A table of users, with hashed passwords?", False),
        _yes_no("standalone", "Own the layer's source, without a dependency on moorage?", False),
        _number("pool_size", "Connections that stay open?", fields["pool_size"].default),
        _number("max_overflow", "More of them at peaks?", fields["max_overflow"].default),
        Question(
            "layout", "Where does the source go?", "choice", _LAYOUTS, layout, "--layout", is_new
        ),
        Question("package", "Name of the package?", "name", (), package, "--package", is_new),
        Question(
            "tool", "What manages dependencies?", "choice", get_args(Tool), tool, "--tool", is_new
        ),
    ]
    return [
        Question(**{**vars(one), "recommended": given.get(one.name, one.recommended)})
        for one in asked
    ]


def make_answers(asked: list[Question], given: Mapping[str, Any]) -> Answers:
    """
    Return the answers, with what is recommended where none was given.

    Raises:
        ScaffoldError: One of them cannot be; all that is wrong is told at once.
    """
    known = {one.name: one for one in asked}
    problems = []
    for name in given.keys() - known.keys():
        near = difflib.get_close_matches(name, known, 1)
        problems.append(f"there is no question {name!r}" + (f" ({near[0]}?)" if near else ""))
    values = {name: given.get(name, one.recommended) for name, one in known.items()}
    for name, one in known.items():
        problem = _problem(one, values[name])
        if problem:
            problems.append(f"{name}: {problem}")
    if not problems:
        backend = find_backend(values["backend"])
        values["backend"] = backend.name
        if values["standalone"] and not backend.source:
            problems.append(f"standalone: there is no source of a layer for {backend.name}")
        if values["layout"] == "flat":
            values["package"] = ""
        elif not values["package"] and (values["layout"] != "src" or known["package"].recommended):
            problems.append("package: a name is needed, unless the layout is flat")
    if problems:
        raise ScaffoldError(
            "; ".join(sorted(problems)),
            hint="moorage init --questions lists the questions and their answers",
        )
    return Answers(**values)


def _problem(one: Question, value: object) -> str:
    if one.name == "backend" and isinstance(value, str):
        try:
            find_backend(value)
        except ScaffoldError as error:
            return f"{error.args[0]} ({error.hint})"
        return ""
    if one.kind == "choice":
        return "" if value in one.options else f"{value!r} is none of {', '.join(one.options)}"
    if one.kind == "yes or no":
        return "" if isinstance(value, bool) else f"{value!r} is neither true nor false"
    if one.kind == "number":
        least = 1 if one.name == "pool_size" else 0
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return "" if is_number else f"{value!r} is no whole number from {least} on"
    if not isinstance(value, str) or not (value == "" or _is_package(value)):
        return f"{value!r} is no name of a package; use small letters, digits and _"
    return f"{value!r} is taken" if value.partition(".")[0] in _TAKEN else ""


def _is_package(name: str) -> bool:
    return all(part.isidentifier() and not iskeyword(part) for part in name.split("."))


def _yes_no(name: str, text: str, recommended: bool) -> Question:
    flag = name.replace("_", "-")
    return Question(name, text, "yes or no", (), recommended, f"--{flag}/--no-{flag}")


def _number(name: str, text: str, recommended: int) -> Question:
    return Question(name, text, "number", (), recommended, f"--{name.replace('_', '-')}")


def _package_name(found: Found) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", found.root.resolve().name.lower()).strip("_")
    has_source = (found.root / "src").is_dir()
    return name if has_source and re.fullmatch(r"[a-z][a-z0-9_]*", name) else "app"


def _installed(backends: tuple[str, ...]) -> str:
    """Return the backend whose connector is the only one that is installed, or the first one."""
    here = {connector.name for connector in installed_connectors()} & set(backends)
    return here.pop() if len(here) == 1 else backends[0]
