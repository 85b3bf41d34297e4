"""Options of the connector, read from ``DB_HERON_<OPTION>``."""

from __future__ import annotations

from pydantic import Field

from moorage import ConnectorOptions


class HeronOptions(ConnectorOptions):
    """What can be chosen about Heron beyond the core settings."""

    isolation_level: str | None = Field(
        None, description="Isolation of every transaction; unset: the backend's default."
    )
