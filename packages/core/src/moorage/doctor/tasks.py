"""Sessions that several tasks would use at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from moorage.doctor.module import Module

__all__ = ["shared_sessions"]

_GATHER = frozenset({"asyncio.gather", "asyncio.wait"})
_STARTS = frozenset({"create_task", "start_soon", "ensure_future"})
_LOOPS = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.GeneratorExp | ast.SetComp


def shared_sessions(
    function: ast.AsyncFunctionDef, sessions: frozenset[str], module: Module
) -> Iterator[tuple[int, str]]:
    """
    Yield lines where one session goes to several tasks, and what happens there.

    Args:
        function: A coroutine.
        sessions: What is known to be a session in it.
        module: Where it is.
    """
    started: list[tuple[str, int, str]] = []
    for call, is_repeated in _calls(function, is_repeated=False):
        called = module.full_name(call.func)
        method = called.rpartition(".")[2]
        if called in _GATHER:
            name = _in_several(call, sessions)
            if name:
                yield call.lineno, f"{called}() with {name} in several tasks"
        elif method in _STARTS:
            for name in sorted(_sessions_in(call, sessions)):
                if is_repeated:
                    yield call.lineno, f"{ast.unparse(call.func)}() with {name} in several tasks"
                started.append((name, call.lineno, ast.unparse(call.func)))
    told = set()
    for index, (name, line, func) in enumerate(started):
        if name in {other for other, *_ in started[:index]} and name not in told:
            told.add(name)
            yield line, f"{func}() with {name} in several tasks"


def _in_several(call: ast.Call, sessions: frozenset[str]) -> str:
    """Return the session that two of the tasks of a gather would use, if there is one."""
    used: list[str] = []
    for argument in call.args:
        names = sorted(_sessions_in(argument, sessions))
        used += names
        if names and isinstance(argument, ast.Starred):
            return names[0]
    return next((name for name in used if used.count(name) > 1), "")


def _sessions_in(node: ast.AST, sessions: frozenset[str]) -> set[str]:
    names = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    bound = {one.id for one in names if isinstance(one.ctx, ast.Store)}
    return {one.id for one in names if one.id in sessions} - bound


def _calls(node: ast.AST, *, is_repeated: bool) -> Iterator[tuple[ast.Call, bool]]:
    """Yield the calls of a coroutine, and whether they are made again and again."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        again = is_repeated or isinstance(child, _LOOPS)
        if isinstance(child, ast.Call):
            yield child, is_repeated
        # A session that a loop opens itself is another one each time.
        opens = isinstance(child, ast.AsyncWith) and is_repeated
        yield from _calls(child, is_repeated=again and not opens)
