"""
What is there already: read from the files of a project, of which nothing is imported or executed.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moorage.errors import ScaffoldError

__all__ = ["Application", "Found", "Layout", "Place", "Tool", "discover", "python_files"]

Layout = Literal["package", "src", "flat", "none"]
Tool = Literal["uv", "poetry", "hatch", "pdm", "pip"]

_NOT_SOURCE = frozenset(
    [
        "alembic",
        "build",
        "dist",
        "docs",
        "examples",
        "migrations",
        "node_modules",
        "site-packages",
        "test",
        "tests",
        "venv",
        "__pycache__",
    ]
)
_NOT_PROGRAM = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py", "fabfile.py"})
_DATABASE_CALLS = {
    "create_engine": "engine (blocking)",
    "create_async_engine": "engine",
    "sessionmaker": "sessions (blocking)",
    "async_sessionmaker": "sessions",
    "declarative_base": "base of models",
}
_DATABASE_BASES = frozenset({"DeclarativeBase", "DeclarativeBaseNoMeta"})
_MOST_FILES = 5000


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
class Application(Place):
    """
    A FastAPI object.

    Attributes:
        factory: The function that makes it; empty for an object of a module.
        lifespan: What it is given as ``lifespan=``; empty for nothing.
    """

    factory: str = ""
    lifespan: str = ""


@dataclass(frozen=True)
class Found:
    """
    A project as it is.

    Attributes:
        root: Its folder.
        layout: Where its source is: a package, ``src/`` with one, modules in the root, or nothing.
        package: The name of that package.
        tool: What manages its dependencies.
        dependency_file: Where they are listed; empty if nowhere.
        applications: FastAPI objects.
        database_code: SQLAlchemy's engines, session factories and bases.
        settings: Classes of settings.
        alembic: Its ``alembic.ini``; empty for none.
        env_variables: Names of the variables in ``.env``; ``None`` without such a file.
        files: Other files that matter and are there.
        members: Projects below this folder, each with a ``pyproject.toml`` of its own.
        uses_fastapi: Whether it has an application, or lists FastAPI as a dependency.
        has_pytest_settings: Whether pytest has settings.
    """

    root: Path
    layout: Layout = "none"
    package: str = ""
    tool: Tool = "pip"
    dependency_file: str = ""
    applications: tuple[Application, ...] = ()
    database_code: tuple[Place, ...] = ()
    settings: tuple[Place, ...] = ()
    alembic: str = ""
    env_variables: tuple[str, ...] | None = None
    files: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    uses_fastapi: bool = False
    has_pytest_settings: bool = False

    def summary(self) -> list[str]:
        """Return what was found, a line for each thing."""
        layouts = {
            "package": f"the package {self.package}/",
            "src": f"the package src/{self.package}/",
            "flat": "modules in the project's folder",
            "none": "none yet",
        }
        lines = [f"source: {layouts[self.layout]}"]
        where = f"{self.dependency_file}, {self.tool}" if self.dependency_file else "none yet"
        lines.append(f"dependencies: {where}")
        for application in self.applications:
            how = f"made by {application.factory}()" if application.factory else "an object"
            lifespan = f", lifespan {application.lifespan}" if application.lifespan else ""
            place = f"{application.path}:{application.line}"
            lines.append(f"FastAPI: {application.name} in {place}, {how}{lifespan}")
        lines += [f"settings: {place}" for place in self.settings]
        lines += [f"database code: {place}" for place in self.database_code]
        if self.alembic:
            lines.append(f"migrations: {self.alembic}")
        if self.env_variables is not None:
            lines.append(f"variables in .env: {', '.join(self.env_variables) or 'none'}")
        lines += [f"project below: {member}" for member in self.members]
        return lines


def discover(root: Path, ours: frozenset[str] = frozenset()) -> Found:
    """
    Look at a project.

    Args:
        root: Its folder.
        ours: Paths below it that were written by ``moorage init``, and say nothing of the rest.

    Raises:
        ScaffoldError: It is no folder, or its ``pyproject.toml`` is no TOML.
    """
    if not root.is_dir():
        raise ScaffoldError(f"{root} is no folder", hint="make it first, or correct --project")
    project = _pyproject(root)
    applications: list[Application] = []
    database_code: list[Place] = []
    settings: list[Place] = []
    for path in python_files(root):
        relative = path.relative_to(root).as_posix()
        if relative in ours:
            continue
        for place in _look_at(path, relative):
            if isinstance(place, Application):
                applications.append(place)
            elif place.kind == "settings":
                settings.append(place)
            else:
                database_code.append(place)
    layout, package = _layout(root, applications, ours)
    tool, dependency_file = _dependencies(root, project)
    there = ("README.md", ".gitignore", "compose.yaml", "compose.yml", "docker-compose.yml")
    return Found(
        root=root,
        layout=layout,
        package=package,
        tool=tool,
        dependency_file=dependency_file,
        applications=tuple(applications),
        database_code=tuple(database_code),
        settings=tuple(settings),
        alembic="alembic.ini" if (root / "alembic.ini").is_file() else "",
        env_variables=_variables(root / ".env"),
        files=tuple(name for name in (*there, "docker-compose.yaml") if (root / name).exists()),
        members=tuple(_members(root)),
        uses_fastapi=bool(applications) or _mentions_fastapi(root, project, dependency_file),
        has_pytest_settings="pytest" in project.get("tool", {})
        or any((root / name).exists() for name in ("pytest.ini", "tox.ini", "setup.cfg")),
    )


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a project, without tests, environments and hidden folders."""
    left = _MOST_FILES
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_SOURCE
            and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_") and left > 0:
                left -= 1
                yield here / name


