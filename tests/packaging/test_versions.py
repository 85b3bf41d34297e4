"""All packages have one version, require each other at it, and carry the same licence."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bump_version.py"
VERSION_FILE = Path("packages/core/src/moorage/__init__.py")


def bump(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script and return how it ended."""
    argv = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the files that hold versions."""
    for path in [ROOT / VERSION_FILE, *ROOT.glob("packages/*/pyproject.toml")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def contents(tree: Path) -> dict[Path, str]:
    """Return the text of every file below a directory."""
    return {path: path.read_text() for path in sorted(tree.rglob("*")) if path.is_file()}


def requirements(tree: Path) -> list[str]:
    """Return what the packages of a tree require of each other."""
    found: list[str] = []
    for path in sorted(tree.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        for group in (
            project["dependencies"],
            *project.get("optional-dependencies", {}).values(),
        ):
            found.extend(line for line in group if line.startswith("moorage"))
    return found


def test_everything_agrees() -> None:
    """Version and requirements of this tree agree."""
    done = bump("--check")
    assert done.returncode == 0, done.stderr


def test_bump_changes_version_and_requirements_together(tree: Path) -> None:
    """After a bump everything agrees on the new version, and nothing else has changed."""
    before = contents(tree)
    done = bump("7.8.9", "--root", str(tree))
    assert done.returncode == 0, done.stderr
    assert bump("--check", "--root", str(tree)).stdout.strip() == "everything agrees on 7.8.9"
    floors = requirements(tree)
    assert floors
    assert all(">=7.8.9,<8" in floor for floor in floors)
    for path, text in contents(tree).items():
        pairs = zip(before[path].splitlines(), text.splitlines(), strict=True)
        changed = [new for old, new in pairs if old != new]
        assert all("7.8.9" in line for line in changed), path


def test_dry_run_writes_nothing(tree: Path) -> None:
    """A dry run names the files and leaves them alone."""
    before = contents(tree)
    done = bump("7.8.9", "--dry-run", "--root", str(tree))
    assert done.returncode == 0, done.stderr
    assert f"would write {VERSION_FILE}" in done.stdout
    assert contents(tree) == before


@pytest.mark.parametrize("version", ["7.8.9.dev0", "7.8.9rc1", "7.8", "07.8.9", "0.0.1", "latest"])
def test_unfit_version_is_refused(tree: Path, version: str) -> None:
    """Only a final release that comes after the present one is accepted."""
    before = contents(tree)
    done = bump(version, "--root", str(tree))
    assert done.returncode == 1
    assert version in done.stderr
    assert contents(tree) == before


def test_disagreeing_tree_is_refused(tree: Path) -> None:
    """A tree that disagrees with itself is reported, with the place, and is not written to."""
    path = tree / "packages/connector-sqlite/pyproject.toml"
    floor = next(line for line in requirements(tree) if line.startswith("moorage>="))
    path.write_text(path.read_text().replace(floor, "moorage>=0.0.7,<1"))
    before = contents(tree)
    for arguments in (["--check"], ["7.8.9"]):
        done = bump(*arguments, "--root", str(tree))
        assert done.returncode == 1
        assert "connector-sqlite/pyproject.toml: 'moorage>=0.0.7,<1'" in done.stderr
    assert contents(tree) == before


def test_licence_copies_are_identical() -> None:
    """Each package carries a real copy of the licence, byte for byte."""
    original = (ROOT / "LICENSE").read_bytes()
    packages = [path.parent for path in ROOT.glob("packages/*/pyproject.toml")]
    assert packages
    for package in packages:
        copy = package / "LICENSE"
        assert not copy.is_symlink()
        assert copy.read_bytes() == original, package
