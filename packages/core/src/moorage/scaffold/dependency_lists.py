"""Where a project lists its dependencies, and which tool reads them there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["DependencyList", "Tool", "find_dependency_list"]

Tool = Literal["uv", "poetry", "hatch", "pdm", "pip"]

_BASES = ("base.txt", "main.txt", "requirements.txt", "prod.txt", "production.txt", "common.txt")
_DEVELOPMENT = ("dev.txt", "development.txt", "local.txt", "test.txt", "tests.txt")
_EXTRAS = ("dev", "test", "tests")
# Files that somebody else's program would have to edit.
_FOREIGN = ("requirements.in", "setup.cfg", "setup.py", "Pipfile", "environment.yml")


@dataclass(frozen=True)
class DependencyList:
    """
    The list of a project's dependencies.

    Attributes:
        tool: What manages them.
        path: Where they are; empty for nowhere.
        development: Where those of its tests are, for a list that is a plain file.
        extra: The extra that they are in, for a project of pip's that has one.
        is_edited: Whether what is lacking can be added; else it is only said.
    """

    tool: Tool = "pip"
    path: str = ""
    development: str = ""
    extra: str = ""
    is_edited: bool = True

    @property
    def is_plain(self) -> bool:
        """Return whether it is a requirements file."""
        return self.path.endswith(".txt")


def find_dependency_list(root: Path, project: dict[str, Any]) -> DependencyList:
    """
    Return where the dependencies of a project are.

    Args:
        root: Its folder.
        project: Its ``pyproject.toml``.
    """
    tool = _tool(root, project)
    table = project.get("project", {})
    is_poetry = "dependencies" in project.get("tool", {}).get("poetry", {})
    if "dependencies" in table.get("dynamic", ()) and not is_poetry:
        listed = next((name for name in _dynamic(project) if (root / name).is_file()), "")
        if listed:
            return _plain(root, listed)
        return DependencyList(tool, "pyproject.toml", is_edited=False)
    if table or is_poetry:
        extras = table.get("optional-dependencies", {}) if tool == "pip" else {}
        groups = project.get("dependency-groups", {})
        extra = next((name for name in _EXTRAS if name in extras and not groups), "")
        return DependencyList(tool, "pyproject.toml", extra=extra)
    if (root / "requirements.in").is_file():
        return DependencyList("pip", "requirements.in", is_edited=False)
    if (root / "requirements.txt").is_file():
        return _plain(root, "requirements.txt")
    for name in _BASES:
        if (root / "requirements" / name).is_file():
            return _plain(root, f"requirements/{name}")
    if project and tool != "pip":
        return DependencyList(tool, "pyproject.toml")
    for name in _FOREIGN:
        if _lists_dependencies(root / name):
            return DependencyList("pip", name, is_edited=False)
    return DependencyList(tool)


def _tool(root: Path, project: dict[str, Any]) -> Tool:
    tools = project.get("tool", {})
    backend = str(project.get("build-system", {}).get("build-backend", ""))
    if "poetry" in tools or "poetry" in backend or (root / "poetry.lock").exists():
        return "poetry"
    if "pdm" in tools or (root / "pdm.lock").exists():
        return "pdm"
    if "uv" in tools or (root / "uv.lock").exists():
        return "uv"
    return "hatch" if "envs" in tools.get("hatch", {}) else "pip"


def _dynamic(project: dict[str, Any]) -> Iterator[str]:
    """Yield the files from which setuptools takes the dependencies."""
    dynamic = project.get("tool", {}).get("setuptools", {}).get("dynamic", {})
    files = dynamic.get("dependencies", {}).get("file", ())
    yield from [files] if isinstance(files, str) else files


def _plain(root: Path, path: str) -> DependencyList:
    folder, slash, name = path.rpartition("/")
    stem = name.removesuffix(".txt")
    beside = _DEVELOPMENT if folder else (f"{stem}-dev.txt", f"{stem}_dev.txt", f"dev-{name}")
    there = (one for one in beside if (root / folder / one).is_file())
    development = f"{folder}{slash}{next(there, beside[0])}"
    # Where each line has a hash, another program wrote them, and pip refuses one without.
    has_hashes = b"--hash=" in (root / path).read_bytes()
    return DependencyList("pip", path, development, is_edited=not has_hashes)


def _lists_dependencies(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix not in {".cfg", ".py"}:
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.search(r"\b(?:install_requires|setup)\b", text) is not None
