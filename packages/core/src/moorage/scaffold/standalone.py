"""
The same project without moorage: a layer of its own, as plain source, with the same names.

Templates are shared: they import from moorage, and what is written imports from where the layer
has the name.
"""

from __future__ import annotations

import re

from moorage.scaffold.backends import Backend
from moorage.scaffold.questions import Answers

__all__ = ["layer_templates", "place_of", "rewritten", "rewritten_line"]

_CONFIGURATION = frozenset({"DatabaseSettings", "DatabaseType", "SSLMode"})
_UNIT_OF_WORK = frozenset({"CommitOutcome", "UnitOfWork"})
_MODULES = {"moorage.models": "columns", "moorage.migrations": "migrations"}
_IMPORT = re.compile(r"^from (moorage\w*(?:\.\w+)*) import (\w+(?:, \w+(?: as \w+)?)*)$")


def layer_templates(backend: Backend, answers: Answers) -> list[str]:
    """Return the templates of the layer."""
    parts = ["layer", f"connector-{backend.source}"]
    parts += ["networked"] if backend.networked else []
    parts += ["unit-of-work"] if answers.unit_of_work else []
    parts += ["fastapi"] if answers.fastapi else []
    return [f"standalone/{part}" for part in parts]


def place_of(module: str, name: str, db: str) -> str:
    """Return the module of the layer that has a name of moorage's."""
    if module in _MODULES:
        return f"{db}.{_MODULES[module]}"
    if module == "moorage_fastapi":
        is_dependency = name.startswith(("DB", "get_"))
        return f"{db}.session.dependencies" if is_dependency else f"{db}.web"
    if module != "moorage":
        return module
    if name in _CONFIGURATION:
        return f"{db}.configuration"
    return f"{db}.session.unit_of_work" if name in _UNIT_OF_WORK else f"{db}.core"


def rewritten(text: str, db: str) -> str:
    """Return text in which names of modules of moorage's are those of the layer."""
    for module, own in _MODULES.items():
        text = text.replace(f"{module}.", f"{db}.{own}.")
    return text


def rewritten_line(line: str, db: str) -> str:
    """Return a line of source that imports from the layer what it imported from moorage."""
    found = _IMPORT.match(line)
    if found is None:
        return line
    places: dict[str, list[str]] = {}
    for name in found[2].split(", "):
        places.setdefault(place_of(found[1], name.partition(" ")[0], db), []).append(name)
    return "; ".join(f"from {place} import {', '.join(n)}" for place, n in places.items())
