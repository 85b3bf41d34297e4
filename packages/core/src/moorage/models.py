"""
A base for models that mean the same on every backend; imported by those who want it.

Nothing of moorage asks for it: a ``DeclarativeBase`` of your own, or SQLModel's classes, work with
engines, units of work and migrations alike. What :class:`Base` adds is what such bases learn late:
names of constraints that are the same everywhere, datetimes that mean one moment, decimals that
stay exact or are refused, and columns that are known after a flush without another query.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Constraint,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from moorage.engine import connector_of_dialect
from moorage.errors import DataError, SettingsError

__all__ = [
    "NAMING_CONVENTION",
    "TYPE_MAP",
    "Base",
    "Conventions",
    "Duration",
    "ExactDecimal",
    "IntegerKey",
    "JSONDocument",
    "Timestamps",
    "UTCDateTime",
    "UUIDKey",
    "UUIDValue",
    "WallTime",
    "server_time",
    "server_uuid7",
    "utc_now",
    "uuid7",
]

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


def _with_microseconds(dialect: Dialect, generic: type[TypeEngine[Any]], name: str) -> Any:
    """Return the type that keeps microseconds, where the dialect's own one must be asked to."""
    own = getattr(dialect, "ischema_names", {}).get(name, generic)
    try:
        detailed = own(fsp=6)
    except TypeError:  # it keeps what it gets
        detailed = DateTime(timezone=True) if generic is DateTime else generic()
    return dialect.type_descriptor(detailed)


class UTCDateTime(TypeDecorator[dt.datetime]):
    """
    A moment, to the microsecond: aware in, aware in UTC out, on every backend.

    A datetime without time zone is refused with a ``DataError``; nobody knows which moment it is.
    """

    impl: Any = DateTime(timezone=True)
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect that keeps microseconds, and zones where it has them."""
        found: TypeEngine[Any] = _with_microseconds(dialect, DateTime, "datetime")
        return found

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Return the value in UTC."""
        if value is None:
            return None
        if getattr(value, "tzinfo", None) is None:
            raise DataError(
                f"a datetime with a time zone was expected, not {_described(value)}",
                hint="use an aware datetime, such as datetime.now(timezone.utc)",
            )
        try:
            return value.astimezone(dt.UTC)
        except OverflowError:
            raise DataError(
                "a datetime is outside of the years 1 to 9999 in UTC",
                hint="use None for a moment that never comes",
            ) from None

    def process_result_value(
        self, value: dt.datetime | None, dialect: Dialect
    ) -> dt.datetime | None:
        """Return the value aware and in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=dt.UTC)
        return value.astimezone(dt.UTC)


class WallTime(TypeDecorator[dt.time]):
    """A time of day to the microsecond, without a date and therefore without a time zone."""

    impl: Any = Time
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect that keeps microseconds."""
        found: TypeEngine[Any] = _with_microseconds(dialect, Time, "time")
        return found

    def process_bind_param(self, value: dt.time | None, dialect: Dialect) -> dt.time | None:
        """Return the value; one with a zone is refused."""
        if value is not None and value.tzinfo is not None:
            raise DataError(
                "a time of day with a time zone was given, which means nothing without a date",
                hint="store a datetime, or time.replace(tzinfo=None)",
            )
        return value


class Duration(TypeDecorator[dt.timedelta]):
    """A length of time, stored as a whole number of microseconds."""

    impl: Any = BigInteger
    cache_ok: bool | None = True

    def process_bind_param(self, value: dt.timedelta | None, dialect: Dialect) -> int | None:
        """Return the microseconds."""
        if value is None:
            return None
        microseconds = value // dt.timedelta(microseconds=1)
        if not -(2**63) <= microseconds < 2**63:
            raise DataError(
                "a timedelta is longer than 292,000 years", hint="use None for one without end"
            )
        return microseconds

    def process_result_value(self, value: int | None, dialect: Dialect) -> dt.timedelta | None:
        """Return the length of time."""
        return None if value is None else dt.timedelta(microseconds=value)


