"""
What stands out in a project's source: applications, engines, sessions, bases, settings.

Source is parsed, and nothing of it is imported or executed.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Application",
    "Handler",
    "Place",
    "imported_names",
    "landmarks",
    "read_source",
    "statement_at",
]

_DATABASE_CALLS = {
    "create_engine": "engine (blocking)",
    "create_async_engine": "engine",
    "sessionmaker": "sessions (blocking)",
    "async_sessionmaker": "sessions",
    "declarative_base": "base of models",
    "SQLAlchemy": "sessions (blocking)",  # Flask-SQLAlchemy's
}
_DATABASE_BASES = frozenset({"DeclarativeBase", "DeclarativeBaseNoMeta"})
_EVENTS = frozenset({"startup", "shutdown"})


@dataclass(frozen=True)
class Place:
    """Something that was found: what it is, what it is called, and where it stands."""

    kind: str
    name: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}, {self.kind}"


@dataclass(frozen=True)
class Handler:
    """A function that an application calls at its start or end, by way of ``on_event``."""

    event: str
    function: str
    is_async: bool
    line: int


@dataclass(frozen=True)
class Application(Place):
    """
    A FastAPI object.

    Attributes:
        factory: The function that makes it, with the classes around it; empty for an object of a
            module.
        lifespan: What it is given as ``lifespan=``; empty for nothing.
        target: What uvicorn is told, after the module; empty where that cannot be known.
        called: What is called to make it, as it is written there.
        is_mounted: Whether it is a part of another one, whose lifespan is the one that runs.
        handlers: What it calls at its start and end.
    """

    factory: str = ""
    lifespan: str = ""
    target: str = ""
    called: str = ""
    is_mounted: bool = False
    handlers: tuple[Handler, ...] = ()


def read_source(path: Path) -> str:
    """
    Return the text of a Python file, which says itself how it is encoded.

    Raises:
        ValueError: It is not what it says.
        SyntaxError: It says nothing that is known.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding).replace("\r\n", "\n")


def imported_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that imports bring, with what each of them stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def statement_at(source: str, line: int) -> ast.stmt:
    """Return the smallest statement of a module that has a line."""
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line)
    ]
    return min(found, key=lambda node: (node.end_lineno or node.lineno) - node.lineno)


def landmarks(path: Path, relative: str) -> Iterator[Place]:
    """Yield what stands out in a file; nothing where it is a template, or for another Python."""
    try:
        tree = ast.parse(read_source(path))
    except (SyntaxError, ValueError, OSError):
        return
    yield from _Reader(tree, relative).places()


class _Reader:
    def __init__(self, tree: ast.Module, path: str) -> None:
        self._tree = tree
        self._path = path
        self._names = dict(imported_names(tree))
        self._assigned = {
            id(node.value): ast.unparse(
                node.targets[0] if isinstance(node, ast.Assign) else node.target
            )
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        }
        self._around = dict(_around(tree))

    def places(self) -> Iterator[Place]:
        """Yield what stands out."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                called = self._called(node)
                if called == "FastAPI":
                    yield self._application(node)
                elif called in _DATABASE_CALLS:
                    name = self._assigned.get(id(node), called)
                    yield Place(_DATABASE_CALLS[called], name, self._path, node.lineno)
            elif isinstance(node, ast.ClassDef):
                bases = {self._last_name(base) for base in node.bases}
                if bases & _DATABASE_BASES:
                    yield Place("base of models", node.name, self._path, node.lineno)
                elif "BaseSettings" in bases:
                    yield Place("settings", node.name, self._path, node.lineno)

    def _application(self, call: ast.Call) -> Application:
        name = self._assigned.get(id(call), "FastAPI")
        around = self._around.get(id(call), ())
        lifespan = next((ast.unparse(k.value) for k in call.keywords if k.arg == "lifespan"), "")
        return Application(
            "FastAPI",
            name,
            self._path,
            call.lineno,
            factory=".".join(scope.name for scope in around),
            lifespan=lifespan,
            target=self._target(around) if around else name if name != "FastAPI" else "",
            called=ast.unparse(call.func),
            is_mounted=any(self._mounts(node, name) for node in ast.walk(self._tree)),
            handlers=() if lifespan else tuple(self._handlers(name)),
        )

    def _target(self, around: tuple[_Scope, ...]) -> str:
        """Return the object that a factory made for the module, or else the factory."""
        outermost = around[0]
        if isinstance(outermost, ast.ClassDef):
            return ""
        for statement in self._tree.body:
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Call) and ast.unparse(value.func) == outermost.name:
                return self._assigned[id(value)]
        needed = len(outermost.args.posonlyargs + outermost.args.args)
        if needed > len(outermost.args.defaults) or None in outermost.args.kw_defaults:
            return ""
        return f"{outermost.name} --factory"

    def _handlers(self, name: str) -> Iterator[Handler]:
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                if not isinstance(decorator, ast.Call) or len(decorator.args) != 1:
                    continue
                event = decorator.args[0]
                is_ours = ast.unparse(decorator.func) == f"{name}.on_event"
                if is_ours and isinstance(event, ast.Constant) and event.value in _EVENTS:
                    is_async = isinstance(node, ast.AsyncFunctionDef)
                    yield Handler(str(event.value), node.name, is_async, decorator.lineno)

    def _mounts(self, node: ast.AST, name: str) -> bool:
        if not isinstance(node, ast.Call) or self._called(node) not in {"mount", "Mount"}:
            return False
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        return any(ast.unparse(one) == name for one in given)

    def _called(self, call: ast.Call) -> str:
        return self._last_name(call.func)

    def _last_name(self, node: ast.expr) -> str:
        """Return the last part of a name, as it is called where it was imported from."""
        text = ast.unparse(node)
        return self._names.get(text, text).rpartition(".")[2]


_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _around(
    node: ast.AST, scopes: tuple[_Scope, ...] = ()
) -> Iterator[tuple[int, tuple[_Scope, ...]]]:
    """Yield calls with the classes and functions that they are in, the outermost one first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and scopes:
            yield id(child), scopes
        inner = (*scopes, child) if isinstance(child, _Scope) else scopes
        yield from _around(child, inner)
