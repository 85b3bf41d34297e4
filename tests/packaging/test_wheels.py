"""
What is published installs, alone and together, and works.

Everything is built in a copy of the tree with the build backend of this environment, so that
neither the tree nor the network takes part in building.
"""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.packaging.building import (
    MODULES,
    ROOT,
    Built,
    build,
    clean_environment,
    new_environment,
    run,
    uv,
)

DRIVERS = {
    "moorage-postgres": {"asyncpg"},
    "moorage-mysql": {"aiomysql", "pymysql"},
    "moorage-sqlite": {"aiosqlite"},
}
# Whatever a service with one connector must not be made to install.
OPTIONAL = {"alembic", "fastapi", "pytest", "starlette", "typer"}

# Run by a fresh interpreter that has nothing but one connector and what it needs.
USE = """
import asyncio
import json
import sys

import moorage

assert not {"aiosqlite", "asyncpg", "aiomysql"} & set(sys.modules)
settings = moorage.DatabaseSettings.from_env(env_file=None)
connector = moorage.get_connector(settings)


async def main():
    engine = moorage.get_engine()
    if connector.name == "sqlite":
        from sqlalchemy import text

        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
    await moorage.dispose_engine()
    return engine.dialect.driver


print(json.dumps({"connector": connector.name, "driver": asyncio.run(main())}))
"""


@pytest.mark.parametrize("name", MODULES)
def test_wheel_content(built: dict[str, Built], name: str) -> None:
    """A wheel holds its package, the mark of typed code, the licence, and nothing else."""
    with zipfile.ZipFile(built[name].wheel) as archive:
        names = archive.namelist()
        metadata = next(entry for entry in names if entry.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
        licence = metadata.replace("METADATA", "licenses/LICENSE")
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert f"{MODULES[name]}/py.typed" in names
    assert {entry.partition("/")[0] for entry in names} == {
        MODULES[name],
        metadata.partition("/")[0],
    }
    code = [entry for entry in names if "/templates/" not in entry]
    assert not [entry for entry in code if "/tests/" in entry or entry.endswith(".pyc")]
    assert fields["Description-Content-Type"] == "text/markdown"
    assert fields["License-Expression"] == "MIT"


def test_versions_are_one(built: dict[str, Built]) -> None:
    """All distributions are built with the same version."""
    versions = {path.name.split("-")[1] for path in (files.wheel for files in built.values())}
    assert len(versions) == 1


@pytest.mark.parametrize("name", MODULES)
def test_sdist_builds_alone(built: dict[str, Built], name: str, tmp_path: Path) -> None:
    """A source distribution builds into the same wheel without the tree that it comes from."""
    # Not tarfile: the first Pythons of 3.11 lack the filter that later ones demand.
    run(["tar", "-xzf", built[name].sdist, "-C", tmp_path])
    (source,) = tmp_path.iterdir()
    assert (source / "README.md").is_file()
    (wheel,) = build(source, tmp_path / "dist", "wheel")
    with zipfile.ZipFile(wheel) as again, zipfile.ZipFile(built[name].wheel) as first:
        assert again.namelist() == first.namelist()


@pytest.fixture(scope="session", params=DRIVERS)
def one_connector(
    request: pytest.FixtureRequest,
    built: dict[str, Built],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """Return a connector and the Python of a fresh environment that has only it and the core."""
    name: str = request.param
    place = tmp_path_factory.mktemp(name) / "venv"
    return name, new_environment(place, built["moorage"].wheel, built[name].wheel)


def test_one_connector_brings_no_other_driver(one_connector: tuple[str, Path]) -> None:
    """Core and one connector install that connector's driver, and no other, and no framework."""
    name, python = one_connector
    listed = run([uv(), "pip", "list", "--python", python, "--format", "json"])
    present = {entry["name"].lower() for entry in json.loads(listed)}
    assert DRIVERS[name] <= present
    others = {driver for other in DRIVERS if other != name for driver in DRIVERS[other]}
    assert present & (others | OPTIONAL | (MODULES.keys() - {"moorage", name})) == set()


@pytest.mark.parametrize("is_type_set", [True, False], ids=["DB_TYPE set", "DB_TYPE unset"])
def test_one_connector_works(
    one_connector: tuple[str, Path], is_type_set: bool, tmp_path: Path
) -> None:
    """The only connector is used, whether it is asked for by name or not at all."""
    name, python = one_connector
    short = name.removeprefix("moorage-")
    settings = {"DB_TYPE": short} if is_type_set else {}
    output = run([python, "-c", USE], cwd=tmp_path, env=clean_environment(**settings))
    used = json.loads(output)
    assert used["connector"] == short
    assert used["driver"] in DRIVERS[name]


@pytest.mark.parametrize("name", ["moorage-fastapi", "moorage"])
def test_every_module_imports_alone(built: dict[str, Built], name: str, tmp_path: Path) -> None:
    """Core and FastAPI package import where no connector is installed at all."""
    wheels = {built["moorage"].wheel, built[name].wheel}
    python = new_environment(tmp_path / "venv", *wheels)
    run([python, "-c", f"import {MODULES[name]}"], cwd=tmp_path, env=clean_environment())


def everything(built: dict[str, Built]) -> list[str]:
    """Return all wheels as requirements, the core with the extras that pull the others."""
    extras = "[postgres,mysql,sqlite,fastapi]"
    return [f"{files.wheel}{extras if name == 'moorage' else ''}" for name, files in built.items()]


def test_all_resolve_together_with_uv(built: dict[str, Built]) -> None:
    """uv finds versions that satisfy all distributions at once."""
    argv = [uv(), "pip", "compile", "--quiet", "--python", sys.executable, "--no-header", "-"]
    lines = "\n".join(
        f"{name}{'[postgres,mysql,sqlite,fastapi]' if name == 'moorage' else ''} @ "
        f"{files.wheel.as_uri()}"
        for name, files in built.items()
    )
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in MODULES:
        assert f"\n{name} @" in f"\n{done.stdout}"


def test_all_resolve_together_with_pip(built: dict[str, Built], tmp_path: Path) -> None:
    """Pip finds versions that satisfy all distributions at once."""
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    run([sys.executable, "-m", "pip", "install", *options, *everything(built)])
    installs = json.loads(report.read_text())["install"]
    assert MODULES.keys() <= {entry["metadata"]["name"] for entry in installs}
