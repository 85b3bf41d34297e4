"""
Rows by their natural key: those that are not there are inserted, those that differ are updated.

What is there is read first and compared, so that a second run writes nothing: no trigger fires, no
``updated_at`` moves, and the counts say what happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Index,
    Table,
    UniqueConstraint,
    and_,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper

from moorage.bulk import bulk_insert
from moorage.errors import BulkInsertError, SeedError

__all__ = ["Existing", "Tally", "matching", "natural_key", "tally_of", "upsert"]

Existing = Literal["update", "keep"]
"""What becomes of rows that are there and differ."""

_TALLY = "moorage_seed_tally"
_ROWS_AT_ONCE = 200


@dataclass
class Tally:
    """
    What was done to rows.

    Attributes:
        inserted: Rows that were not there.
        updated: Rows that were there, and differed.
        deleted: Rows that went.
        unchanged: Rows that were there already.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        counts = ((getattr(self, word), word) for word in ("inserted", "updated", "deleted"))
        said = [f"{count} {word}" for count, word in counts if count]
        return ", ".join(said) or "nothing to do"

    def add(self, other: Tally) -> None:
        """Count in what another tally has counted."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.deleted += other.deleted
        self.unchanged += other.unchanged


def tally_of(session: AsyncSession) -> Tally:
    """Return the tally of a session, which :func:`upsert` adds to."""
    tally: Tally = session.sync_session.info.setdefault(_TALLY, Tally())
    return tally


async def upsert(
    session: AsyncSession,
    target: type[Any] | Table,
    rows: Iterable[Mapping[str, Any]],
    *,
    key: Sequence[str] | str | None = None,
    existing: Existing = "update",
) -> Tally:
    """
    Bring rows into a table, in the transaction of the session, and return what was done.

    A row is there if one with its natural key is. Only the columns that a row names are compared
    and updated. Objects that the session has loaded are not refreshed.

    Args:
        session: Of a unit of work, as seeds are given.
        target: A mapped class or a table.
        rows: By name of attribute, or of a table's column.
        key: What tells rows apart; there must be a unique constraint over it. If left out, the
            one that the table has besides its primary key, or else the primary key.
        existing: ``"keep"`` leaves rows alone that are there.

    Raises:
        SeedError: There is no such key or column, a row lacks its key, or two rows share one.
        DatabaseError: The database refused a row.
    """
    place = _Place.of(target)
    names = place.key(key)
    given = [_checked(place, names, row) for row in rows]
    _refuse_twins(place, names, given)
    done = Tally()
    await session.flush()
    connection = await session.connection(bind_arguments=place.bind)
    remaining = iter(given)
    while chunk := list(islice(remaining, _ROWS_AT_ONCE)):
        done.add(await _Chunk(session, place, names, connection.dialect).write(chunk, existing))
    tally_of(session).add(done)
    return done


def natural_key(table: Table, key: Sequence[str] | None) -> list[Column[Any]]:
    """
    Return the columns that tell the rows of a table apart.

    Args:
        table: The table.
        key: Names of its columns; if left out, they are looked for.

    Raises:
        SeedError: There is no unique constraint over them, or it is not clear which one is meant.
    """
    uniques = list(_uniques(table))
    if key is not None:
        missing = [name for name in key if name not in table.columns]
        if missing:
            raise SeedError(
                f"key of {table.fullname}: there is no column {missing[0]!r}",
                hint=f"it has {', '.join(table.columns.keys())}",
            )
        columns = [table.columns[name] for name in key]
        if set(columns) not in [set(unique) for unique in (*uniques, list(table.primary_key))]:
            raise SeedError(
                f"key of {table.fullname}: there is no unique constraint over"
                f" ({', '.join(key)}), so that it does not tell rows apart",
                hint="add the constraint to the model, and migrate",
            )
        return columns
    if len(uniques) > 1:
        choices = " or ".join(f"[{', '.join(c.name for c in unique)}]" for unique in uniques)
        raise SeedError(
            f"the natural key of {table.fullname} is not clear: it has several unique constraints",
            hint=f"say which one is meant: key: {choices}",
        )
    found = uniques[0] if uniques else list(table.primary_key)
    if not found:
        raise SeedError(
            f"{table.fullname} has no natural key: no unique constraint and no primary key",
            hint="add a unique constraint to the model, and migrate",
        )
    return found


def matching(columns: Sequence[Column[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that columns have certain values."""
    return and_(*(column == value for column, value in zip(columns, values, strict=True)))


def _uniques(table: Table) -> Iterator[list[Column[Any]]]:
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield list(constraint.columns)
    for index in table.indexes:
        if index.unique and _is_whole(index):
            yield list(index.columns)


def _is_whole(index: Index) -> bool:
    """Return whether an index is over columns, and over all rows."""
    partial = any(name.endswith("_where") for name in index.dialect_kwargs)
    return not partial and all(isinstance(one, Column) for one in index.expressions)


