"""Names of constraints and indexes that are the same on every backend."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    ForeignKeyConstraint,
    Index,
    Table,
    UniqueConstraint,
)

__all__ = ["NAMING_CONVENTION"]

# The shortest limit of the backends that are known; cut by us, names are cut alike everywhere.
_LONGEST_NAME = 63
_DIGEST_DIGITS = 8


def _name(kind: str, table: Table, *parts: str) -> str:
    name = "_".join((kind, table.name, *parts))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - _DIGEST_DIGITS - 1]}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


def _index_name(index: Index, table: Table) -> str:
    columns = [column.name for column in index.columns]
    if not all(isinstance(expression, Column) for expression in index.expressions):
        # lower(name) beside name: two indexes over the same columns.
        columns.append(_digest(", ".join(str(expression) for expression in index.expressions)))
    return _name("ix", table, *columns)


def _unique_name(constraint: UniqueConstraint, table: Table) -> str:
    return _name("uq", table, *(column.name for column in constraint.columns))


def _check_name(constraint: CheckConstraint, table: Table) -> str:
    given = constraint.name
    # What SQLAlchemy puts in place of a name that was not given is no str of its own.
    return _name("ck", table, given if type(given) is str else _digest(str(constraint.sqltext)))


def _foreign_key_name(constraint: ForeignKeyConstraint, table: Table) -> str:
    referred = constraint.elements[0].target_fullname.split(".")[-2]
    return _name("fk", table, *(key.parent.name for key in constraint.elements), referred)


def _primary_key_name(constraint: Constraint, table: Table) -> str:
    return _name("pk", table)


NAMING_CONVENTION: Final[dict[Any, Any]] = {
    "ix": "%(index)s",
    "uq": "%(unique)s",
    # A token with these letters is how SQLAlchemy asks for checks that have a name already.
    "ck": "%(check_constraint_name)s",
    "fk": "%(foreign_key)s",
    "pk": "%(primary_key)s",
    "index": _index_name,
    "unique": _unique_name,
    "check_constraint_name": _check_name,
    "foreign_key": _foreign_key_name,
    "primary_key": _primary_key_name,
}
"""
Names of constraints and indexes, for ``MetaData(naming_convention=...)``.

A name is kind, table and columns: ``uq_boats_name``, ``fk_crews_boat_id_boats``; a check has its
own name in the place of columns (``ck_boats_positive``), or a digest of its text. Names that are
longer than some backend takes end in a digest, the same one on every backend.
"""
