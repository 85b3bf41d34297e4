"""
Groups of commands that other distributions contribute.

A distribution publishes a function under the entry point group ``moorage.commands``; the name of
the entry point is that of the group, as in ``moorage duck``. The function takes nothing and returns
a ``typer.Typer``. Errors of moorage that its commands raise are told like those of any command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS_GROUP", "add_contributed_commands"]

COMMANDS_GROUP: Final = "moorage.commands"


def add_contributed_commands(app: typer.Typer) -> None:
    """Add the groups that installed distributions contribute; a broken one stops no other."""
    taken = {group.name for group in app.registered_groups}
    taken |= {command.name or _name(command.callback) for command in app.registered_commands}
    for point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda point: point.name):
        try:
            if point.name in taken:
                raise ValueError("there is a command of this name already")
            make: Callable[[], typer.Typer] = point.load()
            app.add_typer(make(), name=point.name)
            taken.add(point.name)
        except Exception as error:  # noqa: BLE001 (it is anybody's code)
            print(
                f"the commands {point.name!r} of {_distribution(point)} are left out:"
                f" {type(error).__name__}: {error}",
                file=sys.stderr,
            )


def _name(callback: Callable[..., object] | None) -> str:
    return "" if callback is None else callback.__name__.replace("_", "-")


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"
