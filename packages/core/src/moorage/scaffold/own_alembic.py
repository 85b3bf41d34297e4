"""The Alembic that a project has already: its settings, its folder, and its heads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OwnAlembic", "find_alembic"]

_SETTINGS = "alembic.ini"


@dataclass(frozen=True)
class OwnAlembic:
    """
    Alembic, as it is set up.

    Attributes:
        settings: The file with its settings.
        folder: Where its ``env.py`` is, below the project; empty where that is not said.
        heads: The revisions that no other one follows.
    """

    settings: str
    folder: str = ""
    heads: tuple[str, ...] = ()

    @property
    def is_called_by_ours(self) -> bool:
        """Return whether our commands read its settings."""
        return self.settings == _SETTINGS

    def __str__(self) -> str:
        several = f", {len(self.heads)} heads: {', '.join(self.heads)}"
        where = f", {self.folder}/" if self.folder else ""
        return f"{self.settings}{where}{several if len(self.heads) > 1 else ''}"


def find_alembic(root: Path, project: dict[str, Any]) -> OwnAlembic | None:
    """
    Return the Alembic of a project, if it has one.

    Args:
        root: Its folder.
        project: Its ``pyproject.toml``.
    """
    table = project.get("tool", {}).get("alembic")
    if isinstance(table, dict):
        settings, location = "pyproject.toml", str(table.get("script_location", ""))
    elif (root / _SETTINGS).is_file():
        settings, location = _SETTINGS, _script_location(root / _SETTINGS)
    else:
        return None
    folder = re.sub(r"%+\(here\)s/?", "", location).strip("/").removeprefix("./")
    if not (root / folder / "env.py").is_file():
        return OwnAlembic(settings)
    return OwnAlembic(settings, folder, _heads(root / folder / "versions"))


def _script_location(path: Path) -> str:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigError, UnicodeDecodeError):
        return ""
    return parser.get("alembic", "script_location", fallback="")


def _heads(folder: Path) -> tuple[str, ...]:
    revisions = dict(filter(None, map(_revision, sorted(folder.glob("*.py")))))
    followed = {before for befores in revisions.values() for before in befores}
    return tuple(name for name in revisions if name not in followed)


def _revision(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return the name of a revision, and those that it comes after."""
    try:
        values = dict(_constants(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, OSError):
        return None
    name, before = values.get("revision"), values.get("down_revision")
    if not isinstance(name, str):
        return None
    return name, (before,) if isinstance(before, str) else tuple(before or ())


def _constants(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) in {"revision", "down_revision"}:
                yield ast.unparse(target), ast.literal_eval(node.value)
