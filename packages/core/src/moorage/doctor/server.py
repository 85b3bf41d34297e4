"""The database itself: whether it answers, its clock, and whether its tables are the models'."""

from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import select

from moorage.connector import DBConnector
from moorage.database import Database
from moorage.doctor.finding import Report
from moorage.errors import DatabaseError, MoorageError
from moorage.models import server_time
from moorage.scaffold.key_shapes import hide_secrets

__all__ = ["check_server"]

_CLOCK_SECONDS = 5.0


async def check_server(root: Path, connector: DBConnector, report: Report) -> None:
    """Connect, ask the server what it knows, and compare models and tables."""
    async with Database(connector=connector) as database:
        try:
            await _ask(database, report)
        except DatabaseError as error:
            report.add("C402", f"{type(error).__name__}: {error.args[0]}", fix=error.hint)
            return
        if (root / "alembic.ini").is_file() and find_spec("alembic") is not None:
            await _compare(root, database, report)


async def _ask(database: Database, report: Report) -> None:
    async with database.engine.connect() as connection:
        before = dt.datetime.now(dt.UTC)
        theirs = await connection.scalar(select(server_time()))
        after = dt.datetime.now(dt.UTC)
        version = connection.dialect.server_version_info
    if version:
        report.facts["server"] = ".".join(map(str, version))
    if theirs is not None:
        # Its clock may tell whole seconds only.
        early = (before - theirs).total_seconds() - 1.0
        late = (theirs - after).total_seconds()
        if max(early, late) > _CLOCK_SECONDS:
            report.add("C403", f"the server's clock differs from ours by {max(early, late):.0f} s")


async def _compare(root: Path, database: Database, report: Report) -> None:
    from moorage import migrations

    try:
        found = await migrations.check(config=root / "alembic.ini", database=database)
    except MoorageError as error:
        report.add("M505", f"{type(error).__name__}: {error.args[0]}", fix=error.hint)
        return
    except Exception as error:  # noqa: BLE001 (env.py and the models are anybody's code)
        report.add("M505", hide_secrets(f"{type(error).__name__}: {error}"))
        return
    for revision in found.pending:
        report.add("M501", f"revision {revision} was not applied")
    if found.heads:
        report.add("M502", f"there are several heads: {', '.join(found.heads)}")
    for difference in found.differences:
        report.add("M503", difference)
    for model in found.unreached:
        report.add("M504", f"{model.name} (table {model.table})", model.path, model.line)
