"""
Render a folder of templates into a new folder.

A template's path says where its file goes: ``dot-gitignore`` is ``.gitignore``, a part that begins
with ``name-`` is replaced by the value of the rest (``name-module``), and ``.jinja`` at the end is
dropped. All is rendered before the first file is written, into a folder beside the target, which
gets its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from moorage.errors import MissingExtraError, ScaffoldError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render", "write_new_folder"]

_SUFFIX = ".jinja"


def render(template: str, values: Mapping[str, object]) -> dict[PurePosixPath, str]:
    """
    Return the files of a template by path.

    Args:
        template: Name of a folder in ``moorage.scaffold.templates``.
        values: What the templates ask for; asking for anything else is an error.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    rendered: dict[PurePosixPath, str] = {}
    for path, source in _templates(template):
        parts = [_part(part, values) for part in path.parts]
        rendered[PurePosixPath(*parts)] = source.render(**values)
    return rendered


@cache
def _templates(folder: str) -> tuple[tuple[PurePosixPath, Template], ...]:
    """Return the templates of a folder, compiled."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            f"writing files from templates needs an optional package: {error}",
            hint="pip install 'moorage[cli]'",
        ) from error
    # What is written is source code and prose; nothing of it is HTML.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    place = files("moorage.scaffold") / "templates" / folder
    return tuple(
        (path, environment.from_string(source.read_text(encoding="utf-8")))
        for path, source in sorted(_walk(place, PurePosixPath()).items())
    )


def write_new_folder(target: Path, rendered: Mapping[PurePosixPath, str]) -> None:
    """
    Write files into a folder that is not there yet, or empty; all of them or none.

    Raises:
        ScaffoldError: There is something already, or the folder cannot be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ScaffoldError(
            f"{target} is there already, and nothing is overwritten",
            hint="remove it, or choose another place with --into",
        )
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for path, text in rendered.items():
            file = unfinished / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        unfinished.replace(target)
    except OSError as error:
        raise ScaffoldError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="choose another place with --into, or see to it that this user may write there",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _walk(folder: Traversable, path: PurePosixPath) -> dict[PurePosixPath, Traversable]:
    found: dict[PurePosixPath, Traversable] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found.update(_walk(entry, path / entry.name))
        else:
            found[path / entry.name] = entry
    return found


def _part(part: str, values: Mapping[str, object]) -> str:
    part = part.removesuffix(_SUFFIX)
    if part.startswith("dot-"):
        return f".{part.removeprefix('dot-')}"
    if part.startswith("name-"):
        name, dot, suffix = part.removeprefix("name-").partition(".")
        return f"{values[name]}{dot}{suffix}"
    return part
