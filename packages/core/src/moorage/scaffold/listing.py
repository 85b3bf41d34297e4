"""What becomes of a project's lists of dependencies: lines that are added, or told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorage.scaffold.changes import read_text
from moorage.scaffold.discovery import Found
from moorage.scaffold.questions import Answers
from moorage.scaffold.requirements import (
    add_to_pyproject,
    add_to_requirements,
    distribution,
    name_packages,
)

__all__ = ["Listing"]

_PROJECT = "pyproject.toml"


class Listing:
    """
    The lists of one project, as they shall be.

    Attributes:
        edits: Texts of files, by path.
        kept: Files that are left alone, with what they lack.
    """

    def __init__(
        self, found: Found, answers: Answers, wanted: Sequence[str], for_tests: Sequence[str]
    ) -> None:
        self._root: Path = found.root
        self._listed = found.dependencies
        self._tool = answers.tool
        self._wanted = wanted
        self._for_tests = for_tests
        self.edits: dict[str, str] = {}
        self.kept: dict[str, str] = {}

    def add(self, name: str, package: str) -> None:
        """
        Add what is lacking.

        Args:
            name: Name of the project, for a new file.
            package: Its package below the folder, for a new file.
        """
        listed = self._listed
        if not listed.is_edited:
            self._tell(listed.path)
        elif listed.is_plain or (self._tool == "pip" and not listed.path):
            main = listed.path or "requirements.txt"
            self._extend(main, self._wanted)
            self._extend(listed.development or "requirements-dev.txt", self._for_tests)
        else:
            self.edits[_PROJECT] = add_to_pyproject(
                read_text(self._root / _PROJECT) or "",
                self._tool,
                self._wanted,
                self._for_tests,
                name=name,
                package=package,
                extra=listed.extra,
            )

    def name_packages(self, package: str, modules: Sequence[str]) -> None:
        """Say in a ``pyproject.toml`` that is there what is to be installed, if nobody does."""
        before = read_text(self._root / _PROJECT)
        if before is None or any((self._root / n).exists() for n in ("setup.py", "setup.cfg")):
            return
        text = self.edits.get(_PROJECT, before)
        self.edits[_PROJECT] = name_packages(text, self._tool, package, modules)

    def _tell(self, path: str) -> None:
        text = (read_text(self._root / path) or "").lower()
        needed = [*self._wanted, *self._for_tests]
        if lacking := [one for one in needed if distribution(one) not in text]:
            self.kept[path] = f"add to it by hand: {', '.join(lacking)}"

    def _extend(self, path: str, lines: Sequence[str]) -> None:
        self.edits[path] = add_to_requirements(read_text(self._root / path) or "", lines)
