"""
Seeds in YAML: the rows of some tables, with values as the tables' columns take them.

A file is read and checked as a whole, before anything is written; what is wrong is told with its
line. What a value means is decided by its column and not by YAML, for which ``NO`` is false and
``1.10`` is a float.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, MetaData, Table, select
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from moorage.environment import nearest
from moorage.errors import MissingExtraError, MoorageError, SeedError
from moorage.seeding.upserting import Existing, matching, natural_key, upsert

__all__ = ["DataFile", "read_data_file"]

_FILE_KEYS = ("order", "environments", "tables")
_TABLE_KEYS = ("key", "existing", "rows")
# Of these, the text is the value: what YAML makes of 1.10, 4:05 or NO is another one.
_AS_TEXT: Final = (str, decimal.Decimal, dt.time, dt.timedelta, uuid.UUID, enum.Enum)
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class _Reference:
    """A value that is looked up when its row is written: a column of the row that has others."""

    column: Column[Any]
    by: tuple[tuple[Column[Any], Any], ...]
    where: str

    async def found(self, session: AsyncSession) -> Any:
        """Return the value."""
        columns = [column for column, _ in self.by]
        values = [
            await value.found(session) if isinstance(value, _Reference) else value
            for _, value in self.by
        ]
        query = select(self.column).where(matching(columns, values)).limit(2)
        rows = (await session.execute(query, bind_arguments={"clause": self.column.table})).all()
        if len(rows) != 1:
            looked_for = ", ".join(
                f"{column.name} {value!r}" for column, value in zip(columns, values, strict=True)
            )
            number = "several rows" if rows else "no row"
            raise SeedError(
                f"{self.where}: {number} of {self.column.table} with {looked_for}",
                hint="name what tells that row apart, and write it before this one",
            )
        return rows[0][0]


@dataclass
class _Rows:
    table: Table
    key: list[Column[Any]]
    existing: Existing
    rows: list[dict[str, Any]]


@dataclass
class DataFile:
    """
    The content of one file.

    Attributes:
        order: As that of a seed.
        environments: As those of a seed.
        tables: Rows, by table, in the order of the file.
    """

    order: int = 0
    environments: frozenset[str] = frozenset()
    tables: list[_Rows] = field(default_factory=list)

    async def plant(self, session: AsyncSession) -> None:
        """Write all rows in the session's transaction."""
        for one in self.tables:
            known: dict[_Reference, Any] = {}
            rows = [await _resolved(row, session, known) for row in one.rows]
            names = [column.key for column in one.key]
            await upsert(session, one.table, rows, key=names, existing=one.existing)


async def _resolved(
    row: dict[str, Any], session: AsyncSession, known: dict[_Reference, Any]
) -> dict[str, Any]:
    values = {}
    for name, value in row.items():
        if isinstance(value, _Reference):
            if value not in known:
                known[value] = await value.found(session)
            values[name] = known[value]
        else:
            values[name] = value
    return values


