"""
What is published installs, alone and together, and works.

Everything is built in a copy of the tree with the build backend of this environment, so that
neither the tree nor the network takes part in building.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MODULES = {
    "moorage": "moorage",
    "moorage-postgres": "moorage_postgres",
    "moorage-mysql": "moorage_mysql",
    "moorage-sqlite": "moorage_sqlite",
    "moorage-fastapi": "moorage_fastapi",
}
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


@dataclass(frozen=True)
class Built:
    """The files of one distribution."""

    wheel: Path
    sdist: Path


def run(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end and return its output; a failure shows what it printed."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def uv() -> str:
    """Return the uv of this environment."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def clean_environment(**settings: str) -> dict[str, str]:
    """Return the variables of this process without any that moorage or Python would read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DB_", "PYTHON", "VIRTUAL_ENV")) and name != "DATABASE_URL"
    }
    return {**kept, **settings}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Build all distributions in a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    rubbish = shutil.ignore_patterns("__pycache__", "dist", ".*")
    shutil.copytree(ROOT / "packages", tree / "packages", ignore=rubbish)
    found = {}
    for project in sorted(tree.glob("packages/*/pyproject.toml")):
        dist = tree / "dist" / project.parent.name
        run([sys.executable, "-m", "hatchling", "build", "-d", dist], cwd=project.parent)
        (wheel,) = dist.glob("*.whl")
        (sdist,) = dist.glob("*.tar.gz")
        found[wheel.name.partition("-")[0].replace("_", "-")] = Built(wheel, sdist)
    assert found.keys() == MODULES.keys()
    return found


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
    assert not [entry for entry in names if "/tests/" in entry or entry.endswith(".pyc")]
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
    dist = tmp_path / "dist"
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist], cwd=source)
    (wheel,) = dist.glob("*.whl")
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
    run([uv(), "venv", "--quiet", "--python", sys.executable, place])
    python = place / "bin" / "python"
    wheels = [built["moorage"].wheel, built[name].wheel]
    run([uv(), "pip", "install", "--quiet", "--python", python, *wheels])
    return name, python


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
    run([uv(), "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"])
    python = tmp_path / "venv" / "bin" / "python"
    wheels = {built["moorage"].wheel, built[name].wheel}
    run([uv(), "pip", "install", "--quiet", "--python", python, *wheels])
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
