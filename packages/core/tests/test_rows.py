"""What rows may be given as, apart from any database."""

import sys
from typing import Any

import pytest

from moorage import MissingExtraError
from moorage.rows import batches, chunks


async def test_arrow_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that speak Arrow say which extra reads them."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise AssertionError

    frame: Any = Frame()
    with pytest.raises(MissingExtraError, match="pyarrow") as caught:
        await anext(chunks(frame, 10))
    assert caught.value.hint == "pip install 'moorage[arrow]'"


async def test_one_chunk_copies_nothing() -> None:
    """A list that fits into one chunk is that chunk."""
    rows = [(1,), (2,)]
    assert [chunk async for chunk in chunks(rows, 2)] == [rows]
    assert (await anext(chunks(rows, 2))) is rows


def test_other_names_begin_another_batch() -> None:
    """Rows are taken together as long as they have values for the same names."""
    rows = [{"a": 1, "b": 2}, {"b": 4, "a": 3}, {"a": 5}, {}, {"a": 6}]
    assert list(batches(rows, None)) == [
        (("a", "b"), [(1, 2), (3, 4)]),
        (("a",), [(5,)]),
        ((), [()]),
        (("a",), [(6,)]),
    ]
