"""Revisions that would stop, or break, a service that runs while they are applied."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory

from moorage.abilities import LintsMigrations, MigrationFinding
from moorage.database import Database
from moorage.errors import MigrationError, MoorageError
from moorage.migrations.calling import DEFAULT_CONFIG, declared, in_thread
from moorage.migrations.questions import current
from moorage.migrations.request import Request
from moorage.registry import get_connector

__all__ = ["lint"]

_IGNORES = "lint_ignore"


async def lint(
    target: str | None = None,
    *,
    pending: bool = False,
    config: str | Path | Config = DEFAULT_CONFIG,
    database: Database | None = None,
) -> list[MigrationFinding]:
    """
    Look for statements in revisions that lock, rewrite or break what a service uses.

    The SQL of each upgrade is looked at, without a connection; ``script`` of what is found is the
    file of its revision. A revision that knows better has
    ``lint_ignore = {"rule": "reason"}`` in its file.

    Args:
        target: A revision, or those behind ``from:`` up to ``to``; all of them if left out.
        pending: Only those that the database lacks, which is asked.
        config: Alembic's settings, or their file.
        database: Whose backend is meant, instead of the one that ``env.py`` names.

    Raises:
        MigrationError: The backend has nothing that knows, or a revision cannot be written as SQL.
        MissingExtraError: What looks at them is not installed.
    """
    if database is not None:
        connector = database.connector
    else:
        connector = get_connector((await declared(config)).settings)
    if not isinstance(connector, LintsMigrations):
        raise MigrationError(
            f"connector {connector.name!r} knows nothing of dangerous migrations",
            hint="lint with the settings of the database that is migrated in production",
        )
    applied = (await current(config=config, database=database)).current if pending else ()

    def look(alembic: Config) -> list[MigrationFinding]:
        script = ScriptDirectory.from_config(alembic)
        chosen = _chosen(script, target, applied)
        scripts = {str(one.path): _sql(alembic, script, one) for one in chosen}
        allowed = {str(one.path): _ignored(one) for one in chosen}
        found = connector.lint_migrations(scripts)
        return [one for one in found if one.rule not in allowed[one.script]]

    return await in_thread(config, Request(database), look)


def _chosen(script: ScriptDirectory, target: str | None, applied: tuple[str, ...]) -> list[Script]:
    """Return the revisions to look at, the oldest first."""
    lower, colon, upper = (target or "base:heads").partition(":")
    if not colon:
        return [script.get_revision(lower)]
    there = {one.revision for one in script.iterate_revisions(applied, "base")} if applied else ()
    found = script.iterate_revisions(upper or "heads", lower or "base")
    return [one for one in reversed(list(found)) if one.revision not in there]


def _sql(alembic: Config, script: ScriptDirectory, one: Script) -> str:
    """Return the statements of one upgrade."""
    buffer = io.StringIO()
    before = alembic.output_buffer
    alembic.output_buffer = buffer
    down = one.down_revision

    def steps(heads: Any, _context: Any) -> Any:
        return script._upgrade_revs(one.revision, heads)  # as Alembic's own command does

    try:
        with EnvironmentContext(
            alembic,
            script,
            fn=steps,
            as_sql=True,
            starting_rev=down,
            destination_rev=one.revision,
        ):
            script.run_env()
    except MoorageError:
        raise
    except Exception as error:
        raise MigrationError(
            f"revision {one.revision} cannot be written as SQL without a database: {error}",
            hint="let what asks the database be skipped: if not context.is_offline_mode()",
        ) from error
    finally:
        alembic.output_buffer = before
    # What Alembic makes for itself, before the first revision, is none of the project's.
    head, marker, rest = buffer.getvalue().partition("-- Running ")
    return head.partition("CREATE TABLE")[0] + marker + rest


def _ignored(one: Script) -> dict[str, str]:
    """Return the rules that a revision need not keep, with the reasons."""
    rules = getattr(one.module, _IGNORES, {})
    if not isinstance(rules, dict) or not all(
        isinstance(reason, str) and reason.strip() for reason in rules.values()
    ):
        raise MigrationError(
            f"{_IGNORES} of revision {one.revision} is no dict of rules with reasons",
            hint=f'write {_IGNORES} = {{"ban-drop-table": "nobody has used it since March"}}',
        )
    return rules