class ExactDecimal(TypeDecorator[decimal.Decimal]):
    """
    A decimal that comes back as it was written, or is refused.

    Backends round what has too many digits behind the point, some of them without a word. One
    that has no decimals of its own (SQLite) computes with floats, which are exact up to 15 digits;
    a value with more is refused there.

    Args:
        precision: Digits in all.
        scale: Digits behind the point.
    """

    impl: Any = Numeric
    cache_ok: bool | None = True

    def __init__(self, precision: int = 18, scale: int = 6) -> None:
        super().__init__(precision, scale)
        self.precision: int = precision
        self.scale: int = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect; it hands out floats where it has no decimals."""
        own: Numeric[Any] = Numeric(self.precision, self.scale)
        own.asdecimal = dialect.supports_native_decimal
        return dialect.type_descriptor(own)

    def process_bind_param(self, value: decimal.Decimal | int | None, dialect: Dialect) -> Any:
        """Return the value; one that would be changed is refused."""
        if value is None:
            return None
        if isinstance(value, float) or not isinstance(value, (decimal.Decimal, int)):
            raise DataError(
                f"a Decimal was expected, not {_described(value)}",
                hint="write Decimal('0.1'); a float is not the number that it is printed as",
            )
        number = decimal.Decimal(value)
        if not number.is_finite():
            raise DataError(f"{number} is no number to store", hint="use None for a missing value")
        exponent = number.normalize().as_tuple().exponent
        assert isinstance(exponent, int)
        whole = max(number.adjusted() + 1, 0)
        if -exponent > self.scale or whole > self.precision - self.scale:
            raise DataError(
                f"a Decimal has more digits than the column keeps: {self.precision}, of which"
                f" {self.scale} behind the point",
                hint=f"round it first, or declare ExactDecimal({self.precision + 6}, …)",
            )
        if not dialect.supports_native_decimal and number and number.adjusted() - exponent >= 15:
            raise DataError(
                "a Decimal has more than 15 digits, and this backend keeps no more of them exactly",
                hint="store whole units in a BigInteger (cents), or use a backend with decimals",
            )
        return number

    def process_result_value(self, value: Any, dialect: Dialect) -> decimal.Decimal | None:
        """Return the value as a Decimal."""
        if isinstance(value, float):
            return decimal.Decimal(f"{value:.{self.scale}f}")
        return None if value is None else decimal.Decimal(value)


class UUIDValue(TypeDecorator[uuid.UUID]):
    """
    A UUID, in the backend's own type or as 32 characters.

    Which of them is decided by the dialect and never by the version of the server: SQLAlchemy 2.1
    expects a type of its own where 2.0 had created characters, and cannot write into them.
    """

    impl: Any = Uuid
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect."""
        native = bool(type(dialect).supports_native_uuid)
        return dialect.type_descriptor(Uuid(native_uuid=native))


class JSONDocument(TypeDecorator[Any]):
    """
    A dict or a list, stored as JSON; in the form that can be indexed where there are two.

    Decimals, UUIDs, dates and enums inside become strings. What one backend would refuse or
    change is refused on all: NaN, integers beyond 64 bits, keys that are no strings, and the
    character NUL. Changes inside of a value that was loaded are not noticed: assign a new one.
    """

    impl: Any = JSON(none_as_null=True)
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the binary form of JSON where the dialect has it, else the plain one."""
        indexable = getattr(dialect, "ischema_names", {}).get("jsonb")
        return dialect.type_descriptor((indexable or JSON)(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return the value made of what JSON has."""
        if value is None:
            return None
        if not isinstance(value, (Mapping, list, tuple)):
            raise DataError(
                f"a dict or a list was expected, not {_described(value)}",
                hint="put a single value into a column of its own type, or into a dict",
            )
        return _to_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value; a float that the binary form spells as an integer is one again."""
        binary = "jsonb" in getattr(dialect, "ischema_names", {})
        return _from_json(value) if binary else value


_JSON_ADVICE = "store it in a column of its own, or as a string"


_EXACT_FLOAT = 2.0**53


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value


def _to_json(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _to_json(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DataError("a JSON document has an integer beyond 64 bits", hint=_JSON_ADVICE)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"a JSON document has the number {value}", hint="use None instead")
        # Printed shortest, a large one is another integer where the backend reads it as one.
        return int(value) if _EXACT_FLOAT <= abs(value) < 2**63 else value
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise DataError(
                f"a JSON document has a key that is {_described(wrong[0])}", hint="use strings"
            )
        return {_checked_text(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return _to_json_string(value)


def _to_json_string(value: Any) -> str:
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, dt.datetime) and value.utcoffset() is None:
        raise DataError(
            "a JSON document has a datetime without a time zone",
            hint="use an aware datetime, such as datetime.now(timezone.utc)",
        )
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    raise DataError(f"a JSON document has {_described(value)}", hint=_JSON_ADVICE)


def _checked_text(text: str) -> str:
    if "\0" in text:
        raise DataError(
            "a JSON document has a string with the character NUL", hint="store it as bytes"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            "a JSON document has a string that is no valid Unicode", hint="store it as bytes"
        ) from None
    return str(text)


def _described(value: object) -> str:
    if isinstance(value, dt.datetime):
        return "one without"
    return f"a {type(value).__name__}"


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


class server_time(FunctionElement[dt.datetime]):  # noqa: N801 (reads as a function in a query)
    """The moment by the server's clock, to the precision that a column of the backend keeps."""

    type: TypeEngine[Any] = UTCDateTime()
    inherit_cache: bool | None = True


