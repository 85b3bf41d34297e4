"""
Many rows at once, as fast as the backend takes them, inside the current transaction.

What comes out is what ``session.execute(insert(Model), rows)`` would have stored, with its defaults
and its errors, only sooner. A connector that has a faster way than INSERT says so by
``can_load``; whatever its way cannot do goes through SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, Insert, Table, bindparam, insert, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper

from moorage.connector import BulkLoad, DBConnector, OnConflict
from moorage.engine import connector_of, driver_at_work
from moorage.errors import BulkInsertError, DatabaseError
from moorage.rows import Rows, batches, chunks
from moorage.session import guard

__all__ = ["bulk_insert"]

_CHUNK_ROWS = 20_000

Values = Sequence[Sequence[Any]]


async def bulk_insert(
    session: AsyncSession,
    target: type[Any] | Table,
    rows: Rows,
    *,
    columns: Sequence[str] | None = None,
    on_conflict: OnConflict = "raise",
    key: Sequence[str] | None = None,
    chunk_rows: int = _CHUNK_ROWS,
    progress: Callable[[int], object] | None = None,
) -> int:
    """
    Insert many rows inside the session's transaction; return how many were given.

    Rows are taken a chunk at a time, so that a generator of any length needs the memory of one
    chunk. Objects of the model are read and stay as they are: they do not join the session, and
    are not given keys. Nothing is committed; an error leaves the transaction to be rolled back,
    and says in which chunk, and where the backend tells in which row.

    Args:
        session: Of a unit of work, or one that is committed afterwards.
        target: A mapped class or a table.
        rows: A list or an iterator, also an asynchronous one, of dicts, dataclasses, named tuples,
            objects of the model, or sequences with ``columns``; or anything that speaks Arrow, as
            a data frame (extra ``arrow``). Names are those of attributes, or of a table's columns.
        columns: Names of what is in rows that are plain sequences; the fastest.
        on_conflict: ``"skip"`` leaves out rows whose key is there, ``"update"`` overwrites what
            is there.
        key: Names of what tells whether a row is there already; the primary key if left out.
        chunk_rows: Rows that are taken and sent at once.
        progress: Called after each chunk with the number of rows so far.

    Raises:
        BulkInsertError: The rows do not fit the table, or the backend cannot do ``on_conflict``.
        DatabaseError: The database refused a row, with the class that INSERT would have raised.
    """
    if chunk_rows < 1:
        raise BulkInsertError(f"chunk_rows is {chunk_rows}", hint="write a number of rows")
    names = None if columns is None else tuple(columns)
    job = _Job(session, target, on_conflict, key)
    done, number = 0, 0
    with guard(session).working():
        async for chunk in chunks(rows, chunk_rows):
            number += 1
            for found, values in batches(chunk, names):
                try:
                    await job.insert(found, values)
                except DatabaseError as error:
                    _name_the_place(error, number, done, len(values), job.failed_row)
                    raise
                done += len(values)
            if progress is not None:
                progress(done)
    return done


@dataclass
class _Plan:
    """How rows with certain names are inserted."""

    load: BulkLoad
    # Defaults of Python, for columns that the rows have no value for.
    defaults: list[Column[Any]]
    processors: list[Callable[[Any], Any] | None]
    statement: Insert | None


class _Job:
    def __init__(
        self,
        session: AsyncSession,
        target: type[Any] | Table,
        on_conflict: OnConflict,
        key: Sequence[str] | None,
    ) -> None:
        self._session = session
        self._on_conflict: OnConflict = on_conflict
        self._target = target
        self._mapper: Mapper[Any] | None = None
        if isinstance(target, Table):
            self._table = target
            self._bind: dict[str, Any] = {"clause": target}
            self._columns: dict[str, Column[Any]] = dict(target.columns.items())
        else:
            mapper = inspect(target, raiseerr=False)
            if not isinstance(mapper, Mapper) or not isinstance(mapper.local_table, Table):
                raise BulkInsertError(
                    f"{target!r} is neither a mapped class nor a table", hint="give one of them"
                )
            self._mapper, self._table = mapper, mapper.local_table
            self._bind = {"mapper": mapper}
            self._columns = {
                attribute.key: column
                for attribute in mapper.column_attrs
                if isinstance(column := attribute.columns[0], Column)
            }
        self._key = [self._column(name) for name in key or ()] or list(self._table.primary_key)
        self._plans: dict[tuple[str, ...], _Plan] = {}

    failed_row: int | None = None

    async def insert(self, names: tuple[str, ...], rows: Values) -> None:
        """Insert rows that have values for ``names``."""
        optional = [i for i in self._optional(names) if None in map(itemgetter(i), rows)]
        if not optional:
            await self._insert(names, rows)
            return
        done = 0
        for missing, alike in groupby(rows, lambda row: [row[i] is None for i in optional]):
            left_out = {index for index, is_none in zip(optional, missing, strict=True) if is_none}
            group: Values = list(alike)
            kept = [index for index in range(len(names)) if index not in left_out]
            if left_out:
                group = [tuple(row[index] for index in kept) for row in group]
            try:
                await self._insert(tuple(names[index] for index in kept), group)
            finally:
                if self.failed_row is not None:
                    self.failed_row += done
            done += len(group)

    def _optional(self, names: tuple[str, ...]) -> list[int]:
        """
        Return the places of columns where None means "not given".

        So it is in the ORM, where the database, or the model, has something better than NULL.
        """
        return [
            index
            for index, column in enumerate(map(self._column, names))
            if self._mapper is not None
            and (column.default or column.server_default or column.primary_key)
            and not column.type.should_evaluate_none
        ]

    async def _insert(self, names: tuple[str, ...], rows: Values) -> None:
        self.failed_row = None
        if self._needs_the_mapper():
            await self._by_the_mapper(names, rows)
            return
        if self._session.sync_session.autoflush:
            await self._session.flush()
        connection = await self._session.connection(bind_arguments=self._bind)
        connector = connector_of(connection.sync_connection.engine)  # type: ignore[union-attr]
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = await self._plan(names, connection, connector)
        if plan.statement is not None:
            keys = [column.key for column in plan.load.columns]
            values = [dict(zip(keys, row, strict=True)) for row in rows]
            await connection.execute(plan.statement, values)
            return
        assert connector is not None
        prepared = _prepared(plan, rows)
        load = plan.load
        load.failed_row = None
        sync_connection = connection.sync_connection
        assert sync_connection is not None
        try:
            async with driver_at_work(sync_connection, connector, len(prepared)):
                await connector.load_rows(connection, load, prepared)
        finally:
            self.failed_row = load.failed_row

    def _needs_the_mapper(self) -> bool:
        """Return whether a row is more than its columns, so that SQLAlchemy's ORM has to do it."""
        mapper = self._mapper
        return mapper is not None and (
            len(mapper.tables) > 1
            or mapper.polymorphic_on is not None
            or mapper.version_id_col is not None
        )

    async def _by_the_mapper(self, names: tuple[str, ...], rows: Values) -> None:
        self._refuse_conflicts("a class with inheritance or a version counter")
        values = [dict(zip(names, row, strict=True)) for row in rows]
        for name in names:
            self._column(name)
        await self._session.execute(insert(self._target), values)

    async def _plan(
        self, names: tuple[str, ...], connection: AsyncConnection, connector: DBConnector | None
    ) -> _Plan:
        given = tuple(self._column(name) for name in names)
        defaults = [
            column
            for column in self._table.columns
            if column.default is not None and column not in given
        ]
        load = BulkLoad(self._table, (*given, *defaults))
        if self._on_conflict != "raise":
            statement = None
            if connector is not None:
                given_load = BulkLoad(self._table, given)
                statement = connector.insert_on_conflict(given_load, self._key, self._on_conflict)
            if statement is None:
                self._refuse_conflicts("this backend")
            return _Plan(BulkLoad(self._table, given), [], [], statement)
        dialect = connection.dialect
        if (
            connector is not None
            and load.columns
            and all(_is_of_python(column) for column in defaults)
            and all(_is_plain(column, dialect) for column in load.columns)
            and await connector.can_load(connection, load)
        ):
            processors = [_processor(column, dialect) for column in load.columns]
            return _Plan(load, defaults, processors, None)
        return _Plan(BulkLoad(self._table, given), [], [], insert(self._table))

    def _column(self, name: str) -> Column[Any]:
        column = self._columns.get(name)
        if column is None or column.table is not self._table:
            if self._mapper is not None and name in self._columns:
                return self._columns[name]
            raise BulkInsertError(
                f"rows have {name!r}, which is no column of {self._table.name!r}",
                hint=f"it has {', '.join(self._columns)}",
            )
        return column

    def _refuse_conflicts(self, what: str) -> None:
        if self._on_conflict != "raise":
            raise BulkInsertError(
                f"on_conflict={self._on_conflict!r} is not possible for {what}",
                hint='leave it out: "raise" is the default',
            )


