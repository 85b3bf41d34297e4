"""What a test says about the statements of the code that it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import ORMExecuteState, Session

from moorage.database import Database

__all__ = ["assert_queries", "no_lazy_loads", "no_leaks"]

_NOT_QUERIES = ("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT", "SET ", "PRAGMA")


@contextmanager
def assert_queries(expected: int) -> Iterator[list[str]]:
    """
    Fail unless the block executes exactly so many statements, on whatever engine.

    Savepoints and what opens or ends a transaction are not counted. Yields the list of the
    statements, which grows.
    """
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(_NOT_QUERIES):
            seen.append(statement)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "after_cursor_execute", note)
    if len(seen) != expected:
        lines = "".join(f"\n  {number}. {text}" for number, text in enumerate(seen, 1))
        raise AssertionError(f"{expected} statements were expected, {len(seen)} executed:{lines}")


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