@compiles(server_time)
def _compile_server_time(element: server_time, compiler: Any, **kwargs: Any) -> str:
    fsp = getattr(_with_microseconds(compiler.dialect, DateTime, "datetime"), "fsp", None)
    return "CURRENT_TIMESTAMP" if fsp is None else f"CURRENT_TIMESTAMP({fsp})"


class server_uuid7(FunctionElement[uuid.UUID]):  # noqa: N801 (reads as a function in a query)
    """
    A default that the server generates, where it can; elsewhere the column has no default.

    It serves rows that are not written through SQLAlchemy.
    """

    type: TypeEngine[Any] = UUIDValue()
    inherit_cache: bool | None = True


@compiles(server_uuid7)
def _compile_server_uuid7(element: server_uuid7, compiler: Any, **kwargs: Any) -> str | None:
    dialect = compiler.dialect
    connector = connector_of_dialect(dialect)
    return None if connector is None else connector.get_uuid7_function(dialect) or None


def utc_now() -> dt.datetime:
    """Return the present moment, aware and in UTC."""
    return dt.datetime.now(dt.UTC)


_NOW = "_moorage_now"


def _statement_time(context: Any) -> dt.datetime:
    # One statement, one moment: a new row was updated when it was created.
    now: dt.datetime = vars(context).setdefault(_NOW, utc_now())
    return now


class IntegerKey:
    """Mixin: a primary key ``id`` of 64 bits, counted by the database."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, sort_order=-1)


class Timestamps:
    """
    Mixin: ``created_at`` and ``updated_at``, set by the application's clock.

    They are known after a flush without another query, on every backend; ``UPDATE`` statements of
    SQLAlchemy set ``updated_at`` as well. Rows that are inserted by plain SQL get the server's
    time.
    """

    created_at: Mapped[dt.datetime] = mapped_column(
        UTCDateTime, insert_default=_statement_time, server_default=server_time(), sort_order=900
    )
    updated_at: Mapped[dt.datetime] = mapped_column(
        UTCDateTime,
        insert_default=_statement_time,
        onupdate=_statement_time,
        server_default=server_time(),
        sort_order=901,
    )


_uuid7_lock = threading.Lock()
_uuid7_last = (0, 0)
_COUNTER_BITS = 42


def _uuid7() -> uuid.UUID:
    """
    Return a UUID of version 7: milliseconds, then a counter, then random bits (RFC 9562).

    The counter begins at random with each millisecond and counts within one, also when the clock
    is set back: what a process makes is in order. After a fork the random bits differ.
    """
    global _uuid7_last  # noqa: PLW0603 (the order of what a process makes)
    with _uuid7_lock:
        now = time.time_ns() // 1_000_000
        last, counter = _uuid7_last
        if now > last:
            # The highest bit stays free, so that there is room to count.
            counter = int.from_bytes(os.urandom(6)) & (1 << (_COUNTER_BITS - 1)) - 1
        else:
            now, counter = last, counter + 1
            if counter >> _COUNTER_BITS:
                now, counter = now + 1, 0
        _uuid7_last = (now, counter)
    number = now << 80 | 0x7 << 76 | (counter >> 30) << 64
    number |= 0b10 << 62 | (counter & (1 << 30) - 1) << 32 | int.from_bytes(os.urandom(4))
    return uuid.UUID(int=number)


if sys.version_info >= (3, 14):
    uuid7 = uuid.uuid7
else:
    uuid7 = _uuid7


class UUIDKey:
    """
    Mixin: a primary key ``id`` that is a UUIDv7: unique everywhere, and sorted by time.

    It is made by the application, so that it is known before the flush and that many rows go in
    one statement; rows that are inserted by plain SQL get one from the server, where it can.
    """

    id: Mapped[uuid.UUID] = mapped_column(
        UUIDValue,
        primary_key=True,
        insert_default=uuid7,
        server_default=server_uuid7(),
        sort_order=-1,
    )
