"""What the command line prints, and how it exits."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from sqlalchemy import URL
from typer.testing import CliRunner

from moorage import DBConnector, installed_connectors, register_connector, unregister_connector
from moorage.cli import contributed, main, make_app


class SpareConnector(DBConnector):
    """A connector that works, on a driver that is installed with every backend's tests."""

    name = "spare"
    contract = 1

    def get_url(self) -> URL:
        """Return a URL of SQLAlchemy's own."""
        return self.build_url("sqlite+aiosqlite", database=None, username=None, host=None)


class PoollessConnector(SpareConnector):
    """A connector that replaces the engine's arguments instead of extending them."""

    name = "poolless"

    def get_engine_args(self) -> dict[str, Any]:
        """Return what has nothing of the base."""
        return {}


class DriverlessConnector(SpareConnector):
    """A connector whose driver nobody has."""

    name = "driverless"

    def get_url(self) -> URL:
        """Return a URL of a dialect that does not exist."""
        return self.build_url("duck+asyncduck")


@pytest.fixture
def spare() -> Iterator[None]:
    """Register the connector that works."""
    register_connector(SpareConnector)
    yield
    unregister_connector("spare", "driverless", "poolless")


def run(*arguments: str) -> tuple[int, str]:
    """Run the command line, which is no terminal here."""
    result = CliRunner().invoke(make_app(), arguments)
    return result.exit_code, result.output


def test_the_table_lists_what_is_installed(spare: None) -> None:
    """Each connector has a line with its origin, its driver and its contract."""
    code, output = run("connectors")
    assert code == 0
    (line,) = (line for line in output.splitlines() if line.startswith("spare"))
    assert line.split()[1:5] == ["registered", "in", "code", "aiosqlite"]
    assert line.split()[6] == "1"
    assert "savepoints" in line
    assert "\x1b" not in output


def test_json_is_for_scripts(spare: None) -> None:
    """The same as data, one object per connector."""
    code, output = run("connectors", "--json")
    found: list[dict[str, Any]] = json.loads(output)
    assert code == 0
    assert [item["name"] for item in found] == [item.name for item in installed_connectors()]
    (mine,) = (item for item in found if item["name"] == "spare")
    assert mine["contract"] == 1
    assert "savepoints" in mine["capabilities"]
    assert mine["problem"] == ""


def test_a_broken_connector_is_shown_with_its_problem(spare: None) -> None:
    """A driver that is missing is said beside the others, and the exit code tells."""
    register_connector(DriverlessConnector)
    code, output = run("connectors")
    assert code == 1
    assert "driverless" in output
    assert "broken:" in output
    assert "duck" in output
    code, output = run("connectors", "--json")
    assert code == 1
    assert [item["name"] for item in json.loads(output) if item["problem"]] == ["driverless"]


def test_a_pool_of_its_own_is_said(spare: None) -> None:
    """A connector that opted out of our pool is shown as such, and works."""
    register_connector(PoollessConnector)
    code, output = run("connectors")
    assert code == 0
    (line,) = (line for line in output.splitlines() if line.startswith("poolless"))
    assert "pool of its own" in line
    _, output = run("connectors", "--json")
    pools = {item["name"]: item["has_own_pool"] for item in json.loads(output)}
    assert pools["poolless"]
    assert not pools["spare"]


def test_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any connector the command says how to get one."""
    monkeypatch.setattr("moorage.cli.connectors.installed_connectors", list)
    code, output = run("connectors")
    assert code == 1
    assert "pip install moorage-postgres" in output


def test_without_typer_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exists without its extra, and says how to get it."""
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "pip install 'moorage[cli]'" in capsys.readouterr().err


class Contributed:
    """An entry point of somebody's commands."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.dist = None
        self._make = make

    def load(self) -> Callable[[], Any]:
        """Return what it leads to, or fail."""
        if self._make is None:
            raise ImportError("no module named wings")
        return self._make


def duck() -> typer.Typer:
    """Return a group with a command that says something."""
    group = typer.Typer(no_args_is_help=True)

    @group.command()
    def quack() -> None:
        typer.echo("quack")

    @group.callback()
    def about() -> None:
        """Be a duck."""

    return group


def test_commands_of_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A distribution contributes commands; what is broken, or there already, stops no other."""
    points = [Contributed("swan", None), Contributed("duck", duck), Contributed("doctor", duck)]  # type: ignore[arg-type]
    monkeypatch.setattr(contributed, "entry_points", lambda group: points)
    assert run("duck", "quack") == (0, "quack\n")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("the commands 'doctor' of an unknown distribution are left out")
    assert "no module named wings" in told[1]
    status, output = run("doctor", "--help")
    assert status == 0
    assert "quack" not in output
