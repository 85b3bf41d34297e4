"""
What a statement goes through between SQLAlchemy and its driver.

One function around each method of the dialect that runs statements does it all, since each call
more is paid for by every session: it refuses what would outlive a read session, limits the wait for
the answer, and notes what was done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy import exc as sa_exc

from moorage.answers import WAIT, Answers, wait_in
from moorage.deadline import within
from moorage.errors import ReadOnlyError, blend
from moorage.notes import LIMITS, NOTES, READS_ONLY, RESTS, notes_in, statement_info, writes

__all__ = ["watch_statements"]

# What changes the connection, and would be there for whoever gets it next.
_OUTLIVES = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(set|reset|discard|use|begin|start|lock|declare|prepare|listen|"
    r"attach|detach|load)\b",
    re.IGNORECASE | re.DOTALL,
)
_SNAPSHOT_HINT = (
    "use database.unit_of_work(read_only=True), which is a transaction; what is set for it alone,"
    " as by SET LOCAL, ends with it"
)

_Run = Callable[..., None]


def watch_statements(engine: Engine, answers: Answers, *, keeps_time: bool) -> None:
    """
    Watch over all statements of an engine that has a dialect for itself.

    Args:
        engine: The engine.
        answers: Says how long an answer is waited for.
        keeps_time: Note when statements are sent and answered.
    """
    dialect: Any = engine.dialect
    for name in ("do_execute", "do_execute_no_params"):
        setattr(dialect, name, _watched(getattr(dialect, name), answers, keeps_time=keeps_time))
    many = _watched(dialect.do_executemany, answers, keeps_time=keeps_time, has_rows=True)
    dialect.do_executemany = many


def _watched(run: _Run, answers: Answers, *, keeps_time: bool, has_rows: bool = False) -> _Run:
    usual = answers.usual

    def watched(cursor: Any, statement: str, *arguments: Any) -> None:
        context = arguments[-1] if arguments else None
        info = statement_info(context)
        if info is None:
            within(usual, run, cursor, statement, *arguments)
            return
        if context.is_text and READS_ONLY in info:  # type: ignore[union-attr]
            # What SQLAlchemy has compiled changes no connection.
            _refuse_what_outlives(statement)
        limits = info.get(LIMITS)
        seconds = usual
        if limits is not None or has_rows:
            seconds = answers.seconds_for_rows(limits, len(arguments[0]) if has_rows else 0)
        asked_at = monotonic()
        if seconds:
            wait = info.get(WAIT) or wait_in(info)
            wait.call(seconds, run, cursor, statement, *arguments)
        else:
            run(cursor, statement, *arguments)
        notes = info.get(NOTES) or notes_in(info)
        if keeps_time:
            notes.asked_at, notes.answered_at = asked_at, monotonic()
        if context.isinsert or context.isupdate or context.isdelete:  # type: ignore[union-attr]
            notes.writes += 1
        elif context.is_text or context.compiled is None:  # type: ignore[union-attr]
            if writes(context, statement):
                notes.writes += 1
            else:
                notes.has_run_by_hand = True
        if getattr(cursor, "server_side", False):
            info[RESTS] = False
            connection: Connection = context.root_connection  # type: ignore[union-attr]
            context.cursor = _StreamCursor(cursor, connection, answers)  # type: ignore[union-attr]

    return watched


def _refuse_what_outlives(statement: str) -> None:
    if found := _OUTLIVES.match(statement):
        ours = ReadOnlyError(
            f"a statement that begins with {found[1].upper()} would outlive the read session on"
            " its connection, and meet whoever gets that next",
            hint=_SNAPSHOT_HINT,
        )
        raise blend(ours, sa_exc.InvalidRequestError(str(ours)))


class _StreamCursor:
    """The cursor of a result that is read piece by piece, each of which has to come in time."""

    def __init__(self, cursor: Any, connection: Connection, answers: Answers) -> None:
        self._cursor = cursor
        self._connection = connection
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchmany, size)

    def fetchall(self) -> Any:
        return self._answers.wait_for_rows(self._connection, self._cursor.fetchall)

    def close(self) -> None:
        """Close the cursor, which on some drivers reads the rest of the result."""
        if self._connection.closed or self._connection.invalidated:
            self._cursor.close()
            return
        try:
            self._answers.wait_for_rows(self._connection, self._cursor.close)
        except TimeoutError as error:
            self._connection.invalidate(error)
