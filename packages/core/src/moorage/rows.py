"""
The kinds of rows that a bulk insert takes, made into tuples, a chunk at a time.

Everything becomes the same thing: names, and a list of tuples with the values of these names.
Rows with other names than those before them begin a batch of their own.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from importlib import import_module
from itertools import groupby, islice
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper

from moorage.errors import BulkInsertError, MissingExtraError

__all__ = ["Batch", "Rows", "batches", "chunks"]

Rows = Iterable[Any] | AsyncIterable[Any]
"""What a bulk insert takes: anything that gives rows, also asynchronously, or speaks Arrow."""

Batch = tuple[tuple[str, ...], Sequence[Sequence[Any]]]
"""Names, and rows with values for just these names, in their order."""

_HINT = (
    "give dicts, dataclasses, named tuples or objects of the model; or tuples, and say what is in"
    " them by columns=(…)"
)


async def chunks(rows: Rows, size: int) -> AsyncIterator[Any]:
    """Yield rows as they were given, up to ``size`` at a time; an Arrow batch as it comes."""
    if hasattr(rows, "__arrow_c_stream__"):
        for batch in _arrow_reader(rows):
            for begin in range(0, batch.num_rows, size):
                yield batch.slice(begin, size)
    elif isinstance(rows, AsyncIterable):
        chunk = []
        async for row in rows:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
    elif isinstance(rows, (list, tuple)):
        for begin in range(0, len(rows), size):
            # A load in one chunk copies nothing.
            yield rows if size >= len(rows) else rows[begin : begin + size]
    else:
        iterator = iter(rows)
        while chunk := list(islice(iterator, size)):
            yield chunk


def batches(chunk: Any, columns: tuple[str, ...] | None) -> Iterator[Batch]:
    """
    Yield the rows of a chunk as tuples, with the names that they have values for.

    Args:
        chunk: One of :func:`chunks`.
        columns: What is in rows that are plain sequences.

    Raises:
        BulkInsertError: The rows are of a kind that is not known, or not as long as ``columns``.
    """
    if hasattr(chunk, "to_pydict"):
        by_name: dict[str, list[Any]] = chunk.to_pydict()
        yield tuple(by_name), list(zip(*by_name.values(), strict=True))
    elif columns is not None:
        if wrong := set(map(len, chunk)) - {len(columns)}:
            raise BulkInsertError(
                f"a row has {min(wrong)} values, and columns= names {len(columns)}"
            )
        yield columns, chunk
    else:
        for kind, rows in groupby(chunk, type):
            yield from _of_one_kind(kind, list(rows))


def _of_one_kind(kind: type, rows: list[Any]) -> Iterator[Batch]:
    if issubclass(kind, Mapping):
        yield from _of_mappings(rows)
    elif (mapper := inspect(kind, raiseerr=False)) is not None and isinstance(mapper, Mapper):
        yield from _of_mappings([_values(mapper, inspect(row)) for row in rows])
    elif dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
        yield names, list(map(_getter(operator.attrgetter, names), rows))
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        yield tuple(kind._fields), rows
    else:
        raise BulkInsertError(f"a row is of type {kind.__name__!r}", hint=_HINT)


def _of_mappings(rows: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    begin = 0
    while begin < len(rows):
        names = rows[begin].keys()
        end = begin + 1
        while end < len(rows) and rows[end].keys() == names:
            end += 1
        alike = rows if end - begin == len(rows) else rows[begin:end]
        wanted = tuple(names)
        yield wanted, list(map(_getter(operator.itemgetter, wanted), alike))
        begin = end


def _getter(make: Callable[..., Any], names: tuple[str, ...]) -> Callable[[Any], Any]:
    if not names:
        return lambda row: ()
    get: Callable[[Any], Any] = make(*names)
    return get if len(names) > 1 else lambda row: (get(row),)


def _values(mapper: Mapper[Any], state: InstanceState[Any]) -> dict[str, Any]:
    """Return what the unit of work of SQLAlchemy would insert: what is set, and is not None."""
    values = state.dict
    return {
        attribute.key: values[attribute.key]
        for attribute in mapper.column_attrs
        if attribute.key in values
        and (values[attribute.key] is not None or attribute.columns[0].type.should_evaluate_none)
    }


def _arrow_reader(rows: Any) -> Any:
    try:
        pyarrow: Any = import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError(
            "rows that speak Arrow need pyarrow, which is not installed",
            hint="pip install 'moorage[arrow]'",
        ) from error
    return pyarrow.RecordBatchReader.from_stream(rows)
