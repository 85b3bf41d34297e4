"""The budget of connections: how many all processes may open, and how many the server lets in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from moorage.connector import DBConnector
from moorage.doctor.finding import Report
from moorage.errors import SettingsError
from moorage.server_facts import ServerFacts

__all__ = ["Deployment", "check_budget"]

_WORKERS = "WEB_CONCURRENCY"
# What servers allow whose configuration nobody has touched.
_USUAL_LIMIT = 100


@dataclass(frozen=True)
class Deployment:
    """
    How often the application runs against one server.

    Attributes:
        processes: Workers of all hosts together.
        loops: Event loops in each that use the database: one, unless threads run their own.
        origin: Where the number of processes was said; empty for nowhere.
    """

    processes: int = 1
    loops: int = 1
    origin: str = ""

    @classmethod
    def read(cls, processes: int | None, loops: int) -> Self:
        """
        Return what was asked for, with ``WEB_CONCURRENCY`` in place of what was not.

        Raises:
            SettingsError: A number is not positive.
        """
        if loops < 1 or (processes is not None and processes < 1):
            raise SettingsError("processes and loops are counted from one")
        if processes is not None:
            return cls(processes, loops, "as asked")
        text = os.environ.get(_WORKERS, "")
        if text.isdecimal() and int(text) > 0:
            return cls(int(text), loops, _WORKERS)
        return cls(1, loops)

    def __str__(self) -> str:
        origin = f" ({self.origin})" if self.origin else ""
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}{origin}"
        return f"{processes} x {self.loops} loop{'s' if self.loops > 1 else ''}"


def check_budget(
    connector: DBConnector, deployment: Deployment, facts: ServerFacts | None, report: Report
) -> None:
    """Compare what may be opened with what the server lets in, or with what servers usually do."""
    if not connector.capabilities.networked:
        return
    settings = connector.settings
    each = settings.pool_size + settings.max_overflow
    most = deployment.processes * deployment.loops * each
    told = f"{deployment} x {each} = {most}"
    reads = connector.capabilities.read_only_connections and connector.reads_without_transaction
    more = ", and as many for read sessions" if reads else ""
    report.facts["connections at most"] = f"{told}{more}"
    if facts is not None and facts.connection_limit is not None:
        limit = facts.connection_limit
        report.facts["connections allowed"] = f"{limit} ({facts.limited_by})"
        if most > limit:
            report.add("C409", f"{told} connections, and the server lets in {limit}")
    elif most > _USUAL_LIMIT:
        report.add("S307", f"{told} connections")
