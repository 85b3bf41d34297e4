"""How commands answer: results to standard output, progress and errors beside them."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from moorage.errors import MoorageError

__all__ = ["answer", "fail", "tell"]


def answer(as_json: bool, data: Any, text: str) -> None:
    """Print what a person wants to read, or JSON for a script."""
    print(json.dumps(data, indent=2) if as_json else text)


def tell(sentence: str) -> None:
    """Print progress where it does not mix with a result."""
    print(sentence, file=sys.stderr, flush=True)


def fail(error: MoorageError) -> NoReturn:
    """Print an error with its next step, and exit with 1."""
    import typer
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", style="bold red").append(str(error), style="default"))
    raise typer.Exit(1)
