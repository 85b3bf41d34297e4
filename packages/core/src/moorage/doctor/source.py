"""Mistakes that show in the source: calls that block the event loop, engines and sessions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from moorage.doctor.blocking import Blocking
from moorage.doctor.finding import Report
from moorage.doctor.module import Function, Module, calls_of, nodes_of, read_module
from moorage.doctor.tasks import shared_sessions
from moorage.scaffold.discovery import python_files

__all__ = ["check_source"]

Fault = tuple[str, str, int]

_ENGINES = frozenset({"sqlalchemy.ext.asyncio.create_async_engine"})
_DATABASES = frozenset({"moorage.Database"})
_FACTORIES = frozenset({"sqlalchemy.ext.asyncio.async_sessionmaker"})
# Functions that are called once in the life of a process.
_ONCE = frozenset({"lifespan", "main"})
_SESSIONS = frozenset({"sqlalchemy.ext.asyncio.AsyncSession", "sqlalchemy.orm.Session"})
_VERBS = frozenset({"delete", "get", "head", "options", "patch", "post", "put", "websocket"})
_ASYNC_SESSIONS = frozenset({"AsyncSession", "DBReadSession", "DBSession"})
_HINTS = ("session", "unit_of_work", "unitofwork", ".begin(", ".connect(")
_AWAITED = frozenset(
    [
        "commit",
        "exec",
        "execute",
        "flush",
        "merge",
        "refresh",
        "rollback",
        "run_sync",
        "scalar",
        "scalars",
        "stream",
    ]
)
# What a coroutine has itself.
_OF_COROUTINES = frozenset({"close", "send", "throw"})


def check_source(root: Path, report: Report) -> None:
    """Read every Python file of a project but its tests."""
    modules = []
    for path in python_files(root):
        try:
            modules.append(read_module(root, path))
        except SyntaxError as error:
            relative = path.relative_to(root).as_posix()
            report.add("P105", f"{error.msg}", relative, error.lineno or 1)
        except (ValueError, OSError):
            continue
    blocking = Blocking(modules)
    for module in modules:
        found = sorted(_Reader(module, blocking).faults(), key=lambda fault: fault[2])
        for code, what, line in found:
            report.add(code, what, module.path, line)


class _Reader:
    def __init__(self, module: Module, blocking: Blocking) -> None:
        self._module = module
        self._blocking = blocking
        self._dependencies = {
            ast.unparse(call.args[0])
            for call in ast.walk(module.tree)
            if isinstance(call, ast.Call) and call.args and self._called(call) == "fastapi.Depends"
        }
        # What asyncio.run is given is called once, whatever it is called.
        self._once = _ONCE | {
            ast.unparse(argument.func)
            for call in ast.walk(module.tree)
            if isinstance(call, ast.Call) and self._called(call).endswith("asyncio.run")
            for argument in call.args
            if isinstance(argument, ast.Call)
        }

    def faults(self) -> Iterator[Fault]:
        """Yield code, description and line of each mistake."""
        for _, value in self._module.assigned():
            for call in calls_of(value):
                if self._called(call) in _SESSIONS:
                    yield "A605", "a session is made when the module is imported", call.lineno
        for node in ast.walk(self._module.tree):
            if isinstance(node, ast.Call) and self._called(node) in _FACTORIES:
                given = {keyword.arg for keyword in node.keywords}
                if not given & {"expire_on_commit", None}:
                    yield "A609", "sessions expire what they have loaded at COMMIT", node.lineno
        for owner, function in self._module.functions():
            if isinstance(function, ast.AsyncFunctionDef):
                yield from self._in_coroutine(function, owner)
            yield from self._engines(function)

    def _in_coroutine(self, function: ast.AsyncFunctionDef, owner: str) -> Iterator[Fault]:
        where = f"in async def {function.name}"
        blocking = self._blocking.sessions_of(self._module, function)
        is_told = False
        sessions = self._sessions(function)
        for call in _calls(function):
            found = self._blocking.of_call(self._module, call, owner)
            if found is not None:
                yield found.code, f"{found} {where}", call.lineno
            elif self._blocking.waits(call, blocking) and not is_told:
                is_told = True  # once for each function: all of it has to change
                yield "A601", f"{ast.unparse(call.func)}() {where}", call.lineno
            elif ast.unparse(call.func).endswith(".add_task"):
                for name in sessions & {ast.unparse(one) for one in call.args[1:]}:
                    yield "A608", f"add_task() with {name} {where}", call.lineno
        likely = sessions | _unknown_sessions(function)
        for line, what in shared_sessions(function, likely, self._module):
            yield "A606", f"{what}, {where}", line
        for call in _unawaited(function, sessions):
            yield "A607", f"{ast.unparse(call.func)}() without await {where}", call.lineno

    def _engines(self, function: Function) -> Iterator[Fault]:
        """Yield engines that are made once for each call, or each request."""
        is_route = function.name in self._dependencies or any(
            isinstance(one, ast.Call)
            and isinstance(one.func, ast.Attribute)
            and one.func.attr in _VERBS
            for one in function.decorator_list
        )
        is_repeated = isinstance(function, ast.AsyncFunctionDef) and function.name not in self._once
        for call in _calls(function):
            called = self._called(call)
            if (called in _ENGINES and (is_repeated or is_route)) or (
                called in _DATABASES and is_route
            ):
                kind = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
                what = f"{ast.unparse(call.func)}() in {kind} {function.name}"
                yield "A604", what, call.lineno

    def _sessions(self, function: ast.AsyncFunctionDef) -> frozenset[str]:
        """Return what is a session in a coroutine, by its annotation or where it comes from."""
        names = set()
        arguments = function.args
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if one.annotation is not None:
                told = {ast.unparse(node).rpartition(".")[2] for node in ast.walk(one.annotation)}
                if told & _ASYNC_SESSIONS:
                    names.add(one.arg)
                elif "DBUnitOfWork" in told:
                    names.add(f"{one.arg}.session")
        for node in _nodes(function):
            for item in node.items if isinstance(node, ast.AsyncWith) else ():
                source = ast.unparse(item.context_expr).lower()
                is_one = any(hint in source for hint in _HINTS) and "client" not in source
                if is_one and isinstance(item.optional_vars, ast.Name):
                    names.add(item.optional_vars.id)
        return frozenset(names)

    def _called(self, call: ast.Call) -> str:
        return self._module.full_name(call.func)


def _nodes(function: Function) -> Iterator[ast.AST]:
    for statement in function.body:
        yield from nodes_of(statement)


def _calls(function: Function) -> Iterator[ast.Call]:
    return (node for node in _nodes(function) if isinstance(node, ast.Call))


def _unknown_sessions(function: Function) -> frozenset[str]:
    """Return names that mean a session, of which nothing says that they are something else."""
    arguments = function.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    known = {one.arg for one in every if one.annotation is not None}
    names = {node for node in _nodes(function) if isinstance(node, ast.Name)}
    known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    used = {node.id for node in names if node.id == "session" or node.id.endswith("_session")}
    called = {call.func.id for call in _calls(function) if isinstance(call.func, ast.Name)}
    return frozenset(used - known - called)


def _unawaited(function: ast.AsyncFunctionDef, sessions: frozenset[str]) -> Iterator[ast.Call]:
    """
    Yield calls of a session whose coroutine nobody can have awaited.

    One that is handed on, kept or returned may be awaited elsewhere.
    """
    used = {
        node.value.id
        for node in _nodes(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.attr not in _OF_COROUTINES
    }
    for node in _nodes(function):
        lost: ast.expr | None = None
        if isinstance(node, ast.Expr | ast.Attribute):
            lost = node.value
        elif isinstance(node, ast.For):
            lost = node.iter
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in used:
            lost = node.value
        if not isinstance(lost, ast.Call) or not isinstance(lost.func, ast.Attribute):
            continue
        if lost.func.attr in _AWAITED and ast.unparse(lost.func.value) in sessions:
            yield lost
