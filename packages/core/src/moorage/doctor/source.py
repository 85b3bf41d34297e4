"""Mistakes that show in the source: calls that block the event loop, engines and sessions."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from moorage.doctor.finding import Report
from moorage.scaffold.discovery import python_files

__all__ = ["check_source", "table"]

_ENGINES = frozenset({"sqlalchemy.ext.asyncio.create_async_engine"})
# Functions that are called once in the life of a process.
_ONCE = frozenset({"lifespan", "main"})
_SESSIONS = frozenset({"sqlalchemy.ext.asyncio.AsyncSession", "sqlalchemy.orm.Session"})
_GATHER = frozenset({"asyncio.gather", "asyncio.wait"})


def table() -> dict[str, Any]:
    """Return what is known of other libraries."""
    source = files("moorage.doctor") / "blocking.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def check_source(root: Path, report: Report) -> None:
    """Read every Python file of a project but its tests."""
    known = table()
    for path in python_files(root):
        relative = path.relative_to(root).as_posix()
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError as error:
            report.add("P105", f"{error.msg}", relative, error.lineno or 1)
            continue
        except (ValueError, OSError):
            continue
        for code, what, line in _Reader(tree, known).faults():
            report.add(code, what, relative, line)


class _Reader:
    def __init__(self, tree: ast.Module, known: dict[str, Any]) -> None:
        self._tree = tree
        self._drivers = frozenset(known["drivers"])
        self._http = frozenset(known["http"])
        self._names = dict(_imported(tree))
        self._blocking_sessions = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and self._called(node.value) == "sqlalchemy.orm.sessionmaker"
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def faults(self) -> Iterator[tuple[str, str, int]]:
        """Yield code, description and line of each mistake."""
        for statement in self._tree.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                for call in _calls(statement.value):
                    if self._called(call) in _SESSIONS:
                        yield "A605", "a session is made when the module is imported", call.lineno
        for function in ast.walk(self._tree):
            if isinstance(function, ast.AsyncFunctionDef):
                for statement in function.body:
                    for call in _calls(statement):
                        yield from self._in_coroutine(call, function.name)

    def _in_coroutine(self, call: ast.Call, function: str) -> Iterator[tuple[str, str, int]]:
        called = self._called(call)
        where = f"in async def {function}"
        is_blocking_session = isinstance(call.func, ast.Name) and (
            call.func.id in self._blocking_sessions or called == "sqlalchemy.orm.Session"
        )
        if called in self._drivers or is_blocking_session:
            yield "A601", f"{ast.unparse(call.func)}() {where}", call.lineno
        elif called == "time.sleep":
            yield "A602", f"time.sleep() {where}", call.lineno
        elif called in self._http:
            yield "A603", f"{called}() {where}", call.lineno
        elif called in _ENGINES and function not in _ONCE:
            yield "A604", f"{ast.unparse(call.func)}() {where}", call.lineno
        elif called in _GATHER and (name := _shared_session(call)):
            yield "A606", f"{called}() with {name} in several tasks, {where}", call.lineno

    def _called(self, call: ast.Call) -> str:
        """Return the full name of what is called, as far as the imports tell."""
        head, _, rest = ast.unparse(call.func).partition(".")
        full = self._names.get(head, head)
        return f"{full}.{rest}" if rest else full


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that a statement makes itself, not those of functions inside of it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return
    if isinstance(node, ast.Call):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)


def _shared_session(call: ast.Call) -> str:
    """Return the session that two of the tasks of a gather would use, if there is one."""
    used: list[str] = []
    for argument in call.args:
        names = {n.id for n in ast.walk(argument) if isinstance(n, ast.Name)}
        used += [name for name in names if name == "session" or name.endswith("_session")]
        is_loop = isinstance(argument, ast.Starred) and names & {"session"}
        if is_loop:
            return "session"
    return next((name for name in used if used.count(name) > 1), "")
