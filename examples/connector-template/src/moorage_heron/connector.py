"""Heron: how to connect, what the backend can do, and what its errors mean."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import URL

from moorage import Capabilities, ConnectorOptions, DatabaseError, DBConnector, Diagnosis
from moorage_heron.options import HeronOptions

__all__ = ["HeronConnector"]

# The driver's codes, and the classes of `moorage` that they stand for. Each that is named here has
# to be brought about, by the suite or by `provocations` in its test: add one at a time.
ERRORS: dict[str, type[DatabaseError]] = {}


class HeronConnector(DBConnector):
    """Heron."""

    name = "heron"
    contract = 1
    default_port: ClassVar[int | None] = 5433
    options_model: ClassVar[type[ConnectorOptions]] = HeronOptions
    # What is declared here is tested; what is not declared is not used.
    capabilities: ClassVar[Capabilities] = Capabilities(
        errors=frozenset(ERRORS.values()),
    )
    options: HeronOptions

    def get_url(self) -> URL:
        """Return the URL, made of the settings."""
        return self.build_url("postgresql+asyncpg")

    def get_engine_args(self) -> dict[str, Any]:
        """Return the pool of the base, and what the driver is to be told."""
        arguments = super().get_engine_args()
        if self.options.isolation_level is not None:
            arguments["isolation_level"] = self.options.isolation_level
        return arguments

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means by its code; `None` leaves it to moorage."""
        # Where the driver keeps its codes: in an attribute, or in the first argument.
        code = str(getattr(error, "sqlstate", None) or "")
        kind = ERRORS.get(code)
        return None if kind is None else self.diagnose(kind, str(error), code)
