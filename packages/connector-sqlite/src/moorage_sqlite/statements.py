"""What a statement does, as far as its first word tells."""

from __future__ import annotations

import re

__all__ = ["first_word", "writes"]

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_WRITING_WORD = re.compile(r"\b(insert|update|delete|replace)\b", re.IGNORECASE)
_READING = frozenset({"select", "values", "explain"})


def first_word(statement: str) -> str:
    """Return the first key word of a statement in lower case, comments skipped."""
    rest = _COMMENTS.sub("", statement, count=1)
    match = re.match(r"[A-Za-z]+", rest)
    return match.group().lower() if match else ""


def writes(statement: str) -> bool:
    """
    Return whether a statement may write.

    Whatever is not known to read counts as writing: the lock that is taken too early costs a
    wait, the one that is taken too late costs the transaction.
    """
    word = first_word(statement)
    if word == "with":
        return _WRITING_WORD.search(statement) is not None
    return word not in _READING
