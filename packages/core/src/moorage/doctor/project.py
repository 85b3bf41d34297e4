"""The files of a project: what is missing, and what must not be among them."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

from moorage.doctor.blocking import table
from moorage.doctor.finding import Report
from moorage.registry import installed_connectors
from moorage.scaffold.changes import Manifest
from moorage.scaffold.key_shapes import find_secrets

__all__ = ["check_files", "check_versions"]

_LARGEST_FILE = 1_000_000
_OURS = ("moorage", "moorage-fastapi")


def check_files(root: Path, report: Report) -> None:
    """Look at the files that version control knows, and at those that were written by init."""
    for path in sorted(Manifest.read(root).files):
        if "#" not in path and not (root / path).exists():
            fix = f"bring it back: moorage init --yes --force-file {path}"
            report.add("P104", "the file is gone", path, fix=fix)
    tracked = _git(root, "ls-files", "-z")
    if tracked is None:
        ignored = _lines(root / ".gitignore")
        if (root / ".env").is_file() and not ignored & {".env", "/.env", ".env*", "*.env"}:
            report.add("P102", "nothing keeps the file out of version control", ".env")
        return
    names = [name for name in tracked.split("\0") if name]
    is_loose = (root / ".env").is_file() and ".env" not in names
    if is_loose and _git(root, "check-ignore", "-q", ".env") is None:
        report.add("P102", "nothing keeps the file out of version control", ".env")
    for name in names:
        if name == ".env" or name.endswith("/.env"):
            report.add("P101", "the file is under version control", name)
            continue
        for line in _secrets(root / name):
            report.add("P103", "something here looks like a password or a key", name, line)


def check_versions(report: Report) -> None:
    """Compare the versions of what is installed."""
    versions: dict[str, str] = {}
    ours = {item.distribution for item in installed_connectors()}
    for name in sorted({*_OURS, *(one for one in ours if one.startswith("moorage-"))}):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    report.facts["packages"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    release = {name: value.split(".")[:2] for name, value in versions.items()}
    for name, value in versions.items():
        if release[name] != release["moorage"]:
            report.add("V201", f"{name} is {value}, moorage is {versions['moorage']}")
    for bad in table()["known_bad"]:
        try:
            found = metadata.version(bad["distribution"])
        except metadata.PackageNotFoundError:
            continue
        if _number(bad["since"]) <= _number(found) < _number(bad["before"]):
            fix = f"install {bad['distribution']} older than {bad['since']}, or {bad['before']}"
            report.add("V202", f"{bad['distribution']} {found}: {bad['reason']}", fix=fix)


def _number(version: str) -> tuple[int, ...]:
    parts = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def _secrets(path: Path) -> list[int]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return []
        return list(find_secrets(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return []


def _lines(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return set(path.read_text(encoding="utf-8-sig", errors="replace").split())


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says; ``None`` where it says no, or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
