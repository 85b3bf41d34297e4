"""Types whose values come back from every backend as they were written, or are refused."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Numeric, Time, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

from moorage.errors import DataError

__all__ = [
    "Duration",
    "ExactDecimal",
    "UTCDateTime",
    "UUIDValue",
    "WallTime",
    "with_microseconds",
]


def with_microseconds(dialect: Dialect, generic: type[TypeEngine[Any]], name: str) -> Any:
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

    @property
    def python_type(self) -> type[dt.datetime]:
        """Return what its values are."""
        return dt.datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect that keeps microseconds, and zones where it has them."""
        found: TypeEngine[Any] = with_microseconds(dialect, DateTime, "datetime")
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

    @property
    def python_type(self) -> type[dt.time]:
        """Return what its values are."""
        return dt.time

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect that keeps microseconds."""
        found: TypeEngine[Any] = with_microseconds(dialect, Time, "time")
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

    @property
    def python_type(self) -> type[dt.timedelta]:
        """Return what its values are."""
        return dt.timedelta

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

    @property
    def python_type(self) -> type[decimal.Decimal]:
        """Return what its values are."""
        return decimal.Decimal

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

    @property
    def python_type(self) -> type[uuid.UUID]:
        """Return what its values are."""
        return uuid.UUID

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the dialect."""
        native = bool(type(dialect).supports_native_uuid)
        return dialect.type_descriptor(Uuid(native_uuid=native))


def _described(value: object) -> str:
    if isinstance(value, dt.datetime):
        return "one without"
    return f"a {type(value).__name__}"
