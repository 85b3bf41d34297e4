"""
Statements that read one row by its key, built once per class.

``session.get`` builds its SELECT anew each time, and SQLAlchemy makes a key of it to find what it
was compiled to; together a fifth of what a read by key costs the processor. A statement that is
kept knows its key.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Mapper

__all__ = ["KEY", "KEY_TYPES", "statement_by_key"]

KEY = "moorage_key"
"""Name of the parameter of the statements."""

KEY_TYPES: frozenset[type] = frozenset({int, str, uuid.UUID})
"""Types of keys that stand for themselves: neither several columns nor their names."""

_Plan = tuple[Mapper[Any], Select[Any] | None]

# A plan refers to its class, so that weak references would keep both for ever.
_MOST_PLANS = 4096
_plans: dict[type, _Plan] = {}


def statement_by_key(entity: Any) -> tuple[Mapper[Any], Select[Any]] | None:
    """Return a mapped class's mapper and its statement; ``None`` if it needs one of its own."""
    if not isinstance(entity, type):
        return None
    mapper = entity.__dict__.get("__mapper__")  # its own, not that of a class which it extends
    plan = _plans.get(entity)
    if plan is None or plan[0] is not mapper:  # it may have been mapped anew
        if not isinstance(mapper, Mapper):
            return None
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = _plans[entity] = (mapper, _statement_of(mapper))
    return None if plan[1] is None else (plan[0], plan[1])


def _statement_of(mapper: Mapper[Any]) -> Select[Any] | None:
    if len(mapper.primary_key) != 1 or mapper.always_refresh:
        return None
    (column,) = mapper.primary_key
    return select(mapper).where(column == bindparam(KEY, type_=column.type))
