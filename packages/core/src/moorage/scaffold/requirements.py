"""Adding to the lists of dependencies of a project, without disturbing what stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from moorage.errors import MissingExtraError
from moorage.scaffold.dependency_lists import Tool

__all__ = ["add_to_pyproject", "add_to_requirements", "distribution", "name_packages"]

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*(.*)", re.DOTALL)


def distribution(requirement: str) -> str:
    """Return the normalised name of a requirement's distribution."""
    found = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def add_to_requirements(text: str, requirements: Sequence[str]) -> str:
    """Return the text of a requirements file with what it lacks."""
    lines = text.splitlines()
    merged = _merged(lines, requirements)
    return "\n".join(merged) + "\n" if merged != lines else text


def add_to_pyproject(
    text: str,
    tool: Tool,
    requirements: Sequence[str],
    development: Sequence[str],
    *,
    name: str,
    package: str,
    extra: str = "",
) -> str:
    """
    Return the text of a ``pyproject.toml`` with the dependencies that it lacks.

    Args:
        text: The file as it is; empty for a new one.
        tool: What manages the dependencies.
        requirements: What the project needs.
        development: What its tests need.
        name: Name of the project, for a new file.
        package: Its package below the folder, for a new file.
        extra: The extra that has what the tests need; empty for a group.

    Raises:
        MissingExtraError: tomlkit is not installed.
    """
    tomlkit = _tomlkit()
    document = tomlkit.parse(text)
    poetry = document.get("tool", {}).get("poetry", {})
    listed = document.get("project", {})
    if "dependencies" in poetry and "dependencies" not in listed:
        _add_to_poetry(document, requirements, development)
        return str(tomlkit.dumps(document))
    if "project" not in document:
        _begin(document, tool, name, package)
    project: Any = document["project"]
    _extend(project, "dependencies", requirements)
    if tool == "hatch":
        environment = _table(document, "tool", "hatch", "envs", "default")
        _extend(environment, "dependencies", development)
    elif extra:
        _extend(project["optional-dependencies"], extra, development)
    else:
        _extend(_table(document, "dependency-groups"), "dev", development)
    return str(tomlkit.dumps(document))


def name_packages(text: str, tool: Tool, package: str, modules: Sequence[str] = ()) -> str:
    """
    Return the text of a ``pyproject.toml`` that says what is to be installed, where it did not.

    Left alone, setuptools takes all folders, and refuses where there are several of them: those of
    migrations and seeds would keep a project from being installed that could be before.

    Args:
        text: The file as it is.
        tool: What manages the dependencies.
        package: The package, or the one beside the modules.
        modules: What else is to be installed.
    """
    document = _tomlkit().parse(text)
    tools = document.get("tool", {})
    backend = document.get("build-system", {}).get("build-backend", "")
    guesses = backend.startswith("setuptools") or (not backend and tool in {"pip", "pdm", "hatch"})
    is_installed = "project" in document and tools.get("pdm", {}).get("distribution", True)
    said = {"packages", "py-modules", "package-dir"} & set(tools.get("setuptools", {}))
    if not guesses or not is_installed or said:
        return text
    top = package.partition(".")[0]
    find = _table(document, "tool", "setuptools", "packages", "find")
    find["include"] = [top, f"{top}.*"]
    if modules:
        document["tool"]["setuptools"]["py-modules"] = sorted(modules)
    return str(_tomlkit().dumps(document))


def _tomlkit() -> Any:
    try:
        import tomlkit
    except ImportError as error:
        raise MissingExtraError(
            f"editing pyproject.toml needs an optional package: {error}",
            hint="pip install 'moorage[cli]'",
        ) from error
    return tomlkit


def _merged(present: list[str], wanted: Sequence[str]) -> list[str]:
    """Return requirements with those added that are lacking, and lacking extras of ours."""
    merged = list(present)
    for requirement in wanted:
        name = distribution(requirement)
        at = next((i for i, line in enumerate(merged) if distribution(line) == name), None)
        if at is None:
            merged.append(requirement)
        else:
            merged[at] = _with_extras(merged[at], requirement)
    return merged


def _with_extras(present: str, wanted: str) -> str:
    there, ours = _REQUIREMENT.match(present), _REQUIREMENT.match(wanted)
    assert there is not None
    assert ours is not None
    having = [extra.strip() for extra in (there[2] or "").split(",") if extra.strip()]
    lacking = [extra for extra in (ours[2] or "").split(",") if extra and extra not in having]
    if not lacking:
        return present
    return f"{there[1]}[{','.join(sorted([*having, *lacking]))}]{there[3]}"


def _extend(table: Any, key: str, wanted: Sequence[str]) -> None:
    import tomlkit

    present = [item for item in table.get(key, ()) if isinstance(item, str)]
    merged = _merged(present, wanted)
    if merged == present:
        return
    if key not in table:
        array = tomlkit.array()
        array.multiline(True)
        table[key] = array
    array = table[key]
    if not len(array):
        array.multiline(True)
    positions = [i for i, item in enumerate(array) if isinstance(item, str)]
    for position, old, new in zip(positions, present, merged, strict=False):
        if old != new:
            array[position] = new
    for requirement in merged[len(present) :]:
        array.append(requirement)


def _table(document: Any, *path: str) -> Any:
    import tomlkit

    table = document
    for depth, key in enumerate(path):
        if key not in table:
            table[key] = tomlkit.table(is_super_table=depth < len(path) - 1)
        table = table[key]
    return table


def _begin(document: Any, tool: Tool, name: str, package: str) -> None:
    import tomlkit

    project = tomlkit.table()
    project["name"] = name
    project["version"] = "0.1.0"
    project["requires-python"] = ">=3.11"
    project["dependencies"] = tomlkit.array()
    document["project"] = project
    if tool == "uv":
        _table(document, "tool", "uv")["package"] = False
    elif tool == "poetry":
        _table(document, "tool", "poetry")["package-mode"] = False
    elif tool == "pdm":
        _table(document, "tool", "pdm")["distribution"] = False
    elif tool == "hatch":
        build = _table(document, "build-system")
        build["requires"] = ["hatchling"]
        build["build-backend"] = "hatchling.build"
        _table(document, "tool", "hatch", "build", "targets", "wheel")["packages"] = [package]


def _add_to_poetry(document: Any, requirements: Sequence[str], development: Sequence[str]) -> None:
    import tomlkit

    main = document["tool"]["poetry"]["dependencies"]
    group = _table(document, "tool", "poetry", "group", "dev", "dependencies")
    for table, wanted in ((main, requirements), (group, development)):
        known = {distribution(key): key for key in table}
        for requirement in wanted:
            found = _REQUIREMENT.match(requirement)
            assert found is not None
            key = known.get(distribution(requirement))
            extras = [extra for extra in (found[2] or "").split(",") if extra]
            if key is None:
                version = found[3].strip() or "*"
                value: Any = version
                if extras:
                    value = tomlkit.inline_table()
                    value.update({"version": version, "extras": extras})
                table[found[1]] = value
            elif extras:
                _add_poetry_extras(table, key, extras)


def _add_poetry_extras(table: Any, key: str, extras: list[str]) -> None:
    import tomlkit

    value = table[key]
    if isinstance(value, str):
        table[key] = tomlkit.inline_table()
        table[key].update({"version": value, "extras": extras})
    elif set(extras) - set(value.get("extras", ())):
        value["extras"] = sorted({*value.get("extras", ()), *extras})
