"""
The command line: one module for each command.

typer and rich are an extra; without them the command prints the line that installs them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["main", "make_app"]


def main() -> None:
    """Run the command line; exits with 1 if something is wrong, with 2 if it cannot run."""
    try:
        app = make_app()
    except ImportError as error:
        print(
            f"the moorage command needs an optional package: {error}\n"
            "  Next step: pip install 'moorage[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app()


def make_app() -> typer.Typer:
    """
    Return the application, for tests and for shells that complete commands.

    Raises:
        ImportError: typer is not installed.
    """
    import typer

    from moorage.cli.answering import AnsweringGroup
    from moorage.cli.connectors import add_connector_commands
    from moorage.cli.contributed import add_contributed_commands
    from moorage.cli.db import add_db_commands
    from moorage.cli.doctor import add_doctor_command
    from moorage.cli.init import add_init_command
    from moorage.cli.skill import add_skill_commands

    app = typer.Typer(
        cls=AnsweringGroup,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,  # passwords are among them
        help="Look at moorage and what it uses.",
    )

    @app.callback()
    def moorage() -> None:
        """Look at moorage and what it uses."""

    add_init_command(app)
    add_doctor_command(app)
    add_skill_commands(app)
    add_db_commands(app)
    add_connector_commands(app)
    add_contributed_commands(app)
    return app
