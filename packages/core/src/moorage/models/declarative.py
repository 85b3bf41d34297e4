"""The base of models, and what Python's types are stored as."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Double, Enum, MetaData, String
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase

from moorage.errors import SettingsError
from moorage.models.documents import JSONDocument
from moorage.models.naming import NAMING_CONVENTION
from moorage.models.values import Duration, ExactDecimal, UTCDateTime, UUIDValue, WallTime

__all__ = ["TYPE_MAP", "Base", "Conventions"]


def _enum_values(members: type[enum.Enum]) -> Sequence[str]:
    values = [member.value for member in members]
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise SettingsError(
            f"{members.__name__} cannot be stored by value: {wrong[0]!r} is no string",
            hint="derive it from StrEnum, or declare the column as mapped_column(Integer)",
        )
    return values


TYPE_MAP: Final[dict[Any, Any]] = {
    str: String(255),
    float: Double(),
    decimal.Decimal: ExactDecimal(),
    dt.datetime: UTCDateTime(),
    dt.time: WallTime(),
    dt.timedelta: Duration(),
    uuid.UUID: UUIDValue(),
    dict: JSONDocument(),
    dict[str, Any]: JSONDocument(),
    list: JSONDocument(),
    list[Any]: JSONDocument(),
    list[str]: JSONDocument(),
    list[int]: JSONDocument(),
    # By value, because names of members change in refactorings; as text without a CHECK or a type
    # of its own, because those would have to be migrated for each new member.
    enum.Enum: Enum(enum.Enum, native_enum=False, length=64, values_callable=_enum_values),
}
"""What Python's types are stored as, for ``type_annotation_map``; the rest is SQLAlchemy's."""


class Conventions(AsyncAttrs):
    """
    What :class:`Base` adds to SQLAlchemy's base, for another one beside it.

    ``class Base(Conventions, DeclarativeBase)`` has a catalogue of its own, as models of a second
    database need one. A ``metadata`` or ``type_annotation_map`` that it has already is left alone.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if DeclarativeBase in cls.__bases__:
            # Not inherited from here: SQLAlchemy 2.0 looks for them in the class itself.
            for name, value in (
                ("metadata", MetaData(naming_convention=NAMING_CONVENTION)),
                ("type_annotation_map", dict(TYPE_MAP)),
            ):
                if name not in vars(cls):
                    setattr(cls, name, value)
        super().__init_subclass__(**kwargs)
        table: Any = getattr(cls, "__table__", None)
        # A check that is written with its column has no name on some backends, and is overlooked
        # by Alembic; said of the table it means the same.
        for column in () if table is None else table.columns:
            for constraint in tuple(column.constraints):
                column.constraints.discard(constraint)
                table.append_constraint(constraint)


class Base(Conventions, DeclarativeBase):
    """
    A declarative base with :data:`NAMING_CONVENTION` and :data:`TYPE_MAP`.

    Derive models from it, or a base of your own (with ``__abstract__ = True``); all of them share
    one ``MetaData``. ``await boat.awaitable_attrs.crew`` loads a relationship that was not loaded
    with its object.
    """
