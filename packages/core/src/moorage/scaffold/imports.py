"""
The imports of a rendered module, in the order that ruff and isort give them.

Templates need not know which names a condition brings, nor whether a module is somebody else's or
the project's own.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

__all__ = ["arrange_imports"]

_LINE_LENGTH = 88
Move = Callable[[str, str], str]


@dataclass(frozen=True)
class _Import:
    """A line of imports: ``import module as name``, or names from a module."""

    module: str
    names: tuple[str, ...] = ()
    alias: str = ""
    comment: str = ""

    def __str__(self) -> str:
        return f"{self._statement()}{self.comment}"

    def _statement(self) -> str:
        if not self.names:
            return f"import {self.module}{f' as {self.alias}' if self.alias else ''}"
        if self.alias:
            return f"from {self.module} import {self.names[0]} as {self.alias}"
        names = sorted(self.names, key=_name_order)
        line = f"from {self.module} import {', '.join(names)}"
        if len(line) <= _LINE_LENGTH:
            return line
        return "\n".join([f"from {self.module} import (", *(f"    {n}," for n in names), ")"])

    @property
    def order(self) -> tuple[bool, str, bool, str]:
        return bool(self.names), self.module.lower(), bool(self.alias), self.alias.lower()


def arrange_imports(
    source: str, ours: Collection[str], folders: Collection[str] = (), homes: Move | None = None
) -> str:
    """
    Return a module with its imports in order.

    Args:
        source: The module; between imports that follow one another stands no comment.
        ours: Top-level names of the project's own packages and modules.
        folders: Names of folders of the project beside them. Their bare name is found there,
            whatever somebody else's package of that name holds.
        homes: Says in which module a name of a module is to be found.
    """
    lines = source.splitlines(keepends=True)
    for run in reversed(list(_runs(ast.parse(source).body))):
        merged: dict[tuple[str, str], _Import] = {}
        for one in (one for node in run for one in _read(node, lines, homes)):
            key = one.module, "" if one.names and not one.alias else f"{one.names} as {one.alias}"
            names = {*one.names, *(merged[key].names if key in merged else ())}
            merged[key] = _Import(one.module, tuple(names), one.alias, one.comment)
        sections: list[list[_Import]] = [[], [], []]
        for one in merged.values():
            is_own = one.module.partition(".")[0] in ours or one.module in folders
            sections[2 if is_own else _section(one.module)].append(one)
        text = "\n\n".join(
            "\n".join(str(one) for one in sorted(section, key=lambda one: one.order))
            for section in sections
            if section
        )
        lines[run[0].lineno - 1 : run[-1].end_lineno] = [f"{text}\n"]
    return "".join(lines)


def _runs(body: list[ast.stmt]) -> Iterator[list[ast.Import | ast.ImportFrom]]:
    """Yield the imports that follow one another."""
    run: list[ast.Import | ast.ImportFrom] = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            run.append(node)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _read(
    node: ast.Import | ast.ImportFrom, lines: list[str], homes: Move | None
) -> Iterator[_Import]:
    comment = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].rstrip()
    if isinstance(node, ast.Import):
        for alias in node.names:
            module = homes(alias.name, "") if homes else alias.name
            yield _Import(module, (), alias.asname or "", comment)
    else:
        module = node.module or ""
        for alias in node.names:
            home = homes(module, alias.name) if homes else module
            yield _Import(home, (alias.name,), alias.asname or "", comment)


def _section(module: str) -> int:
    return int(module.partition(".")[0] not in sys.stdlib_module_names)


def _name_order(name: str) -> tuple[int, str]:
    """Return the place of a name: constants, classes, and the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1, name.lower()) if name[:1].isupper() else (2, name.lower())
