"""Say how long the conformance suite took: whoever writes a connector runs it all day."""

import pytest

_FILE = "test_conformance.py::"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each package whose connector the suite was run on."""
    seconds: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and _FILE in report.nodeid:
                place = report.nodeid.partition("::")[0]
                seconds[place] = seconds.get(place, 0.0) + report.duration
    for place, took in seconds.items():
        terminalreporter.write_line(f"moorage: the suite for connectors took {took:.1f} s: {place}")
