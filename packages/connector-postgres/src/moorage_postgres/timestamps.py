"""
Datetimes that mean one moment.

asyncpg takes a naive datetime for ``timestamptz`` without a word and reads it as the local time
of the client, so that the same program stores other moments on other machines. The reverse, an
aware one for ``timestamp``, fails with a message about subtraction.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql.asyncpg import AsyncpgDateTime

from moorage import DataError

__all__ = ["CheckedDateTime"]


class CheckedDateTime(AsyncpgDateTime):
    """The dialect's own datetime type, which refuses what would be misread."""

    def bind_processor(self, dialect: Dialect) -> Callable[[object], object]:
        """Return the check of a value on its way to the driver."""
        wants_zone = self.timezone

        def check(value: object) -> object:
            if isinstance(value, dt.datetime) and (value.tzinfo is not None) != wants_zone:
                raise _mismatch(wants_zone=wants_zone)
            return value

        return check


def _mismatch(*, wants_zone: bool) -> DataError:
    if wants_zone:
        return DataError(
            "a datetime without time zone was given where the column has one",
            hint="use an aware datetime, such as datetime.now(timezone.utc)",
        )
    return DataError(
        "a datetime with time zone was given where the column has none",
        hint="declare the column as DateTime(timezone=True)",
    )
