"""``moorage doctor``: say what is wrong with a project, its settings and its database."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from moorage.doctor import examine

if TYPE_CHECKING:
    import typer

__all__ = ["add_doctor_command"]


def add_doctor_command(app: typer.Typer) -> None:
    """Add the command ``doctor`` to the command line."""
    import typer

    @app.command()
    def doctor(
        prefix: str = typer.Option("DB_", "--prefix", help="Prefix of the database's variables."),
        offline: bool = typer.Option(False, "--offline", help="Do not connect."),
        strict: bool = typer.Option(False, "--strict", help="Exit with 1 for warnings as well."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, for scripts."),
    ) -> None:
        """Look for what is wrong; exits with 1 if anything is. Run it in the project's folder."""
        report = asyncio.run(examine(prefix=prefix, connect=not offline))
        is_bad = report.has_errors or (strict and bool(report.findings))
        if as_json:
            data = {
                "is_clean": not report.findings,
                "facts": report.facts,
                "findings": [finding.to_json() for finding in report.findings],
            }
            print(json.dumps(data, indent=2))
        else:
            for name, value in report.facts.items():
                print(f"{name}: {value}")
            for finding in report.findings:
                print(f"\n{finding}")
            print(f"\n{len(report.findings)} finding(s)" if report.findings else "\nall is well")
        if is_bad:
            raise typer.Exit(1)
