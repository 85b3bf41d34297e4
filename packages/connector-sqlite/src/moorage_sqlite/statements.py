"""What a statement does, as far as its first word tells."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["first_word", "writes"]

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_WRITING_WORD = re.compile(r"\b(insert|update|delete|replace)\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_READING = frozenset({"select", "values", "explain"})


# What SQLAlchemy has compiled comes again and again, and is asked about more than once.
@lru_cache(maxsize=500)
def first_word(statement: str) -> str:
    """Return the first key word of a statement in lower case, comments skipped."""
    rest = _COMMENTS.sub("", statement, count=1)
    match = _WORD.match(rest)
    return match.group().lower() if match else ""


@lru_cache(maxsize=500)
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
