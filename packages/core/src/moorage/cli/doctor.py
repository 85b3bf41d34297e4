"""``moorage doctor``: say what is wrong with a project, its settings and its database."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Any

from moorage.cli.answering import is_for_people, print_json
from moorage.doctor import Finding, Report, examine

if TYPE_CHECKING:
    import typer

__all__ = ["add_doctor_command"]

_STYLES = {"error": "bold red", "warning": "bold yellow"}


def add_doctor_command(app: typer.Typer) -> None:
    """Add the command ``doctor`` to the command line."""
    import typer

    @app.command()
    def doctor(
        prefix: str = typer.Option("DB_", "--prefix", help="Prefix of the database's variables."),
        offline: bool = typer.Option(False, "--offline", help="Do not connect."),
        processes: int | None = typer.Option(
            None,
            "--processes",
            min=1,
            help="Processes that share the server, on all hosts; default: WEB_CONCURRENCY, or 1.",
        ),
        loops: int = typer.Option(
            1, "--loops", min=1, help="Event loops in each that use the database."
        ),
        strict: bool = typer.Option(False, "--strict", help="Exit with 1 for warnings as well."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Look for what is wrong; exits with 1 if anything is. Run it in the project's folder."""
        report = asyncio.run(
            examine(prefix=prefix, connect=not offline, processes=processes, loops=loops)
        )
        if as_json:
            findings = [finding.to_json() for finding in report.findings]
            print_json(
                {"is_clean": not findings, "facts": report.facts, "findings": findings},
            )
        elif is_for_people():
            _show(report)
        else:
            _print(report)
        if report.has_errors or (strict and report.findings):
            raise typer.Exit(1)


def _print(report: Report) -> None:
    for name, value in report.facts.items():
        print(f"{name}: {value}")
    for finding in report.findings:
        print(f"\n{finding}")
    print(f"\n{_summary(report)}")


def _show(report: Report) -> None:
    """Draw the same for a terminal, as wide as it is."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    console.print(_grid((Text(name, "dim"), Text(value)) for name, value in report.facts.items()))
    for (code, severity, why, advice), alike in groupby(report.findings, _kind):
        findings = list(alike)
        told = Text(f"\n{code} {severity}", _STYLES[severity])
        if len(findings) > 1:
            told.append(f", {len(findings)} times", "dim")
        console.print(told)
        rows = [(Text(""), _line(finding)) for finding in findings]
        rows += [(Text("why", "dim"), Text(why)), (Text("do", "dim"), Text(advice))]
        console.print(Padding(_grid(rows), (0, 0, 0, 2)))
    style = "green" if not report.findings else "red" if report.has_errors else "yellow"
    console.print(Text(f"\n{_summary(report)}", f"bold {style}"))


def _kind(finding: Finding) -> tuple[str, str, str, str]:
    return finding.code, finding.severity, finding.why, finding.advice


def _line(finding: Finding) -> Any:
    from rich.text import Text

    place = Text(f"{finding.place}  " if finding.place else "", "cyan")
    return place.append(finding.what, "default bold")


def _grid(rows: Any) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def _summary(report: Report) -> str:
    severities = [finding.severity for finding in report.findings]
    counts = {name: severities.count(name) for name in ("error", "warning")}
    told = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items() if n]
    return ", ".join(told) or "all is well"