def _look_at(path: Path, relative: str) -> Iterator[Place]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a template, or a file for another Python
    factories = {
        id(inner): function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    assigned = {
        id(node.value): ast.unparse(
            node.targets[0] if isinstance(node, ast.Assign) else node.target
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            name = assigned.get(id(node), called)
            if called == "FastAPI":
                lifespan = next(
                    (ast.unparse(k.value) for k in node.keywords if k.arg == "lifespan"), ""
                )
                yield Application(
                    "FastAPI", name, relative, node.lineno, factories.get(id(node), ""), lifespan
                )
            elif called in _DATABASE_CALLS:
                yield Place(_DATABASE_CALLS[called], name, relative, node.lineno)
        elif isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & _DATABASE_BASES:
                yield Place("base of models", node.name, relative, node.lineno)
            elif "BaseSettings" in bases:
                yield Place("settings", node.name, relative, node.lineno)


def _layout(
    root: Path, applications: list[Application], ours: frozenset[str]
) -> tuple[Layout, str]:
    def packages(folder: Path) -> list[str]:
        return [
            entry.name
            for entry in sorted(folder.iterdir())
            if entry.is_dir()
            and entry.name.isidentifier()
            and entry.name not in _NOT_SOURCE
            and not (entry / "pyvenv.cfg").exists()
            and (
                (entry / "__init__.py").exists()
                or (entry.name == "app" and any(entry.glob("*.py")))
            )
        ]

    def best(names: list[str], prefix: str) -> str:
        serving = [a.path.removeprefix(prefix).partition("/")[0] for a in applications]
        return next((name for name in names if name in serving), names[0])

    if (root / "src").is_dir() and (inside := packages(root / "src")):
        return "src", best(inside, "src/")
    beside = packages(root)
    modules = [
        entry.name
        for entry in root.glob("*.py")
        if entry.name not in _NOT_PROGRAM and entry.name not in ours
    ]
    is_served_flat = any("/" not in application.path for application in applications)
    if "app" in beside and not is_served_flat:
        return "package", "app"
    if beside and not is_served_flat:
        return "package", best(beside, "")
    return ("flat", "") if modules else ("none", "")


def _pyproject(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScaffoldError(
            f"{path} cannot be read: {error}", hint="correct the file first; nothing was changed"
        ) from error


def _dependencies(root: Path, project: dict[str, Any]) -> tuple[Tool, str]:
    tools = project.get("tool", {})
    backend = str(project.get("build-system", {}).get("build-backend", ""))
    tool: Tool = "pip"
    if "poetry" in tools or "poetry" in backend or (root / "poetry.lock").exists():
        tool = "poetry"
    elif "pdm" in tools or (root / "pdm.lock").exists():
        tool = "pdm"
    elif "uv" in tools or (root / "uv.lock").exists():
        tool = "uv"
    elif "envs" in tools.get("hatch", {}):
        tool = "hatch"
    if "project" in project or "dependencies" in tools.get("poetry", {}):
        return tool, "pyproject.toml"
    if (root / "requirements.txt").is_file():
        return "pip", "requirements.txt"
    return tool, "pyproject.toml" if project and tool != "pip" else ""


def _mentions_fastapi(root: Path, project: dict[str, Any], dependency_file: str) -> bool:
    if dependency_file == "requirements.txt":
        text = (root / dependency_file).read_text(encoding="utf-8", errors="replace")
    else:
        poetry = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
        text = "\n".join([*project.get("project", {}).get("dependencies", ()), *poetry])
    return re.search(r"^\s*fastapi\b", text, re.MULTILINE | re.IGNORECASE) is not None


def _variables(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    return tuple(re.findall(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", text, re.MULTILINE))


def _members(root: Path) -> Iterator[str]:
    for pattern in ("*/pyproject.toml", "*/*/pyproject.toml"):
        for path in sorted(root.glob(pattern)):
            parts = path.relative_to(root).parts[:-1]
            if not any(part.startswith(".") or part in _NOT_SOURCE for part in parts):
                yield "/".join(parts)
