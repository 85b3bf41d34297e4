"""Which functions and objects of a project block the event loop, also through one another."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from moorage.doctor.module import Function, Module, calls_of

__all__ = ["Block", "Blocking", "table"]

_SESSIONS = frozenset({"sqlalchemy.orm.Session", "sqlmodel.Session"})
_FACTORIES = frozenset({"sqlalchemy.orm.sessionmaker", "sqlalchemy.orm.scoped_session"})
_ENGINES = frozenset({"sqlalchemy.create_engine", "sqlmodel.create_engine"})
_CONNECTS = frozenset({"connect", "begin"})
_WAITS = frozenset(
    [
        "begin",
        "commit",
        "exec",
        "execute",
        "flush",
        "get",
        "merge",
        "query",
        "refresh",
        "rollback",
        "scalar",
        "scalars",
    ]
)


@dataclass(frozen=True)
class Block:
    """
    A call that blocks.

    Attributes:
        code: The code of the finding.
        called: What is called.
        end: What that calls in the end, and where; empty for what blocks itself.
    """

    code: str
    called: str
    end: str = ""

    def __str__(self) -> str:
        return f"{self.called}, which calls {self.end}," if self.end else self.called


def table() -> dict[str, Any]:
    """Return what is known of other libraries."""
    source = files("moorage.doctor") / "blocking.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


class Blocking:
    """What blocks in a project."""

    def __init__(self, modules: Sequence[Module]) -> None:
        known = table()
        self._calls = dict.fromkeys((*known["drivers"], *_SESSIONS), "A601")
        self._calls |= dict.fromkeys(known["http"], "A603")
        self._calls["time.sleep"] = "A602"
        self._engines: set[str] = set()
        self._annotations = set(_SESSIONS)
        self._functions: dict[str, Block] = {}
        for module in modules:
            self._note_objects(module)
        for module in modules:
            self._note_annotations(module)
        self._note_functions(modules)

    def of_call(self, module: Module, call: ast.Call, owner: str = "") -> Block | None:
        """Return how a call blocks, if it does."""
        full = module.full_name(call.func, owner)
        if full in self._calls:
            shown = ast.unparse(call.func) if self._calls[full] == "A601" else full
            return Block(self._calls[full], f"{shown}()")
        before, _, method = full.rpartition(".")
        if before in self._engines and method in _CONNECTS:
            return Block("A601", f"{ast.unparse(call.func)}()")
        if full in self._functions:
            found = self._functions[full]
            return Block(found.code, f"{ast.unparse(call.func)}()", found.end)
        return None

    def sessions_of(self, module: Module, function: Function) -> frozenset[str]:
        """Return the parameters of a function that are blocking sessions."""
        arguments = function.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        return frozenset(
            one.arg
            for one in every
            if one.annotation is not None and self._is_session(module, one.annotation)
        )

    def waits(self, call: ast.Call, sessions: frozenset[str]) -> bool:
        """Return whether a call is one that such a session waits in."""
        func = call.func
        is_method = isinstance(func, ast.Attribute) and func.attr in _WAITS
        return is_method and ast.unparse(func).rpartition(".")[0] in sessions

    def _is_session(self, module: Module, annotation: ast.expr) -> bool:
        return any(
            module.full_name(node) in self._annotations
            for node in ast.walk(annotation)
            if isinstance(node, ast.Name | ast.Attribute)
        )

    def _note_objects(self, module: Module) -> None:
        for name, value in module.assigned():
            if isinstance(value, ast.Call):
                made_by = module.full_name(value.func)
                if made_by in _FACTORIES:
                    self._calls[name] = "A601"
                elif made_by in _ENGINES:
                    self._engines.add(name)

    def _note_annotations(self, module: Module) -> None:
        for name, value in module.assigned():
            if isinstance(value, ast.Subscript) and self._is_session(module, value):
                self._annotations.add(name)

    def _note_functions(self, modules: Sequence[Module]) -> None:
        """Note functions that block, and those that call them, until there are no more."""
        left = {
            ".".join(filter(None, (module.name, owner, function.name))): (
                module,
                owner,
                [call for line in function.body for call in calls_of(line)],
            )
            for module in modules
            for owner, function in _plain_functions(module)
        }
        while found := {name: block for name, one in left.items() if (block := self._first(*one))}:
            self._functions |= found
            left = {name: one for name, one in left.items() if name not in found}

    def _first(self, module: Module, owner: str, calls: Sequence[ast.Call]) -> Block | None:
        """Return the first of some calls that blocks, and what it calls in the end."""
        for call in calls:
            block = self.of_call(module, call, owner)
            if block is not None:
                end = block.end or f"{block.called} ({module.path}:{call.lineno})"
                return Block(block.code, block.called, end)
        return None


def _plain_functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Yield functions that run where they are called, as generators do not."""
    for owner, function in module.functions():
        if not isinstance(function, ast.FunctionDef):
            continue
        decorators = {module.full_name(one) for one in function.decorator_list}
        yields = any(isinstance(one, ast.Yield | ast.YieldFrom) for one in ast.walk(function))
        if not yields or "contextlib.contextmanager" in decorators:
            yield owner, function
