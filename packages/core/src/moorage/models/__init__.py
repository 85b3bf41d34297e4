"""
A base for models that mean the same on every backend; imported by those who want it.

Nothing of moorage asks for it: a ``DeclarativeBase`` of your own, or SQLModel's classes, work with
engines, units of work and migrations alike. What :class:`Base` adds is what such bases learn late:
names of constraints that are the same everywhere, datetimes that mean one moment, decimals that
stay exact or are refused, and columns that are known after a flush without another query.
"""

from __future__ import annotations

from moorage.models.declarative import TYPE_MAP, Base, Conventions
from moorage.models.documents import JSONDocument
from moorage.models.keys import IntegerKey, UUIDKey, server_uuid7, uuid7
from moorage.models.naming import NAMING_CONVENTION
from moorage.models.timestamps import Timestamps, server_time, utc_now
from moorage.models.values import Duration, ExactDecimal, UTCDateTime, UUIDValue, WallTime

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
