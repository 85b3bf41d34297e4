"""
What a revision has done so far, on backends that cannot undo CREATE and ALTER.

There, a process that dies in the middle of a revision leaves half of it behind, and the next
attempt fails on the half that is there. The journal is a small table in the same database: each
statement is noted before and after it ran, on a connection of its own, and the notes of a revision
go when it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from alembic.runtime.migration import RevisionStep
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)

from moorage.errors import HalfAppliedMigrationError

__all__ = ["JOURNAL_TABLE", "Journal"]

JOURNAL_TABLE: Final = "moorage_migration_journal"
"""Name of the table; it is there on backends that need it, and autogenerate leaves it alone."""

_table = Table(
    JOURNAL_TABLE,
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("revision", String(64), nullable=False),
    Column("direction", String(10), nullable=False),
    Column("statement", Text, nullable=False),
    Column("state", String(10), nullable=False),
)
_BEGUN, _RAN = "begun", "ran"
_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_HARMLESS = frozenset({"select", "show", "set", "use", "explain", "describe", "do", "with"})
_ROWS = frozenset({"insert", "update", "delete", "replace"})


class Journal:
    """
    The notes on one database.

    Used inside SQLAlchemy's greenlet, as migrations are.

    Args:
        connection: Another one than the one that migrates.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._revision = ""
        self._direction = ""
        self._rows: list[str] = []
        self._note: int | None = None

    def is_empty(self) -> bool:
        """Return whether no revision is under way, or was left half done."""
        return not self._notes()

    def refuse_half_applied(self, heads: tuple[str, ...]) -> None:
        """
        Go on only if nothing was left half done; called under the lock, before anything is run.

        Args:
            heads: The revisions that the database says it is at.

        Raises:
            HalfAppliedMigrationError: A revision was interrupted.
        """
        notes = self._notes()
        if not notes:
            return
        revision, direction = notes[-1].revision, notes[-1].direction
        if (revision in heads) == (direction == "upgrade"):
            self.clear()  # it died after it was complete
            return
        raise _half_applied(
            revision,
            direction,
            ran=tuple(note.statement for note in notes if note.state == _RAN),
            unknown=tuple(note.statement for note in notes if note.state == _BEGUN),
        )

    def _notes(self) -> Sequence[Any]:
        there = inspect(self._connection).has_table(JOURNAL_TABLE)
        query = select(_table).order_by(_table.c.id)
        notes = self._connection.execute(query).all() if there else ()
        self._connection.rollback()
        return notes

    def clear(self) -> None:
        """Forget all notes: a revision is complete, or somebody has put things in order."""
        if inspect(self._connection).has_table(JOURNAL_TABLE):
            self._connection.execute(delete(_table))
        self._connection.commit()

    def watched(self, steps: Any) -> Iterator[Any]:
        """Yield the steps of a migration, noting in between which revision runs."""
        _table.create(self._connection, checkfirst=True)
        self._connection.commit()
        for step in steps:
            self.clear()
            self._rows = []
            if isinstance(step, RevisionStep):
                self._revision = step.revision.revision
                self._direction = "upgrade" if step.is_upgrade else "downgrade"
            yield step
        self._revision = ""
        self.clear()

    def attach(self, connection: Connection) -> None:
        """Note what is executed on the connection that migrates."""
        event.listen(connection, "before_cursor_execute", self._before)
        event.listen(connection, "after_cursor_execute", self._after)

    def failed(self) -> bool:
        """
        Forget the statement that failed; return whether others of its revision had run.

        Called after an exception, not after a crash: the backend has answered.
        """
        note, self._note = self._note, None
        revision, self._revision = self._revision, ""
        if not revision:
            return False
        if note is not None:
            self._connection.execute(delete(_table).where(_table.c.id == note))
        others = self._connection.execute(select(_table.c.id).limit(1)).first()
        self._connection.commit()
        return others is not None

    def _before(
        self, connection: object, cursor: object, statement: str, *_arguments: object
    ) -> None:
        match = _FIRST_WORD.match(statement)
        word = match[1].lower() if match else ""
        if not self._revision or word in _HARMLESS:
            return
        if word in _ROWS:
            self._rows.append(statement)  # undone with the transaction, unless DDL ends that
            return
        rows, self._rows = self._rows, []
        for row in rows:
            self._write(row, _RAN)
        self._note = self._write(statement, _BEGUN)
        self._connection.commit()

    def _after(self, *_arguments: object) -> None:
        if self._note is None:
            return
        note, self._note = self._note, None
        self._connection.execute(update(_table).where(_table.c.id == note).values(state=_RAN))
        self._connection.commit()

    def _write(self, statement: str, state: str) -> int:
        values = {
            "revision": self._revision,
            "direction": self._direction,
            "statement": statement.strip(),
            "state": state,
        }
        done = self._connection.execute(insert(_table).values(values))
        key: int = done.inserted_primary_key[0]  # type: ignore[index]  # there is one
        return key


def _half_applied(
    revision: str, direction: str, *, ran: tuple[str, ...], unknown: tuple[str, ...]
) -> HalfAppliedMigrationError:
    lines = [f"\n  ran: {statement}" for statement in ran]
    lines += [f"\n  may have run: {statement}" for statement in unknown]
    return HalfAppliedMigrationError(
        f"the {direction} of revision {revision} was interrupted, and this backend cannot undo what"
        f" it had done:{''.join(lines)}",
        hint="undo these by hand and stamp the revision that the schema is at then, or do the rest"
        " by hand and stamp the one that was to be reached: moorage db stamp REVISION",
        revision=revision,
        direction=direction,
        ran=ran,
        unknown=unknown,
    )
