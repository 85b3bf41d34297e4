"""Names of SQLAlchemy that begin with an underscore: one module uses them, and they are there."""

import ast
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, Pool

from moorage.pool import LoopPool

CORE = Path(__file__).resolve().parents[2] / "packages/core/src/moorage"

OVERRIDDEN = {"_do_get", "_do_return_conn"}
CALLED = {"_create_connection"}
READ = {
    "_creator",
    "_dialect",
    "_invalidate_time",
    "_invoke_creator",
    "_is_asyncio",
    "_orig_logging_name",
    "_pre_ping",
    "_recycle",
    "_reset_on_return",
}
# Of pool entries; a test below asks a real one, since they are slots of a private class.
OF_ENTRIES = {"finalize_callback", "last_connect_time", "starttime", "record_info"}


def nothing() -> Any:
    """Return what stands for a connection, and is never used."""
    return object()


@pytest.mark.parametrize("name", sorted(OVERRIDDEN | CALLED))
def test_methods_are_there(name: str) -> None:
    """What our pool overrides and calls is what SQLAlchemy's own pools override and call."""
    assert callable(getattr(Pool, name))
    assert name in CALLED or name in vars(AsyncAdaptedQueuePool.__mro__[1])


@pytest.mark.parametrize("name", sorted(READ))
def test_attributes_are_there(name: str) -> None:
    """What our pool hands on when it is recreated is there after SQLAlchemy's own constructor."""
    assert hasattr(AsyncAdaptedQueuePool(nothing), name)


def test_entries_know_their_age() -> None:
    """An entry of a pool tells when it was opened, and has a dictionary that outlives it."""
    pool = AsyncAdaptedQueuePool(nothing)
    entry = pool._create_connection()
    assert isinstance(entry, ConnectionPoolEntry)
    for name in OF_ENTRIES:
        assert hasattr(entry, name), name


def test_recreation_forgets_nothing() -> None:
    """Each argument of our pool is there again in the one that a disposed engine goes on with."""
    pool = LoopPool(nothing, 1, 2, 3.0, 4.0, 5.0, recycle=6, reset_on_return=None)
    again = pool.recreate()
    skipped = {"_lock", "_places", "dispatch", "logger", "_invoke_creator"}
    before, after = vars(pool), vars(again)
    assert before.keys() <= after.keys()
    for name in before.keys() - skipped:
        assert before[name] == after[name], name


def private_names(module: Path) -> set[str]:
    """Return the underscored attributes that a module uses and does not define."""
    tree = ast.parse(module.read_text())
    used, own = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                own.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
    return {name for name in used - own if name.startswith("_") and not name.startswith("__")}


def test_one_module_uses_them() -> None:
    """No other module of the core uses a private name of SQLAlchemy's pools."""
    names = OVERRIDDEN | CALLED | READ
    users = {path.name for path in CORE.rglob("*.py") if private_names(path) & names}
    assert users == {"loop_pool.py"}