def _is_of_python(column: Column[Any]) -> bool:
    default = column.default
    return default is not None and (default.is_scalar or default.is_callable)


def _is_plain(column: Column[Any], dialect: Dialect) -> bool:
    """Return whether a value goes into the column as it is, with no SQL around it."""
    expression = column.type.dialect_impl(dialect).bind_expression(bindparam("value"))
    always = column.identity is not None and column.identity.always
    return expression is None and not always and column.computed is None


def _processor(column: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(dialect).bind_processor(dialect)


class _DefaultContext:
    """What a function that makes a default may ask for."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        return self.current_parameters


def _prepared(plan: _Plan, rows: Values) -> Values:
    """Return the rows with defaults filled in and values as the driver takes them."""
    if plan.defaults:
        keys = [column.key for column in plan.load.columns[: -len(plan.defaults)]]
        rows = [(*row, *_defaults(plan.defaults, keys, row)) for row in rows]
    if not any(plan.processors):
        return rows
    by_column: list[Sequence[Any]] = list(zip(*rows, strict=True))
    for index, process in enumerate(plan.processors):
        if process is not None:
            by_column[index] = [process(value) for value in by_column[index]]
    return list(zip(*by_column, strict=True))


def _defaults(columns: list[Column[Any]], keys: list[str], row: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for column in columns:
        default: Any = column.default
        if default.is_scalar:
            values.append(default.arg)
        else:
            values.append(default.arg(_DefaultContext(dict(zip(keys, row, strict=True)))))
    return values


def _name_the_place(
    error: DatabaseError, chunk: int, before: int, length: int, failed_row: int | None
) -> None:
    if failed_row is not None:
        place = f"row {before + failed_row + 1}"
    else:
        place = f"one of the rows {before + 1} to {before + length}"
    message = f"{error.args[0]} ({place} of the bulk insert, in chunk {chunk})"
    error.args = (message, *error.args[1:])
