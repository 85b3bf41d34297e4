"""
Changes of a project's files: shown first, then made, all of them or none.

A manifest in the project (``.moorage.json``) remembers what was written, so that a later run tells
the files that are still ours to change from those that somebody has made his own.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage.errors import ScaffoldError
from moorage.scaffold.key_shapes import hide_secrets

__all__ = [
    "MANIFEST",
    "Change",
    "Manifest",
    "apply_changes",
    "digest",
    "read_text",
    "refuse_outside",
    "tree",
]

MANIFEST = ".moorage.json"


@dataclass(frozen=True)
class Change:
    """
    One file, before and after.

    Attributes:
        path: Below the project, with slashes.
        before: What is there; ``None`` for no file.
        after: What will be there.
        is_ours: Whether the whole file is ours, or only some lines of it.
    """

    path: str
    before: str | None
    after: str
    is_ours: bool = True

    @property
    def verb(self) -> str:
        """Return what happens to the file."""
        if self.before is None:
            return "create"
        return "update" if self.is_ours else "add to"

    def diff(self) -> str:
        """Return a unified diff, in which whatever looks like a secret is hidden."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            "/dev/null" if self.before is None else f"a/{self.path}",
            f"b/{self.path}",
        )
        ended = (line if line.endswith("\n") else f"{line}\n\\ No newline\n" for line in lines)
        return hide_secrets("".join(ended))


@dataclass(frozen=True)
class Manifest:
    """What an earlier run wrote: its version, the answers, and a digest of each file."""

    version: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """
        Return the manifest of a project; an empty one if there is none.

        Raises:
            ScaffoldError: It cannot be understood.
        """
        text = read_text(root / MANIFEST)
        if text is None:
            return cls()
        try:
            data = json.loads(text)
            files = {str(path): str(value) for path, value in data["files"].items()}
            return cls(str(data["moorage"]), dict(data["answers"]), files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ScaffoldError(
                f"{root / MANIFEST} is damaged: {type(error).__name__}",
                hint="restore it from version control, or remove it: every file then counts as"
                " yours and is kept",
            ) from error

    def to_text(self) -> str:
        """Return what the file holds."""
        data = {
            "moorage": self.version,
            "answers": self.answers,
            "files": dict(sorted(self.files.items())),
        }
        return f"{json.dumps(data, indent=2)}\n"


def digest(text: str) -> str:
    """Return the digest of a file's content."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_text(path: Path) -> str | None:
    r"""
    Return the text of a file, with plain line ends and no mark before it; ``None`` for no file.

    Raises:
        ScaffoldError: It is no UTF-8, or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ScaffoldError(
            f"{path} is no UTF-8 text; nothing was changed", hint="save it as UTF-8"
        ) from error
    except OSError as error:
        raise ScaffoldError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="see to it that it is a file, and that this user may read it",
        ) from error


def tree(changes: Sequence[Change]) -> str:
    """Return the files of changes as a tree, each with what happens to it."""
    lines: list[str] = []
    shown: tuple[str, ...] = ()
    for change in sorted(changes, key=lambda one: one.path):
        *folders, name = change.path.split("/")
        for depth, folder in enumerate(folders):
            if shown[: depth + 1] != tuple(folders[: depth + 1]):
                lines.append(f"{'  ' * depth}{folder}/")
        shown = tuple(folders)
        lines.append(f"{'  ' * len(folders)}{name}  ({change.verb})")
    return "\n".join(lines)


def refuse_outside(root: Path, changes: Sequence[Change]) -> None:
    """
    Refuse to change anything beyond a project.

    Raises:
        ScaffoldError: A link leads there.
    """
    for change in changes:
        if not (root / change.path).resolve().is_relative_to(root.resolve()):
            raise ScaffoldError(
                f"{change.path} leads out of the project through a link; nothing was changed",
                hint="remove the link, or run the command where it leads",
            )


def apply_changes(root: Path, changes: Sequence[Change]) -> None:
    """
    Make all changes, or none: a failure half-way leaves the project as it was.

    Raises:
        ScaffoldError: A file is not what it was when the changes were planned, lies outside of
            the project, or cannot be written.
    """
    refuse_outside(root, changes)
    for change in changes:
        path = root / change.path
        if read_text(path) != change.before:
            raise ScaffoldError(
                f"{change.path} was changed meanwhile; nothing was written",
                hint="run the command again to see the new plan",
            )
    made: list[Path] = []
    originals: list[tuple[Path, bytes | None]] = []
    try:
        for change in changes:
            path = root / change.path
            _make_folder(path.parent, made)
            original = path.read_bytes() if change.before is not None else None
            originals.append((path, original))
            _replace(path, _encoded(change.after, original))
    except BaseException as error:
        _undo(originals, made)
        if isinstance(error, OSError):
            raise ScaffoldError(
                f"{error.filename or root} cannot be written: {error.strerror or error};"
                " the project is as it was",
                hint="see to it that this user may write there and that the disk is not full",
            ) from error
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir()
        made.append(each)


def _encoded(text: str, original: bytes | None) -> bytes:
    original = original or b""
    data = (text.replace("\n", "\r\n") if b"\r\n" in original else text).encode()
    return BOM_UTF8 + data if original.startswith(BOM_UTF8) else data


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        if path.exists():
            unfinished.chmod(path.stat().st_mode & 0o7777)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _undo(originals: list[tuple[Path, bytes | None]], made: list[Path]) -> None:
    for path, original in reversed(originals):
        with suppress(OSError):
            if original is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != original:
                _replace(path, original)
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()
