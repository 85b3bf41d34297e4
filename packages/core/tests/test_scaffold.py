"""Writing a new connector: what it is called, where it goes, and what is refused."""

import sys
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from moorage import MissingExtraError, ScaffoldError, __version__
from moorage.cli import make_app
from moorage.scaffold import rendering
from moorage.scaffold.connector import plan_connector, render_connector
from moorage.scaffold.rendering import write_new_folder


def run(*arguments: str) -> tuple[int, str]:
    """Run the command and return its exit code and all that it printed."""
    result = CliRunner().invoke(make_app(), ["connector", "new", *arguments])
    return result.exit_code, result.output


def test_a_distribution_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes a whole distribution, which says what to do next."""
    monkeypatch.chdir(tmp_path)
    code, output = run("sea_gull", "--port", "4711")
    assert code == 0
    folder = tmp_path / "moorage-sea-gull"
    project = (folder / "pyproject.toml").read_text()
    assert 'sea_gull = "moorage_sea_gull:SeaGullConnector"' in project
    assert f'"moorage>={__version__},<1"' in project
    for path in sorted(folder.rglob("*.py")):
        compile(path.read_text(), str(path), "exec")
        assert str(path.relative_to(tmp_path)) in output
    assert {"src", "tests", ".github", ".gitignore", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    assert "cd moorage-sea-gull" in output
    assert "SEA_GULL_TEST_NAME" in output


def test_a_backend_without_a_network_says_so() -> None:
    """Without a port the connector declares that it is not networked, and has no host to name."""
    rendered = render_connector(plan_connector("pond"))
    connector = rendered[PurePosixPath("src/moorage_pond/connector.py")]
    assert "networked=False" in connector
    assert "default_port" not in connector
    assert "DB_HOST" not in rendered[PurePosixPath("README.md")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Heron", "write heron"),
        ("my-db", "write my_db"),
        ("moorage-heron", "write heron"),
        ("moorage_heron", "write heron"),
        ("2fast", "choose another name"),
        ("heron_", "write heron"),
        ("../heron", "write heron"),
        ("", "choose another name"),
        ("pool", "choose another name"),
        ("host", "choose another name"),
    ],
)
def test_bad_names_are_refused(name: str, hint: str, tmp_path: Path) -> None:
    """A name that cannot be a connector's is refused with a better one, and nothing is written."""
    code, output = run(name, "--into", str(tmp_path / "new"))
    assert code == 1
    assert f"Next step: {hint}" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--driver", "asyncpg", "dialect and driver"),
        ("--driver", 'x+y"; import os', "dialect and driver"),
        ("--requires", 'asyncpg", "evil', "--requires"),
    ],
)
def test_bad_drivers_are_refused(option: str, value: str, hint: str, tmp_path: Path) -> None:
    """What is no driver or no requirement does not get into a file."""
    code, output = run("heron", option, value, "--into", str(tmp_path / "new"))
    assert code == 1
    assert hint in output
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """A connector that is installed keeps its name."""
    from moorage import installed_connectors

    taken = installed_connectors()[0]
    with pytest.raises(ScaffoldError, match=taken.distribution):
        plan_connector(taken.name)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder with anything in it is left as it is; an empty one is taken."""
    target = tmp_path / "new"
    target.mkdir()
    (target / "mine").write_text("precious")
    code, output = run("heron", "--into", str(target))
    assert code == 1
    assert "--into" in output
    assert [path.name for path in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    assert run("heron", "--into", str(target))[0] == 0
    code, output = run("heron", "--into", str(target / "pyproject.toml"))
    assert code == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    """What cannot be written whole is not written at all."""
    files = {PurePosixPath("a"): "", PurePosixPath("a/b"): ""}
    with pytest.raises(ScaffoldError, match="cannot be written"):
        write_new_folder(tmp_path / "new", files)
    assert list(tmp_path.iterdir()) == []


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates need the extra `cli`, and say how to get it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    rendering._templates.cache_clear()  # another test may have rendered them
    with pytest.raises(MissingExtraError, match=r"moorage\[cli\]"):
        render_connector(plan_connector("heron"))
