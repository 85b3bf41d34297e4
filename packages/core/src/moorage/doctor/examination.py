"""The whole examination, in the order in which one thing rests on another."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path

from moorage.doctor.budget import Deployment, check_budget
from moorage.doctor.configuration import check_settings
from moorage.doctor.finding import Report
from moorage.doctor.project import check_files, check_versions
from moorage.doctor.server import check_server
from moorage.doctor.source import check_source

__all__ = ["examine"]


async def examine(
    root: str | Path = ".",
    *,
    prefix: str = "DB_",
    connect: bool = True,
    processes: int | None = None,
    loops: int = 1,
) -> Report:
    """
    Return what is wrong with a project, its settings and its database.

    Args:
        root: The project; it should be the working directory, whose ``.env`` is read.
        prefix: Prefix of the variables of its database.
        connect: Whether the database is asked, too.
        processes: How many of them share the server, on all hosts; ``WEB_CONCURRENCY``, else one,
            if left out.
        loops: Event loops in each of them that use the database.

    Raises:
        SettingsError: A number of processes or loops is not positive.
    """
    deployment = Deployment.read(processes, loops)
    report = Report()
    report.facts["python"] = platform.python_version()
    folder = Path(root)
    check_files(folder, report)
    check_versions(report)
    check_source(folder, report)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are findings
        connector = check_settings(prefix, report)
    if connector is not None:
        facts = await check_server(folder, connector, report) if connect else None
        check_budget(connector, deployment, facts, report)
    report.facts["folder"] = os.fspath(folder.resolve())
    return report
