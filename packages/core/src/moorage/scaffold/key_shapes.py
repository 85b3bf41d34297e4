"""
Text that looks like a secret: found, and hidden from whatever is shown.

A diff of somebody's file, or the line of a finding, may contain a password that was there before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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


def hide_secrets(text: str) -> str:
    """Return a text with everything that looks like a secret replaced."""
    for shape in _SHAPES:
        text = shape.sub(rf"\g<before>{_HIDDEN}", text)
    return text


def find_secrets(text: str) -> Iterator[int]:
    """Yield the numbers of the lines that have something that looks like a secret."""
    for number, line in enumerate(text.splitlines(), 1):
        if any(shape.search(line) for shape in _SHAPES):
            yield number
