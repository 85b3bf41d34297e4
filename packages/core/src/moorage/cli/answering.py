"""
How every command answers: in words for people, as JSON for scripts, and with one of three codes.

A command exits with 0, with 1 where something failed or is not as it should be, and with 2 where
the command itself was wrong. With ``--json`` standard output holds one JSON document and nothing
else; where something failed, that is an object with ``error`` and ``hint``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from moorage.errors import MoorageError
from moorage.scaffold.key_shapes import hide_secrets

__all__ = ["AnsweringGroup", "answer", "is_for_people", "print_json", "tell"]

_JSON = "--json"


class AnsweringGroup(TyperGroup):
    """The root of all commands, which tells what went wrong in the way that was asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether a script is asking."""
        ctx.obj = _JSON in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of ours is told with its next step, and without a traceback."""
        try:
            return super().invoke(ctx)
        except MoorageError as error:
            _tell_error(error, as_json=bool(ctx.obj))
            raise typer.Exit(1) from None


def _tell_error(error: MoorageError, *, as_json: bool) -> None:
    if as_json:
        what = hide_secrets(str(error.args[0]))
        print_json({"error": what, "hint": hide_secrets(error.hint)})
        return
    from rich.console import Console
    from rich.text import Text

    told = Text("error: ", style="bold red").append(hide_secrets(str(error)), style="default")
    Console(stderr=True, soft_wrap=True).print(told)


def print_json(data: object) -> None:
    """Print one document."""
    print(json.dumps(data, indent=2))


def answer(as_json: bool, data: object, text: str) -> None:
    """Print the result of a command."""
    if as_json:
        print_json(data)
    else:
        print(text)


def tell(sentence: str) -> None:
    """Print progress where it does not mix with a result."""
    print(sentence, file=sys.stderr, flush=True)


def is_for_people() -> bool:
    """Return whether somebody reads along, for whom lines are cut and coloured."""
    return sys.stdout.isatty()
