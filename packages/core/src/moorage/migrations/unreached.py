"""
Models in the project's files that no import reaches.

Autogenerate sees what was imported, and nothing else: a model in a file that nobody imports gets no
table, without a word. The files are read, not imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["UnreachedModel", "unreached_models"]

_NOT_SOURCE = frozenset({"node_modules", "site-packages", "build", "dist", "tests", "test"})


@dataclass(frozen=True)
class UnreachedModel:
    """
    A model that looks like one, in a file that was not imported.

    Attributes:
        path: Its file, relative to the project.
        line: Where the class begins.
        name: The class.
        table: Its table.
    """

    path: str
    line: int
    name: str
    table: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} (table {self.table}) is not imported"


def unreached_models(project: Path, tables: Iterable[str]) -> list[UnreachedModel]:
    """
    Return the models below a folder that were not imported and have no table in the catalogue.

    Args:
        project: The folder; virtual environments, tests and hidden folders in it are left out.
        tables: Names of the tables that are known.
    """
    known = set(tables)
    imported = {
        Path(file).resolve()
        for module in tuple(sys.modules.values())
        if (file := getattr(module, "__file__", None))
    }
    found = []
    for path in _source_files(project):
        if path.resolve() in imported:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # a template, or no file of ours
        for line, name, table in _models(tree):
            if table not in known:
                place = str(path.relative_to(project))
                found.append(UnreachedModel(place, line, name, table))
    return found


def _source_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            skipped = entry.name.startswith(".") or entry.name in _NOT_SOURCE
            if not skipped and not (entry / "pyvenv.cfg").exists():
                yield from _source_files(entry)
        elif entry.suffix == ".py" and not entry.name.startswith("test_"):
            yield entry


def _models(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        keywords = {word.arg: word.value for word in node.keywords}
        is_table = isinstance(flag := keywords.get("table"), ast.Constant) and flag.value is True
        table = _table_name(node) or (node.name.lower() if is_table else None)
        if table is not None:
            yield node.lineno, node.name, table


def _table_name(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        value = getattr(statement, "value", None)
        if "__tablename__" in names and isinstance(value, ast.Constant):
            return str(value.value)
    return None
