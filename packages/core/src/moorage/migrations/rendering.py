"""How autogenerate writes what is moorage's, and how its findings are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import DefaultClause

from moorage import models

__all__ = ["describe", "render_item"]

RenderItem = Callable[[str, Any, AutogenContext], str | Literal[False]]
_MODELS = "moorage.models"


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write types and defaults of :mod:`moorage.models` by their names, for every backend."""
    if kind == "server_default" and isinstance(item, DefaultClause):
        item = item.arg
    name = type(item).__name__
    if getattr(models, name, None) is not type(item) or kind not in {"type", "server_default"}:
        return False
    context.imports.add(f"import {_MODELS}")
    arguments = f"{item.precision}, {item.scale}" if name == "ExactDecimal" else ""
    return f"{_MODELS}.{name}({arguments})"


def describe(difference: Any) -> list[str]:
    """Return one sentence for each thing that a difference of Alembic's consists of."""
    if isinstance(difference, list):  # changes of one column come together
        return [sentence for part in difference for sentence in describe(part)]
    what = difference[0]
    if what.startswith("modify_"):
        _, schema, table, column, _, was, is_now = difference
        place = ".".join(filter(None, (schema, table, column)))
        aspect = what.removeprefix("modify_").replace("_", " ")
        before, after = _short(was), _short(is_now)
        return [f"{place}: {aspect} is {before} in the database, {after} in the models"]
    action, _, kind = what.partition("_")
    where = "in the models only" if action == "add" else "in the database only"
    return [f"{kind.replace('_', ' ')} {_place(difference[1:])}: {where}"]


def _place(parts: Any) -> str:
    item = parts[-1]
    table = getattr(item, "table", None)
    owner = table.name if table is not None else next(filter(None, parts[:-1]), "")
    return ".".join(str(name) for name in (owner, getattr(item, "name", item)) if name)


def _short(value: Any) -> str:
    return getattr(getattr(value, "arg", None), "text", None) or str(value)
