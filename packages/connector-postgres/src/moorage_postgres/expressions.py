"""
What the expression of a policy says, as far as it decides how fast and how safe the policy is.

Read is the text, not a grammar: strings, comments, brackets and words are told apart, and that is
enough for the questions that are asked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["asked_per_row", "compared_columns", "users_own_words"]

_TOKENS: Final = re.compile(
    r"""
    (?P<skipped> \s+ | --[^\n]* | /\*.*?\*/
      | [eE]?'(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<word> (?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*) (?:\s*\.\s*(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*))* )
    | (?P<other> . )
    """,
    re.DOTALL | re.VERBOSE,
)
# Functions that tell for whom a transaction works: their answer is the same for all rows, and the
# server asks them again for each one unless they stand in a sub-select of their own.
_ABOUT_THE_USER: Final = re.compile(r"auth\.\w+|(?:pg_catalog\.)?current_setting")
_USERS_OWN: Final = re.compile(r"\b(?:raw_)?user_meta_?data\b")


@dataclass
class _Bracket:
    """A pair of brackets that is open."""

    is_select: bool = False
    has_from: bool = False
    is_empty: bool = True


def _words(expression: str) -> Iterator[tuple[str, str]]:
    """Yield words, in lower case unless they are quoted, and other characters, with their kind."""
    for match in _TOKENS.finditer(expression):
        if match.lastgroup == "word":
            yield "word", _plain(match["word"])
        elif match["other"] is not None:
            yield "other", match["other"]


def _plain(word: str) -> str:
    parts = re.findall(r'"(?:[^"]|"")+"|[A-Za-z_][\w$]*', word)
    return ".".join(
        part[1:-1].replace('""', '"') if part.startswith('"') else part.lower() for part in parts
    )


def asked_per_row(expression: str) -> list[str]:
    """
    Return the functions about the user that are called again for each row.

    A call is asked once if the nearest ``(select …)`` around it has no ``from``: then it does not
    depend on the row, and PostgreSQL makes an InitPlan of it.
    """
    words = [*_words(expression), ("other", "")]
    brackets = [_Bracket()]
    calls: list[tuple[str, list[_Bracket]]] = []
    for (kind, word), (_, following) in pairwise(words):
        here = brackets[-1]
        if word == "(":
            here.is_empty = False
            brackets.append(_Bracket())
            continue
        if word == ")":
            if len(brackets) > 1:
                brackets.pop()
            continue
        if kind == "word" and word == "select" and here.is_empty:
            here.is_select = True
        elif kind == "word" and word == "from" and here.is_select:
            here.has_from = True
        elif kind == "word" and following == "(" and _ABOUT_THE_USER.fullmatch(word):
            calls.append((word, list(brackets)))
        here.is_empty = False
    # Judged at the end: the FROM of a sub-select stands behind the call.
    return [word for word, around in calls if not _is_asked_once(around)]


def _is_asked_once(around: Sequence[_Bracket]) -> bool:
    nearest = next((bracket for bracket in reversed(around) if bracket.is_select), None)
    return nearest is not None and not nearest.has_from


def users_own_words(expression: str) -> bool:
    """Return whether the expression believes what users can write about themselves."""
    return bool(_USERS_OWN.search(expression.lower()))


def compared_columns(expression: str, columns: Sequence[str]) -> list[str]:
    """Return which columns are compared for equality outside of sub-selects, in their order."""
    words = [("other", ""), *_words(expression), ("other", ""), ("other", "")]
    depth, inside, found = 0, 0, set()
    for index in range(1, len(words) - 2):
        kind, word = words[index]
        if word == "(":
            depth += 1
            inside = depth if words[index + 1] == ("word", "select") and not inside else inside
        elif word == ")":
            inside = 0 if depth == inside else inside
            depth -= 1
        elif kind == "word" and not inside:
            name = word.rpartition(".")[2]
            equal = words[index + 1][1] in {"=", "in"} or words[index - 1][1] == "="
            if equal and name in columns:
                found.add(name)
    return [column for column in columns if column in found]