def read_data_file(path: Path, catalogues: Sequence[MetaData], problems: list[str]) -> DataFile:
    """
    Return the content of a file; what is wrong in it is added to ``problems``.

    Raises:
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(
            f"seeds in YAML ({path.name}) need PyYAML, which is not installed",
            hint="pip install 'moorage[seeds]'",
        ) from error
    try:
        # It makes nothing but plain values: a tag that asks for an object is an error.
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{path}:{line}: this is no YAML: {error.problem or error.context}")
        return DataFile()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path}: this is no YAML: {error}")
        return DataFile()
    return _Reader(path, loader, catalogues, problems).file(root)


class _Reader:
    """Makes sense of the nodes of one file."""

    def __init__(
        self, path: Path, loader: Any, catalogues: Sequence[MetaData], problems: list[str]
    ) -> None:
        self._path = path
        self._loader = loader
        self._problems = problems
        self._tables: dict[str, Table] = {}
        for catalogue in catalogues:
            for table in catalogue.sorted_tables:
                self._tables.setdefault(table.fullname, table)

    def file(self, root: Any) -> DataFile:
        data = DataFile()
        if root is None:
            self._wrong(root, "the file is empty", "write `tables:`, and rows below it")
            return data
        for key, node in self._items(root, "the file", _FILE_KEYS):
            if key == "order":
                order = self._plain(node)
                if isinstance(order, int):
                    data.order = order
                else:
                    self._wrong(node, "order is no whole number")
            elif key == "environments":
                data.environments = frozenset(self._names(node, "environments"))
            else:
                for name, content in self._items(node, "tables"):
                    self._table(data, name, content)
        if not data.tables and not self._problems:
            self._wrong(root, "there is no table", "write `tables:`, and rows below it")
        return data

    def _table(self, data: DataFile, name: str, node: Any) -> None:
        table = self._tables.get(name)
        if table is None:
            near = nearest(name, self._tables)
            known = f"did you mean {near!r}?" if near else "is its model imported?"
            self._wrong(node, f"there is no table {name!r}", known)
            return
        key: list[str] | None = None
        existing: Existing = "update"
        rows = node
        if self._is(node, "mapping"):
            parts = dict(self._items(node, f"table {name}", _TABLE_KEYS))
            rows = parts.get("rows")
            if "key" in parts:
                key = self._names(parts["key"], "key")
            if "existing" in parts:
                existing = self._plain(parts["existing"])
                if existing not in ("update", "keep"):
                    self._wrong(parts["existing"], "existing is neither `update` nor `keep`")
        if not self._is(rows, "sequence"):
            self._wrong(node, f"table {name} has no list of rows", "write `rows:`, and a list")
            return
        try:
            columns = natural_key(table, key)
        except SeedError as error:
            self._wrong(node, str(error.args[0]), error.hint)
            return
        read = _Rows(table, columns, existing, [])
        seen: dict[tuple[Any, ...], int] = {}
        for row in rows.value:
            values = self._row(table, columns, row)
            if values is None:
                continue
            read.rows.append(values)
            identity = tuple(values[column.key] for column in columns)
            try:
                first = seen.setdefault(identity, row.start_mark.line + 1)
            except TypeError:  # a document in a key; the database will tell
                continue
            if first != row.start_mark.line + 1:
                self._wrong(row, f"this row has the key of the one in line {first}")
        data.tables.append(read)

    def _row(self, table: Table, key: list[Column[Any]], node: Any) -> dict[str, Any] | None:
        """Return the values of a row, or ``None`` if they are not all there and right."""
        before = len(self._problems)
        values: dict[str, Any] = {}
        for name, value in self._items(node, f"a row of {table.fullname}"):
            column = table.columns.get(name)
            if column is None:
                near = nearest(name, table.columns.keys())
                known = f"did you mean {near!r}?" if near else _listed(table)
                self._wrong(value, f"{table.fullname} has no column {name!r}", known)
            else:
                values[name] = self._value(column, value)
        if len(self._problems) > before:
            return None
        for column in key:
            if values.get(column.key) is None:
                self._wrong(node, f"this row has no {column.key!r}, which is of its natural key")
        for column in table.columns:
            if column.key not in values and column not in key and _needs_a_value(column):
                self._wrong(node, f"this row has no {column.key!r}, which has no default")
        return values if len(self._problems) == before else None

    def _value(self, column: Column[Any], node: Any) -> Any:
        if node.tag == _NULL:
            if not column.nullable:
                self._wrong(node, f"{column.name} cannot be empty")
            return None
        python = _python_type(column.type)
        if column.foreign_keys and self._is(node, "mapping"):
            return self._reference(column, node)
        if self._is(node, "scalar") and python is not None and issubclass(python, _AS_TEXT):
            given = node.value
        else:
            given = self._plain(node)
        try:
            value = given if python is None else _converted(given, python)
            if (process := _process(column.type)) is not None:
                process(value)
        except ValidationError as error:
            self._wrong(node, f"{column.name}: {error.errors()[0]['msg']}")
        except MoorageError as error:
            self._wrong(node, f"{column.name}: {error.args[0]}", error.hint)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            self._wrong(node, f"{column.name}: {type(error).__name__}: {error}")
        else:
            return value
        return None

    def _reference(self, column: Column[Any], node: Any) -> Any:
        referred = next(iter(column.foreign_keys)).column
        table = referred.table
        by: list[tuple[Column[Any], Any]] = []
        for name, value in self._items(node, f"what {column.name} refers to"):
            other = table.columns.get(name)
            if other is None:
                self._wrong(value, f"{table.fullname} has no column {name!r}", _listed(table))
            else:
                by.append((other, self._value(other, value)))
        return _Reference(referred, tuple(by), f"{self._path}:{node.start_mark.line + 1}")

    def _items(
        self, node: Any, what: str, allowed: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield the parts of a mapping; parts that come twice, or are unknown, are wrong."""
        if not self._is(node, "mapping"):
            self._wrong(node, f"{what} is no mapping of names to values")
            return
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                self._wrong(key, f"{key.value!r} is there twice")
            elif self._is(key, "scalar"):
                seen.add(key.value)
        self._loader.flatten_mapping(node)  # <<: *defaults
        merged = {key.value: value for key, value in node.value if self._is(key, "scalar")}
        for name, value in merged.items():
            if allowed is not None and name not in allowed:
                self._wrong(value, f"{name!r} is unknown", f"known are {', '.join(allowed)}")
            else:
                yield name, value

    def _names(self, node: Any, what: str) -> list[str]:
        nodes = node.value if self._is(node, "sequence") else [node]
        if not all(self._is(one, "scalar") for one in nodes):
            self._wrong(node, f"{what} is neither a name nor a list of names")
            return []
        return [one.value for one in nodes]

    def _is(self, node: Any, kind: str) -> bool:
        return getattr(node, "id", "") == kind

    def _plain(self, node: Any) -> Any:
        import yaml

        try:
            return self._loader.construct_object(node, deep=True)
        except yaml.MarkedYAMLError as error:
            self._wrong(node, str(error.problem))
        except ValueError as error:
            self._wrong(node, str(error))
        return None

    def _wrong(self, node: Any, what: str, advice: str = "") -> None:
        line = 1 if node is None else node.start_mark.line + 1
        text = f"{self._path}:{line}: {what}"
        self._problems.append(f"{text}; {advice}" if advice else text)


