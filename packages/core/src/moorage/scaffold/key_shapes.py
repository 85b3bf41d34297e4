"""
Text that looks like a secret: found, and hidden from whatever is shown.

A diff of somebody's file, or the line of a finding, may contain a password that was there before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moorage.settings import DatabaseType

__all__ = ["find_secrets", "hide_secrets"]

_HIDDEN = "•••"
# Names of what is no secret by itself, and words that stand for a value that is yet to be given.
_PLACEHOLDER = (
    r"(?!(?:<|\?|-|\$|\{|%|\*|•|your|change|example|secret\b|password\b|none\b|null\b|true\b|false\b"
    r"|secretstr\b))"
)
_SHAPES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # scheme://user:password@host
        rf"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@'\"<]*:){_PLACEHOLDER}(?P<secret>[^\s@'\"]+)(?=@)",
        # PASSWORD=…, api_key: "…", with a value that is no expression
        rf"(?P<before>(?:password|passwd|secret|token|api_?key|private_?key)[\"']?\s*[=:]\s*[\"']?)"
        rf"{_PLACEHOLDER}(?P<secret>[^\s\"'(),\[\]{{}}<]{{6,}})(?![\w.]*[(\[])",
        r"(?P<before>)(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----)",
        # Keys that say by their beginning what they are.
        r"(?P<before>)(?P<secret>\b(?:sb_secret_|sk_live_|ghp_|github_pat_|xox[bp]-)[\w-]{8,})",
        r"(?P<before>)(?P<secret>\bAKIA[0-9A-Z]{16}\b)",
        r"(?P<before>)(?P<secret>\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})",
    )
)
# Passwords that everybody knows, as examples and servers on a developer's machine have them.
_KNOWN = frozenset({"admin", "app", "dev", "pass", "root", "test", *DatabaseType})
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_VARIABLE = re.compile(r"(?:^|[\s;])[A-Z][A-Z0-9_]*=$")
_KEY = re.compile(r"(?:^|\s)[A-Z][A-Z0-9_]*\s*[=:]\s*$")


def hide_secrets(text: str) -> str:
    """Return a text with everything that looks like a secret replaced."""

    def hide(found: re.Match[str]) -> str:
        return f"{found['before']}{_HIDDEN}" if _is_secret(found) else found[0]

    for shape in _SHAPES:
        text = shape.sub(hide, text)
    return text


def find_secrets(text: str) -> Iterator[int]:
    """Yield the numbers of the lines that have something that looks like a secret."""
    for number, line in enumerate(text.splitlines(), 1):
        if any(_is_secret(found) for shape in _SHAPES for found in shape.finditer(line)):
            yield number


def _is_secret(found: re.Match[str]) -> bool:
    """Return whether it is none of those that everybody knows, nor a name in somebody's code."""
    value, before = found["secret"], found["before"]
    if value.lower() in _KNOWN:
        return False
    is_bare = before and "://" not in before and before[-1] not in "\"'"
    if not is_bare or _NAME.fullmatch(value) is None:
        return True
    line = found.string[: found.start("secret")].rpartition("\n")[2]
    if _VARIABLE.search(line):  # NAME=value, as shells and files of variables have it
        return True
    is_path = "." in value
    return not is_path and (any(c.isdigit() for c in value) or _KEY.search(line) is not None)
