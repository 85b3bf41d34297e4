"""
What is dangerous in migrations, found by squawk; ``pip install 'moorage-postgres[lint]'``.

Squawk knows PostgreSQL's locks. What it says about style is advice here; what it asks for that
moorage does anyway is left out. Each rule has its safe way, in Alembic's words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from moorage import MigrationError, MigrationFinding, MissingExtraError

__all__ = ["lint_scripts"]

_SECONDS = 120.0
# Migrations of moorage have a lock timeout, no statement timeout, and a transaction each; its
# models have strings with a limit, which PostgreSQL widens without a rewrite, and counted keys.
_LEFT_OUT: Final = frozenset(
    {
        "ban-uncommitted-transaction",
        "prefer-identity",
        "prefer-robust-stmts",
        "prefer-text-field",
        "require-lock-timeout",
        "require-statement-timeout",
        "require-timeout-settings",
        "transaction-nesting",
    }
)
_ADVICE: Final = frozenset(
    {
        "ban-char-field",
        "identifier-too-long",
        "prefer-bigint-over-int",
        "prefer-bigint-over-smallint",
        "prefer-timestamp-tz",
        "require-enum-value-ordering",
        "unused-ignore",
    }
)
_CONCURRENTLY = (
    "outside of the transaction: with op.get_context().autocommit_block():"
    " op.{0}(…, postgresql_concurrently=True)"
)
_VALIDATED = (
    "postgresql_not_valid=True, and in a later transaction (autocommit_block())"
    " op.execute('ALTER TABLE … VALIDATE CONSTRAINT …')"
)
_BY_INDEX = (
    "create a unique index concurrently, then"
    " op.execute('ALTER TABLE … ADD CONSTRAINT … {0} USING INDEX …')"
)
_TWO_RELEASES = (
    "in two releases: one that no longer uses it, then this one, with the reason in its file:"
    " lint_ignore = {{'{0}': 'why it is safe now'}}"
)
_SAFE_WAYS: Final[Mapping[str, str]] = {
    "adding-field-with-default": "add it without the default, fill it in batches, then set the"
    " default; a constant default is no problem",
    "adding-foreign-key-constraint": _VALIDATED,
    "adding-not-nullable-field": "a CHECK (… IS NOT NULL) with " + _VALIDATED + ", then"
    " alter_column(nullable=False), which believes the constraint",
    "adding-required-field": "add it with nullable=True or a server_default; fill it, then forbid"
    " NULL in a later revision",
    "adding-serial-primary-key-field": _BY_INDEX.format("PRIMARY KEY"),
    "ban-concurrent-index-creation-in-transaction": _CONCURRENTLY.format("create_index"),
    "ban-drop-column": _TWO_RELEASES.format("ban-drop-column"),
    "ban-drop-not-null": "make sure that each release that runs expects NULL, and say so:"
    " lint_ignore = {'ban-drop-not-null': 'why it is safe now'}",
    "ban-drop-table": _TWO_RELEASES.format("ban-drop-table"),
    "ban-truncate-cascade": "name the tables that are to be emptied, without CASCADE",
    "changing-column-type": "add a column of the new type, write both, fill it in batches, read"
    " the new one, then drop the old one",
    "constraint-missing-not-valid": _VALIDATED,
    "disallowed-unique-constraint": _BY_INDEX.format("UNIQUE"),
    "renaming-column": "add a column with the new name, write both, fill it in batches, then drop"
    " the old one; or leave the name and rename the attribute of the model",
    "renaming-table": "leave the name and rename the model; or rename it together with a view"
    " under the old name, and say so: lint_ignore = {'renaming-table': 'there is a view'}",
    "require-concurrent-index-creation": _CONCURRENTLY.format("create_index"),
    "require-concurrent-index-deletion": _CONCURRENTLY.format("drop_index"),
}


def lint_scripts(scripts: Mapping[str, str]) -> list[MigrationFinding]:
    """
    Return what squawk says of scripts of SQL, by their names.

    A ``.squawk.toml`` in the working directory counts.

    Raises:
        MissingExtraError: Squawk is not installed.
        MigrationError: It does not run, or a script is no SQL.
    """
    program = _program()
    with tempfile.TemporaryDirectory(prefix="moorage-lint-") as folder:
        places = {}
        for number, (name, text) in enumerate(scripts.items()):
            path = Path(folder) / f"{number}.sql"
            path.write_text(text, encoding="utf-8")
            places[str(path)] = name
        if not places:
            return []
        answers = _run(program, list(places))
    return [
        _finding(places[answer["file"]], scripts[places[answer["file"]]], answer)
        for answer in answers
        if answer["rule_name"] not in _LEFT_OUT
    ]


def _program() -> str:
    own = sysconfig.get_path("scripts")
    found = shutil.which("squawk", path=os.pathsep.join((own, os.environ.get("PATH", ""))))
    if found is None:
        raise MissingExtraError(
            "looking for dangerous migrations needs squawk, which is not installed",
            hint="pip install 'moorage-postgres[lint]'",
        )
    return found


def _run(program: str, paths: Sequence[str]) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(
            [program, "--reporter", "json", *paths],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        answers: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise MigrationError(
            f"squawk does not run: {error}", hint=f"see what is wrong with it: {program} --version"
        ) from error
    if done.returncode and not answers:
        raise MigrationError(
            f"squawk has failed: {done.stderr.strip()[-500:]}",
            hint=f"see what is wrong with it: {program} --version",
        )
    return answers


def _finding(name: str, script: str, answer: dict[str, Any]) -> MigrationFinding:
    rule = str(answer["rule_name"])
    lines = script.splitlines()[answer["line"] : (answer.get("line_end") or answer["line"]) + 1]
    advice = answer.get("help") or "look the rule up: https://squawkhq.com/docs/rules"
    return MigrationFinding(
        script=name,
        rule=rule,
        statement=" ".join(" ".join(lines).split()),
        problem=str(answer["message"]),
        safe_way=_SAFE_WAYS.get(rule, str(advice)),
        is_dangerous=rule not in _ADVICE,
    )