def _listed(table: Table) -> str:
    return f"it has {', '.join(table.columns.keys())}"


def _needs_a_value(column: Column[Any]) -> bool:
    filled = column.default or column.server_default or column.computed or column.identity
    counted = column.table.autoincrement_column is column
    return not (column.nullable or filled or counted)


def _converted(given: Any, python: type[Any]) -> Any:
    if issubclass(python, enum.Enum) and given in python.__members__:
        by_value = [member for member in python if member.value == given]
        return by_value[0] if by_value else python[given]
    if issubclass(python, (dict, list)):
        return given
    return TypeAdapter(python).validate_python(given)


def _python_type(column_type: TypeEngine[Any]) -> type[Any] | None:
    try:
        found = column_type.python_type
    except NotImplementedError:  # as SQLAlchemy 2.0 says it; 2.1 says object
        return None
    return None if found is object else found


def _process(column_type: TypeEngine[Any]) -> Any:
    """Return what refuses values that the column does not take, if there is such a thing."""
    return column_type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


class _PlainDialect(DefaultDialect):
    """A dialect that refuses nothing by itself: what one backend alone refuses, it says itself."""

    supports_native_decimal = True
    _json_serializer = None  # SQLAlchemy 2.0 expects it of all dialects that meet JSON


_DIALECT: Final = _PlainDialect()
