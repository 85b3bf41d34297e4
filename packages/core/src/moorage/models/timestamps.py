"""When a row was created and updated, and what the time is."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import DateTime
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from moorage.models.values import UTCDateTime, with_microseconds

__all__ = ["Timestamps", "server_time", "utc_now"]


class server_time(FunctionElement[dt.datetime]):  # noqa: N801 (reads as a function in a query)
    """The moment by the server's clock, to the precision that a column of the backend keeps."""

    type: TypeEngine[Any] = UTCDateTime()
    inherit_cache: bool | None = True


@compiles(server_time)
def _compile_server_time(element: server_time, compiler: Any, **kwargs: Any) -> str:
    fsp = getattr(with_microseconds(compiler.dialect, DateTime, "datetime"), "fsp", None)
    return "CURRENT_TIMESTAMP" if fsp is None else f"CURRENT_TIMESTAMP({fsp})"


def utc_now() -> dt.datetime:
    """Return the present moment, aware and in UTC."""
    return dt.datetime.now(dt.UTC)


_NOW = "_moorage_now"


def _statement_time(context: Any) -> dt.datetime:
    # One statement, one moment: a new row was updated when it was created.
    now: dt.datetime = vars(context).setdefault(_NOW, utc_now())
    return now


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
