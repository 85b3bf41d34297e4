"""
What is there already: read from the files of a project, of which nothing is imported or executed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values

from moorage.errors import ScaffoldError
from moorage.scaffold.dependency_lists import DependencyList, find_dependency_list
from moorage.scaffold.landmarks import Application, Place, landmarks
from moorage.scaffold.own_alembic import OwnAlembic, find_alembic

__all__ = ["Found", "Layout", "discover", "modules_of", "python_files"]

Layout = Literal["package", "src", "flat", "none"]

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
_MOST_FILES = 5000


@dataclass(frozen=True)
class Found:
    """
    A project as it is.

    Attributes:
        root: Its folder.
        layout: Where its source is: a package, ``src/`` with one, modules in the root, or nothing.
        package: The name of that package.
        dependencies: Where its dependencies are listed, and what manages them.
        applications: FastAPI objects.
        database_code: SQLAlchemy's engines, session factories and bases.
        settings: Classes of settings.
        alembic: Its Alembic.
        python: The line that says for which Pythons it is; empty for no such line.
        env_variables: Names of the variables in ``.env``; ``None`` without such a file.
        files: Other files that matter and are there.
        members: Projects below this folder, each with a ``pyproject.toml`` of its own.
        uses_fastapi: Whether it has an application, or lists FastAPI as a dependency.
        has_pytest_settings: Whether pytest has settings.
    """

    root: Path
    layout: Layout = "none"
    package: str = ""
    dependencies: DependencyList = field(default_factory=DependencyList)
    applications: tuple[Application, ...] = ()
    database_code: tuple[Place, ...] = ()
    settings: tuple[Place, ...] = ()
    alembic: OwnAlembic | None = None
    python: str = ""
    env_variables: tuple[str, ...] | None = None
    files: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    uses_fastapi: bool = False
    has_pytest_settings: bool = False

    def summary(self) -> list[str]:
        """Return what was found, a line for each thing."""
        folder = self.package.replace(".", "/")
        layouts = {
            "package": f"the package {folder}/",
            "src": f"the package src/{folder}/" if folder else "modules in src/",
            "flat": "modules in the project's folder",
            "none": "none yet",
        }
        lines = [f"source: {layouts[self.layout]}"]
        listed = self.dependencies
        lines.append(
            f"dependencies: {f'{listed.path}, {listed.tool}' if listed.path else 'none yet'}"
        )
        for application in self.applications:
            how = f"made by {application.factory}()" if application.factory else "an object"
            how += ", mounted in another one" if application.is_mounted else ""
            how += f", lifespan {application.lifespan}" if application.lifespan else ""
            how += "".join(f", {one.event} {one.function}()" for one in application.handlers)
            place = f"{application.path}:{application.line}"
            lines.append(f"FastAPI: {application.name} in {place}, {how}")
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
        for place in landmarks(path, relative):
            if isinstance(place, Application):
                applications.append(place)
            elif place.kind == "settings":
                settings.append(place)
            else:
                database_code.append(place)
    layout, package = _layout(root, applications, ours)
    listed = find_dependency_list(root, project)
    there = ("README.md", ".gitignore", "compose.yaml", "compose.yml", "docker-compose.yml")
    return Found(
        root=root,
        layout=layout,
        package=package,
        dependencies=listed,
        applications=tuple(applications),
        database_code=tuple(database_code),
        settings=tuple(settings),
        alembic=find_alembic(root, project),
        python=_python(project),
        env_variables=_variables(root / ".env"),
        files=tuple(name for name in (*there, "docker-compose.yaml") if (root / name).exists()),
        members=tuple(_members(root)),
        uses_fastapi=bool(applications) or _mentions_fastapi(root, project, listed),
        has_pytest_settings="pytest" in project.get("tool", {})
        or any((root / name).exists() for name in ("pytest.ini", "tox.ini", "setup.cfg")),
    )


def modules_of(folder: Path) -> list[str]:
    """Return the modules that stand in a folder and belong to the program."""
    return sorted(path.stem for path in folder.glob("*.py") if path.name not in _NOT_PROGRAM)


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


def _layout(
    root: Path, applications: list[Application], ours: frozenset[str]
) -> tuple[Layout, str]:
    def best(names: list[str], prefix: str) -> str:
        serving = [one.path.removeprefix(prefix) for one in applications]
        for name in names:
            folder = f"{name.replace('.', '/')}/"
            if any(path.startswith(folder) for path in serving):
                return name
        return names[0]

    source = root / "src"
    if source.is_dir():
        if inside := [*_packages(source), *_packages_of_namespaces(source)]:
            return "src", best(inside, "src/")
        if any(source.glob("*.py")):
            return "src", ""
    beside = _packages(root)
    modules = [name for name in modules_of(root) if f"{name}.py" not in ours]
    is_served_flat = any("/" not in application.path for application in applications)
    if "app" in beside and not is_served_flat:
        return "package", "app"
    if beside and not is_served_flat:
        return "package", best(beside, "")
    return ("flat", "") if modules else ("none", "")


def _packages(folder: Path) -> list[str]:
    # What leads elsewhere by a link is found there, if that is below the project.
    return [
        entry.name
        for entry in sorted(folder.iterdir())
        if entry.is_dir()
        and not entry.is_symlink()
        and entry.name.isidentifier()
        and entry.name not in _NOT_SOURCE
        and not (entry / "pyvenv.cfg").exists()
        and ((entry / "__init__.py").exists() or (entry.name == "app" and any(entry.glob("*.py"))))
    ]


def _packages_of_namespaces(folder: Path) -> list[str]:
    return [
        f"{entry.name}.{name}"
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and entry.name.isidentifier() and not (entry / "__init__.py").exists()
        for name in _packages(entry)
    ]


def _pyproject(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScaffoldError(
            f"{path} cannot be read: {error}", hint="correct the file first; nothing was changed"
        ) from error


def _mentions_fastapi(root: Path, project: dict[str, Any], listed: DependencyList) -> bool:
    poetry = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
    text = "\n".join([*project.get("project", {}).get("dependencies", ()), *poetry])
    if listed.path not in {"", "pyproject.toml"}:
        text = (root / listed.path).read_text(encoding="utf-8", errors="replace")
    return re.search(r"(?:^|[\s'\"\[])fastapi\b", text, re.IGNORECASE) is not None


def _python(project: dict[str, Any]) -> str:
    poetry = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
    given = project.get("project", {}).get("requires-python") or poetry.get("python")
    return given if isinstance(given, str) else ""


def _variables(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return tuple(dotenv_values(stream=StringIO(text), interpolate=False))


def _members(root: Path) -> Iterator[str]:
    for pattern in ("*/pyproject.toml", "*/*/pyproject.toml"):
        for path in sorted(root.glob(pattern)):
            parts = path.relative_to(root).parts[:-1]
            if not any(part.startswith(".") or part in _NOT_SOURCE for part in parts):
                yield "/".join(parts)