@dataclass(frozen=True)
class _Place:
    """Where rows go, and what their values are called."""

    target: type[Any] | Table
    table: Table
    columns: Mapping[str, Column[Any]]
    bind: dict[str, Any]

    @classmethod
    def of(cls, target: type[Any] | Table) -> _Place:
        if isinstance(target, Table):
            return cls(target, target, dict(target.columns.items()), {"clause": target})
        mapper = inspect(target, raiseerr=False)
        if not isinstance(mapper, Mapper) or not isinstance(mapper.local_table, Table):
            raise SeedError(
                f"{target!r} is neither a mapped class nor a table", hint="give one of them"
            )
        if len(mapper.tables) > 1 or mapper.version_id_col is not None:
            raise SeedError(
                f"{target.__name__} is in several tables, or counts its versions, and cannot be"
                " written by key",
                hint="look for the objects and add what is missing, with the session",
            )
        columns = {
            attribute.key: column
            for attribute in mapper.column_attrs
            if isinstance(column := attribute.columns[0], Column)
        }
        return cls(target, mapper.local_table, columns, {"mapper": mapper})

    def key(self, key: Sequence[str] | str | None) -> list[str]:
        """Return the names of the natural key."""
        given = [key] if isinstance(key, str) else key
        wanted = None if given is None else [self.column(name).name for name in given]
        found = natural_key(self.table, wanted)
        return [self.name_of(column) for column in found]

    def column(self, name: str) -> Column[Any]:
        if name not in self.columns:
            raise SeedError(
                f"{name!r} is no column of {self.table.fullname}",
                hint=f"it has {', '.join(self.columns)}",
            )
        return self.columns[name]

    def name_of(self, column: Column[Any]) -> str:
        return next(name for name, known in self.columns.items() if known is column)


def _checked(place: _Place, key: list[str], row: Mapping[str, Any]) -> dict[str, Any]:
    for name in row:
        place.column(name)
    if missing := [name for name in key if row.get(name) is None]:
        raise SeedError(
            f"a row of {place.table.fullname} has no {missing[0]!r}, which is of its natural key",
            hint="give it a value, or choose another key",
        )
    return dict(row)


def _refuse_twins(place: _Place, key: list[str], rows: list[dict[str, Any]]) -> None:
    seen = set()
    for row in rows:
        values = tuple(row[name] for name in key)
        if values in seen:
            raise SeedError(
                f"two rows of {place.table.fullname} have the same {', '.join(key)}: {values!r}",
                hint="keep one of them",
            )
        seen.add(values)


class _Chunk:
    """Some rows, on their way into a table."""

    def __init__(
        self, session: AsyncSession, place: _Place, key: list[str], dialect: Dialect
    ) -> None:
        self._session = session
        self._place = place
        self._key = key
        self._dialect = dialect

    async def write(self, rows: list[dict[str, Any]], existing: Existing) -> Tally:
        names = list(dict.fromkeys(name for row in rows for name in row))
        found = await self._find(rows, names)
        missing = [row for row, there in zip(rows, found, strict=True) if there is None]
        done = Tally(inserted=len(missing))
        for row, there in zip(rows, found, strict=True):
            if there is None:
                continue
            changes = self._changes(row, there) if existing == "update" else {}
            if changes:
                await self._update(row, changes)
                done.updated += 1
            else:
                done.unchanged += 1
        if missing:
            await self._insert(missing)
        return done

    async def _find(
        self, rows: list[dict[str, Any]], names: list[str]
    ) -> list[Mapping[str, Any] | None]:
        """Return what is there of each row, by name, or ``None``."""
        by_key = {
            tuple(there[name] for name in self._key): there
            for there in await self._select(or_(*map(self._is, rows)), names)
        }
        found = [by_key.pop(self._values(row), None) for row in rows]
        if by_key:
            # The backend finds keys equal that Python does not, as "Fram" and "FRAM".
            for index, row in enumerate(rows):
                if found[index] is None:
                    found[index] = next(iter(await self._select(self._is(row), names)), None)
        return found

    async def _select(
        self, condition: ColumnElement[bool], names: list[str]
    ) -> list[Mapping[str, Any]]:
        columns = [self._place.columns[name] for name in names]
        answer = await self._session.execute(
            select(*columns).where(condition), bind_arguments=self._place.bind
        )
        return [dict(zip(names, row, strict=True)) for row in answer]

    async def _insert(self, rows: list[dict[str, Any]]) -> None:
        target, key = self._place.target, self._key
        try:
            # Another process may be planting the same rows.
            await bulk_insert(self._session, target, rows, on_conflict="skip", key=key)
        except BulkInsertError:  # the backend, or the class, can only insert
            await bulk_insert(self._session, target, rows)
            return
        # On some backends any unique key makes a row be skipped, not only the one that was named.
        for row, there in zip(rows, await self._find(rows, key), strict=True):
            if there is None:
                raise SeedError(
                    f"a row of {self._place.table.fullname} was not inserted, because another"
                    f" row has one of its unique values: {self._described(row)}",
                    hint="look at the other unique constraints of the table",
                )

    async def _update(self, row: dict[str, Any], changes: dict[str, Any]) -> None:
        values = {self._place.columns[name]: value for name, value in changes.items()}
        await self._session.execute(
            update(self._place.table).where(self._is(row)).values(values),
            bind_arguments=self._place.bind,
        )

    def _changes(self, row: dict[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in row.items()
            if name not in self._key and not self._is_same(name, value, there[name])
        }

    def _is_same(self, name: str, given: Any, there: Any) -> bool:
        if given == there:
            return True
        if not isinstance(given, (dict, list, tuple)):
            return False
        # A document: what it is made of may be written as something else.
        process = (
            self._place.columns[name].type.dialect_impl(self._dialect).bind_processor(self._dialect)
        )
        written = given if process is None else process(given)
        return bool((json.loads(written) if isinstance(written, str) else written) == there)

    def _is(self, row: Mapping[str, Any]) -> ColumnElement[bool]:
        return matching([self._place.columns[name] for name in self._key], self._values(row))

    def _values(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    def _described(self, row: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {row[name]!r}" for name in self._key)
