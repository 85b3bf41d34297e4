"""
Statements that read one row by its key, built once per class.

``session.get`` builds its SELECT anew each time, and SQLAlchemy makes a key of it to find what it
was compiled to; together a fifth of what a read by key costs the processor. A statement that is
kept knows its key.
"""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Mapper

__all__ = ["KEY", "KEY_TYPES", "Plan", "plan_by_key"]

KEY = "moorage_key"
"""Name of the parameter of the statements."""

KEY_TYPES: frozenset[type] = frozenset({int, str, uuid.UUID})
"""Types of keys that stand for themselves: neither several columns nor their names."""


class Plan(NamedTuple):
    """
    How a class is read by its key.

    Attributes:
        mapper: That of the class.
        statement: Reads one row.
        is_one_row: Whether one object is one row, since nothing is joined to it.
    """

    mapper: Mapper[Any]
    statement: Select[Any]
    is_one_row: bool


# A plan refers to its class, so that weak references would keep both for ever.
_MOST_PLANS = 4096
_plans: dict[type, tuple[Mapper[Any], Plan | None]] = {}


def plan_by_key(entity: Any) -> Plan | None:
    """Return how a mapped class is read by its key; ``None`` if that has to be seen each time."""
    if not isinstance(entity, type):
        return None
    mapper = entity.__dict__.get("__mapper__")  # its own, not that of a class which it extends
    found = _plans.get(entity)
    if found is None or found[0] is not mapper:  # it may have been mapped anew
        if not isinstance(mapper, Mapper):
            return None
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        found = _plans[entity] = (mapper, _plan_of(mapper))
    return found[1]


def _plan_of(mapper: Mapper[Any]) -> Plan | None:
    if len(mapper.primary_key) != 1 or mapper.always_refresh:
        return None
    (column,) = mapper.primary_key
    statement = select(mapper).where(column == bindparam(KEY, type_=column.type))
    # What a subclass joins is not asked for: one may be mapped later.
    joins = mapper.polymorphic_on is not None or any(
        relation.lazy in {"joined", False} for relation in mapper.relationships
    )
    return Plan(mapper, statement, not joins)
