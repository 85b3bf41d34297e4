"""A module of a project, and what its names stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moorage.scaffold.landmarks import imported_names, read_source

__all__ = ["Function", "Module", "calls_of", "nodes_of", "read_module"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


@dataclass(frozen=True)
class Module:
    """
    A file of source.

    Attributes:
        path: Below the project.
        name: As it is imported.
        tree: What it says.
        names: What its names stand for, with the module that they come from.
    """

    path: str
    name: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Yield each function, with the class that it is a method of; empty for none."""
        for node in ast.walk(self.tree):
            owner = node.name if isinstance(node, ast.ClassDef) else ""
            for child in ast.iter_child_nodes(node):
                if isinstance(child, Function):
                    yield owner, child

    def full_name(self, node: ast.expr, owner: str = "") -> str:
        """
        Return the name of something, with its module, as far as the imports tell.

        Args:
            node: How it is written.
            owner: The class, inside of a method.
        """
        head, _, rest = _written(node).partition(".")
        if owner and head == "self":
            return f"{self.name}.{owner}.{rest}"
        full = self.names.get(head, head)
        return f"{full}.{rest}" if rest else full

    def assigned(self) -> Iterator[tuple[str, ast.expr]]:
        """Yield what the module assigns when it is imported, by full name."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                yield f"{self.name}.{ast.unparse(target)}", node.value


def read_module(root: Path, path: Path) -> Module:
    """
    Return the module in a file.

    Raises:
        SyntaxError: It is no Python.
        ValueError: It cannot be decoded.
        OSError: It cannot be read.
    """
    relative = path.relative_to(root).as_posix()
    try:
        tree = ast.parse(read_source(path))
    except UnicodeDecodeError as error:
        raise ValueError(str(error)) from error
    name = relative.removeprefix("src/").removesuffix(".py").replace("/", ".")
    package = name.removesuffix(".__init__") if name.endswith("__init__") else ""
    name = package or name
    names = {
        node.name: f"{name}.{node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    module = Module(relative, name, tree, names)
    names.update((full.rpartition(".")[2], full) for full, _ in module.assigned())
    names.update(imported_names(tree))
    names.update(_imported_beside(tree, name, is_package=bool(package)))
    return module


def _written(node: ast.expr) -> str:
    """Return how a name is written; what is no plain name takes longer."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_written(node.value)}.{node.attr}"
    return ast.unparse(node)


def nodes_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a statement is made of, without functions and classes inside of it."""
    if not isinstance(node, _Scope):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from nodes_of(child)


def calls_of(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that a statement makes itself, not those of functions inside of it."""
    return (one for one in nodes_of(node) if isinstance(one, ast.Call))


def _imported_beside(tree: ast.Module, name: str, *, is_package: bool) -> Iterator[tuple[str, str]]:
    """Yield what relative imports bring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = name.split(".")
            above = parts[: len(parts) - node.level + is_package]
            for alias in node.names:
                full = ".".join(filter(None, [*above, node.module, alias.name]))
                yield alias.asname or alias.name, full
