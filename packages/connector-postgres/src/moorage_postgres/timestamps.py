"""
Datetimes that mean one moment.

A naive datetime for ``timestamptz`` is taken without a word: asyncpg reads it as the local time of
the client, psycopg leaves it to the session, so that the same program stores other moments
elsewhere. The reverse, an aware one for ``timestamp``, fails with a message about subtraction on
asyncpg, and loses its zone on psycopg.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from sqlalchemy import Dialect
from sqlalchemy.types import DateTime

from moorage import DataError

__all__ = ["check_datetimes"]


def check_datetimes(dialect: Dialect) -> None:
    """Let the datetime type of a dialect, whose driver does not matter, refuse what is misread."""
    usual = dialect.colspecs[DateTime]
    checked = type("CheckedDateTime", (_Checks, usual), {"__module__": __name__})
    dialect.colspecs = {**dialect.colspecs, DateTime: checked}


class _Checks(DateTime):
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
