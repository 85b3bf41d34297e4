"""The database itself: whether it answers, what it is, and whether its tables are the models'."""

from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import select

from moorage.abilities import ExaminesServer, ManagesStorage
from moorage.address import is_loopback
from moorage.connector import DBConnector
from moorage.database import Database
from moorage.doctor.finding import CODES, Code, Report
from moorage.errors import DatabaseError, MoorageError
from moorage.models import server_time
from moorage.scaffold.changes import Manifest
from moorage.scaffold.key_shapes import hide_secrets
from moorage.server_facts import ServerFacts, TLSState
from moorage.tls import effective_ssl_mode

__all__ = ["check_server"]

_CLOCK_SECONDS = 5.0
_UTC = frozenset({"utc", "etc/utc", "uct", "gmt", "etc/gmt", "zulu", "+00:00", "+00", "z"})
_POOLER = "C407"
_TIME_ZONE = "C410"


async def check_server(root: Path, connector: DBConnector, report: Report) -> ServerFacts | None:
    """Connect, ask the server what it knows, and compare models and tables."""
    has_migrations = (root / "alembic.ini").is_file() and find_spec("alembic") is not None
    if await _is_to_be_made(connector):
        report.facts["server"] = "not there yet; the first connection makes it"
        if has_migrations:
            report.add("M501", "the database is not there yet, and no revision was applied")
        return None
    facts = None
    async with Database(connector=connector) as database:
        try:
            if isinstance(connector, ExaminesServer):
                facts = await connector.examine_server(database.engine)
                _judge(facts, connector, report)
            if report.found(_POOLER):
                return facts  # whatever is asked in the wrong way may get a wrong answer
            await _ask(database, report)
        except DatabaseError as error:
            report.add("C402", f"{type(error).__name__}: {error.args[0]}", fix=error.hint)
            return facts
        if Manifest.read(root).answers.get("standalone"):
            report.facts["migrations"] = "the project's own; it is asked by alembic check"
        elif has_migrations:
            await _compare(root, database, report)
    return facts


async def _is_to_be_made(connector: DBConnector) -> bool:
    """Return whether there is no database, and connecting to it would make one."""
    if connector.capabilities.networked or not isinstance(connector, ManagesStorage):
        return False
    return not await connector.database_exists()


def _judge(facts: ServerFacts, connector: DBConnector, report: Report) -> None:
    report.facts["server"] = facts.product
    if facts.release and facts.release < facts.oldest_release:
        oldest = ".".join(map(str, facts.oldest_release))
        report.add("C406", f"the server is {facts.product}; the oldest that will do is {oldest}")
    if facts.tls is not None:
        report.facts["encryption"] = str(facts.tls)
        _judge_tls(facts.tls, connector, report)
    if facts.time_zone:
        report.facts["time zone"] = facts.time_zone
        if facts.time_zone.lower() not in _UTC:
            report.add(_TIME_ZONE, f"sessions are in the time zone {facts.time_zone}")
    report.facts.update(facts.details)
    for fault in facts.faults:
        kind = None if fault.code in CODES else Code(fault.severity, fault.why, fault.fix)
        report.add(fault.code, fault.what, fix=fault.fix, kind=kind)


def _judge_tls(tls: TLSState, connector: DBConnector, report: Report) -> None:
    settings = connector.settings
    mode = effective_ssl_mode(settings)
    host = next((place.host for place in settings.hosts if not is_loopback(place.host)), "")
    if not tls.protocol:
        if host or mode not in {"disable", "prefer"}:
            where = host or settings.hosts[0].host
            report.add("C404", f"the connection to {where} is not encrypted")
        return
    is_proven = tls.proof == "host name" or (tls.proof == "authority" and mode == "verify-ca")
    if mode in {"verify-ca", "verify-full"} and not is_proven:
        report.add(
            "C405", f"{settings.variable('ssl_mode')} means {mode}, and the connection is {tls}"
        )


async def _ask(database: Database, report: Report) -> None:
    async with database.engine.connect() as connection:
        before = dt.datetime.now(dt.UTC)
        theirs = await connection.scalar(select(server_time()))
        after = dt.datetime.now(dt.UTC)
        version = connection.dialect.server_version_info
    if version:
        report.facts.setdefault("server", ".".join(map(str, version)))
    # Where sessions are in another time zone, some servers tell the time of that zone.
    if theirs is not None and not report.found(_TIME_ZONE):
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
