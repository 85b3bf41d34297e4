"""Documents: dicts and lists, stored as JSON that every backend reads alike."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from moorage.errors import DataError

__all__ = ["JSONDocument"]

_JSON_ADVICE = "store it in a column of its own, or as a string"
_EXACT_FLOAT = 2.0**53


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
                f"a dict or a list was expected, not a {type(value).__name__}",
                hint="put a single value into a column of its own type, or into a dict",
            )
        return _to_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value; a float that the binary form spells as an integer is one again."""
        binary = "jsonb" in getattr(dialect, "ischema_names", {})
        return _from_json(value) if binary else value


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
                f"a JSON document has a key that is a {type(wrong[0]).__name__}", hint="use strings"
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
    raise DataError(f"a JSON document has a {type(value).__name__}", hint=_JSON_ADVICE)


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
