"""What a test says about the statements of the code that it runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import ORMExecuteState, Session

from moorage.database import Database
from moorage.engine import connector_of
from moorage.pool import work_name

__all__ = ["QueryLog", "assert_queries", "no_lazy_loads", "no_leaks"]

# Ends and beginnings, some of which are statements on some backends and messages on others, and
# what a connection is told about itself.
_NOT_QUERIES = re.compile(
    r"\s*(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|PRAGMA)\b", re.IGNORECASE
)


@dataclass
class QueryLog:
    """
    The statements that were sent inside a block of :func:`assert_queries`.

    Attributes:
        statements: All of them, in their order.
        by_work: The same by what their task was doing (:data:`moorage.work_name`): method and
            route of a request, with ``moorage_fastapi``.
    """

    statements: list[str] = field(default_factory=list)
    by_work: dict[str | None, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.statements)

    def __str__(self) -> str:
        parts = []
        for work, statements in self.by_work.items():
            lines = "".join(f"\n    {statement}" for statement in statements)
            parts.append(f"\n  {len(statements)} by {work or 'the test'}:{lines}")
        return "".join(parts)


@contextmanager
def assert_queries(
    exactly: int | None = None, *, at_most: int | None = None, of: Database | None = None
) -> Iterator[QueryLog]:
    """
    Fail if the block sends another number of statements, or more of them.

    What opens or ends a transaction, and savepoints, do not count. An error lists the statements,
    by the requests that sent them. Yields the log, which grows.

    Args:
        exactly: The number that is expected.
        at_most: The largest number that is allowed.
        of: The database whose statements count; if left out, those of all do.

    Raises:
        AssertionError: It was another number.
    """
    log = QueryLog()

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if _NOT_QUERIES.match(statement):
            return
        if of is None or connector_of(connection.engine) is of.connector:
            log.statements.append(" ".join(statement.split()))
            log.by_work.setdefault(work_name.get(), []).append(log.statements[-1])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield log
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    if exactly is not None and len(log) != exactly:
        raise AssertionError(f"{len(log)} statements were sent, exactly {exactly} expected:{log}")
    if at_most is not None and len(log) > at_most:
        raise AssertionError(f"{len(log)} statements were sent, at most {at_most} expected:{log}")


@contextmanager
def no_lazy_loads() -> Iterator[None]:
    """Fail where the block loads a relationship or a column that was not loaded with its object."""

    def refuse(state: ORMExecuteState) -> None:
        source = state.lazy_loaded_from
        if source is not None:
            path = state.loader_strategy_path
            what = source.mapper.class_.__name__ if path is None else path
            raise AssertionError(f"a relationship is loaded lazily: {what}")
        if state.is_column_load:
            raise AssertionError(f"columns are loaded again: {state.statement}")

    event.listen(Session, "do_orm_execute", refuse)
    try:
        yield
    finally:
        event.remove(Session, "do_orm_execute", refuse)


@contextmanager
def no_leaks(database: Database) -> Iterator[None]:
    """Fail where the block leaves a connection checked out, or a task of its own running."""
    before, tasks = database.pool_statistics().in_use, _tasks()
    yield
    more = database.pool_statistics().in_use - before
    if more > 0:
        raise AssertionError(f"{more} connection(s) were not given back")
    if left := {task for task in _tasks() - tasks if not task.done()}:
        names = ", ".join(sorted(task.get_name() for task in left))
        raise AssertionError(f"tasks are still running: {names}")


def _tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks()
