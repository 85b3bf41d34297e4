"""
Set the one version of all packages, and what they require of each other, in one go.

    python scripts/bump_version.py 0.2.0             write
    python scripts/bump_version.py 0.2.0 --dry-run   print what would be written
    python scripts/bump_version.py --check           only verify that everything agrees

Nothing is written when the tree disagrees with itself beforehand. Development and pre-releases
are refused: ``0.2.0.dev0`` does not satisfy ``>=0.2.0``, so the packages would not fit together.
"""

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.items import Array, Table

ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE = Path("packages/core/src/moorage/__init__.py")

VERSION_LINE = re.compile(r'^__version__ = "(?P<version>[^"]+)"$', re.MULTILINE)
RELEASE = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
FLOOR = re.compile(
    r"(?P<name>moorage(?:-[a-z]+)?(?:\[[a-z,-]+\])?)>=(?P<floor>[^,;\s]+),<(?P<bound>[^,;\s]+)"
)
OURS = re.compile(r"moorage(?![a-z_.])")


class BumpError(Exception):
    """The version cannot be set; the message says why."""


@dataclass(frozen=True)
class Release:
    """A final release, which is all that this project publishes."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "Release":
        """
        Read ``X.Y.Z``.

        Raises:
            BumpError: It is anything else, such as a development or pre-release.
        """
        found = RELEASE.fullmatch(text)
        if found is None:
            raise BumpError(f"{text!r} is not a final release X.Y.Z")
        return cls(*(int(part) for part in found.groups()))

    @property
    def bound(self) -> str:
        """The first version that may break what was written for this one."""
        return str(self.major + 1)

    def order(self) -> tuple[int, int, int]:
        """Return the key by which releases are ordered."""
        return (self.major, self.minor, self.patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def requirement_lists(document: tomlkit.TOMLDocument) -> Iterator[Array]:
    """Yield every list of requirements of a package."""
    project = document["project"]
    if not isinstance(project, Table):
        raise BumpError("[project] is not a table")
    lists = [project.get("dependencies"), *project.get("optional-dependencies", {}).values()]
    yield from (found for found in lists if isinstance(found, Array))


def projects(root: Path) -> list[Path]:
    """Return the files that hold the packages' requirements."""
    return sorted(root.glob("packages/*/pyproject.toml"))


def current_version(root: Path) -> Release:
    """Return the version that the tree has now."""
    found = VERSION_LINE.findall((root / VERSION_FILE).read_text())
    if len(found) != 1:
        raise BumpError(f"{VERSION_FILE}: expected one line __version__ = ..., found {len(found)}")
    return Release.parse(found[0])


def check(root: Path) -> Release:
    """
    Return the version of the tree after making sure that every requirement agrees with it.

    Raises:
        BumpError: Something disagrees; the message lists all of it.
    """
    version = current_version(root)
    troubles = []
    for path in projects(root):
        where = path.relative_to(root)
        for requirements in requirement_lists(tomlkit.parse(path.read_text())):
            for requirement in (str(item) for item in requirements if OURS.match(str(item))):
                found = FLOOR.match(requirement)
                wanted = f">={version},<{version.bound}"
                if found is None or requirement[found.end("name") : found.end()] != wanted:
                    troubles.append(f"{where}: {requirement!r} does not say {wanted}")
    if troubles:
        raise BumpError(f"the version is {version}, but\n  " + "\n  ".join(troubles))
    return version


def rewrite(root: Path, version: Release) -> dict[Path, str]:
    """Return the new text of every file that changes."""
    source = (root / VERSION_FILE).read_text()
    changed = {root / VERSION_FILE: VERSION_LINE.sub(f'__version__ = "{version}"', source)}
    for path in projects(root):
        document = tomlkit.parse(path.read_text())
        for requirements in requirement_lists(document):
            for index, item in enumerate(list(requirements)):
                if OURS.match(str(item)):
                    requirements[index] = FLOOR.sub(
                        rf"\g<name>>={version},<{version.bound}", str(item)
                    )
        if (text := tomlkit.dumps(document)) != path.read_text():
            changed[path] = text
    return changed


def bump(root: Path, version: Release, *, dry_run: bool = False) -> None:
    """
    Write the version everywhere, or only print where.

    Raises:
        BumpError: The tree disagrees with itself, or the version does not go up.
    """
    present = check(root)
    if version.order() <= present.order():
        raise BumpError(f"{version} does not come after {present}")
    for path, text in rewrite(root, version).items():
        print(f"{'would write' if dry_run else 'wrote'} {path.relative_to(root)}")
        if not dry_run:
            path.write_text(text)
    print(f"{present} -> {version}")


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = ArgumentParser(description="Set the one version of all packages.")
    parser.add_argument("version", nargs="?", help="the new version, X.Y.Z")
    parser.add_argument("--check", action="store_true", help="verify only")
    parser.add_argument("--dry-run", action="store_true", help="print and write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to work on")
    options = parser.parse_args(arguments)
    if options.check == (options.version is not None):
        parser.error("give either a version or --check")
    try:
        if options.check:
            print(f"everything agrees on {check(options.root)}")
        else:
            bump(options.root, Release.parse(options.version), dry_run=options.dry_run)
    except BumpError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
