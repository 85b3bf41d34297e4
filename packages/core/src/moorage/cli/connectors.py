"""
``moorage connectors`` says what is installed, and what is wrong with it; ``moorage connector new``
writes a distribution with a new connector.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from moorage import abilities
from moorage.cli.answering import answer, is_for_people, print_json
from moorage.connector import Capabilities
from moorage.errors import MoorageError
from moorage.pool import LoopPool
from moorage.registry import InstalledConnector, installed_connectors, registry
from moorage.scaffold.connector import plan_connector, write_connector
from moorage.settings import DatabaseSettings

__all__ = ["add_connector_commands"]


def add_connector_commands(app: typer.Typer) -> None:
    """Add ``connectors`` and ``connector new`` to the application."""

    @app.command()
    def connectors(
        as_json: bool = typer.Option(
            False, "--json", help="Print JSON, for scripts, instead of a table."
        ),
    ) -> None:
        """List the connectors that are installed, and what is wrong with a broken one."""
        found = [_describe(item) for item in installed_connectors()]
        if as_json:
            print_json([asdict(item) for item in found])
        else:
            _print_table(found)
        if not found or any(item.problem for item in found):
            raise typer.Exit(1)

    connector = typer.Typer(no_args_is_help=True, help="Write connectors for other backends.")
    app.add_typer(connector, name="connector")

    @connector.callback()
    def writing() -> None:
        """Write connectors for other backends."""

    @connector.command("new")
    def new(
        name: str = typer.Argument(help="What DB_TYPE will say, such as heron."),
        driver: str = typer.Option(
            "", help="SQLAlchemy's dialect and driver; default: NAME+asyncNAME."
        ),
        requires: str = typer.Option("", help="The driver's distribution; default: the driver."),
        port: int | None = typer.Option(
            None, help="Default port; leave it out for a backend without a network."
        ),
        into: str = typer.Option(
            "", help="Folder to write, which must not be there; default: moorage-NAME."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Write a distribution with a connector: package, tests, README and a CI file."""
        plan = plan_connector(name, driver=driver, requirement=requires, port=port)
        folder = Path(into or plan.distribution)
        written = [str(path) for path in write_connector(plan, folder)]
        commands = [
            f"cd {folder}",
            "pip install -e '.[test]'",
            f"{plan.name.upper()}_TEST_NAME=an_empty_database pytest",
        ]
        lines = [*(f"wrote {path}" for path in written), "", "Next:"]
        text = "\n".join([*lines, *(f"  {command}" for command in commands)])
        answer(as_json, {"written": written, "next": commands}, text)


@dataclass(frozen=True)
class _Described:
    name: str
    distribution: str
    version: str
    driver: str = ""
    contract: int | None = None
    capabilities: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()
    has_own_pool: bool = False
    problem: str = ""


def _describe(item: InstalledConnector) -> _Described:
    described = _Described(item.name, item.distribution, item.version)
    try:
        connector = registry.find(item.name)
    except MoorageError as error:
        return replace(described, problem=str(error))
    described = replace(
        described, contract=connector.contract, capabilities=_names(connector.capabilities)
    )
    having = [name for name in abilities.__all__ if issubclass(connector, getattr(abilities, name))]
    described = replace(described, abilities=tuple(having))
    try:
        engine = connector(DatabaseSettings.model_construct(type=item.name)).create_engine()
    except Exception as error:  # noqa: BLE001 (whatever a stranger's class raises is its problem)
        return replace(described, problem=str(error))
    return replace(
        described,
        driver=_driver(engine.dialect.driver),
        has_own_pool=not isinstance(engine.pool, LoopPool),
    )


def _driver(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _names(capabilities: Capabilities) -> tuple[str, ...]:
    # Which errors are told apart is too long for a line, and a matter of the documentation.
    return tuple(name for name, value in vars(capabilities).items() if value and name != "errors")


def _print_table(found: list[_Described]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Into a pipe or a file goes everything: what cuts lines there is nobody's terminal.
    console = Console() if is_for_people() else Console(width=200)
    if not found:
        console.print("no connector is installed\n  Next step: pip install moorage-postgres")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("connector", "distribution", "driver", "contract", "can")
    for column in columns:
        table.add_column(column, overflow="fold")
    for item in found:
        table.add_row(*_cells(item))
    console.print(table)


def _cells(item: _Described) -> tuple[str, ...]:
    from rich.markup import escape

    origin = f"{item.distribution} {item.version}".strip() or "registered in code"
    can: Any = ", ".join([*item.capabilities, *item.abilities])
    if item.has_own_pool:
        can = f"[yellow]has a pool of its own, with its own limits and waits;[/yellow] {can}"
    if item.problem:
        can = f"[red]broken:[/red] {escape(item.problem)}"
    contract = "" if item.contract is None else str(item.contract)
    return item.name, origin, item.driver, contract, can
