"""What is written about moorage is true."""

import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import moorage
from moorage import Capabilities, DatabaseSettings, DBConnector, MoorageError, abilities
from moorage.cli.contributed import COMMANDS_GROUP
from moorage.testing import ConnectorSuite
from moorage.testing.check import checks_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "examples/fastapi-app/README.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
DRIVE = """
import asyncio, httpx
from app import app
from boats import Base
from moorage import dispose_engine, get_engine

async def drive():
    async with get_engine().begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/boats", params={"name": "Fram"})).status_code == 201
        print((await client.get("/boats")).json())
    await dispose_engine()

asyncio.run(drive())
"""


STORE_A_BOAT = """
import asyncio, datetime as dt
from decimal import Decimal
from models import ArchiveBase, Base, Boat, PlainBase, Rig, Trip
from moorage import UnitOfWork, dispose_engine, get_engine

async def drive():
    async with get_engine().begin() as connection:
        for base in (Base, PlainBase, ArchiveBase):
            await connection.run_sync(base.metadata.create_all)
    async with UnitOfWork() as session:
        now = dt.datetime.now(dt.UTC)
        boat = Boat(name="Fram", price=Decimal("1.5"), rig=Rig.SLOOP, launched_at=now, papers={})
        boat.trips.append(Trip(days=3))
        session.add(boat)
        await session.flush()
        print(len(boat.trips), boat.trips[0].id, boat.rig)
    await dispose_engine()

asyncio.run(drive())
"""


def run(folder: Path, *arguments: str, **variables: str) -> str:
    """Run Python in a folder, as the README says it, on a database in memory."""
    settings = {"DB_TYPE": "sqlite", "DB_NAME": ":memory:", **variables}
    environment = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_shortest_program_runs(tmp_path: Path) -> None:
    """The README's first program prints what the README says it prints."""
    (tmp_path / "boats.py").write_text(PROGRAMS[0])
    assert run(tmp_path, "boats.py") == "['Fram']\n"
    assert "['Fram']" in README


def test_the_shortest_application_answers(tmp_path: Path) -> None:
    """The README's FastAPI application is at most 25 lines and stores what it was sent."""
    script = PROGRAMS[0].replace("asyncio.run(main())", "")
    (tmp_path / "boats.py").write_text(script)
    (tmp_path / "app.py").write_text(PROGRAMS[1])
    (tmp_path / "drive.py").write_text(DRIVE)
    assert run(tmp_path, "drive.py") == "['Fram']\n"
    assert len(PROGRAMS[1].splitlines()) <= 25


def test_the_tables_of_settings_are_current() -> None:
    """The page of settings lists every one as the code defines it, options too."""
    run(ROOT, "scripts/settings_tables.py", "--check")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link inside of the repository leads to a file that is there."""
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (folder / target).exists()] == []


def test_every_error_has_its_section() -> None:
    """The page of errors has one section per anchor, which names the class."""
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    classes = {
        cls.anchor: cls.__name__
        for cls in vars(moorage).values()
        if isinstance(cls, type) and issubclass(cls, MoorageError)
    }
    assert set(sections) == set(classes)
    for anchor, name in classes.items():
        assert f"`{name}`" in sections[anchor]


CONNECTORS_PAGE = ROOT / "docs/writing-a-connector.md"


def blocks_of(language: str) -> list[str]:
    """Return the blocks of a language on the page on connectors."""
    page = CONNECTORS_PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def table(name: str) -> dict[str, str]:
    """Return the rows of a marked table of the page on connectors, first column to last."""
    page = CONNECTORS_PAGE.read_text(encoding="utf-8")
    body = page.partition(f"<!-- {name}:")[2].partition(f"<!-- /{name} -->")[0]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    assert rows
    return {row[0]: row[-1] for row in rows}


def test_the_page_on_connectors_runs() -> None:
    """Every block of Python on the page on writing a connector runs, and makes a usable class."""
    blocks = re.findall(
        r"```python\n(.*?)```", CONNECTORS_PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    for number, block in enumerate(blocks):
        names: dict[str, Any] = {"__name__": f"block_{number}"}
        exec(compile(block, f"block {number}", "exec"), names)  # noqa: S102 (our own page)
        if "duck" in names:
            assert CliRunner().invoke(names["duck"](), ["count"]).output == "3\n"
            continue
        assert {"DuckConnector", "TestDuckConnector"} & names.keys()
        if "DuckConnector" in names:
            settings = DatabaseSettings(
                host="pond", name="ducks", ssl_mode="disable", _env_file=None
            )
            settings = DatabaseSettings(name="ducks", _env_file=None)
            connector = names["DuckConnector"](settings)
            assert connector.get_url().drivername == "duck+asyncduck"
            assert connector.get_engine_args()
    assert blocks


def test_each_capability_is_shown_with_its_checks() -> None:
    """The page on connectors maps each capability to the checks that the suite has for it."""
    checks = checks_of(ConnectorSuite)
    shown = {
        re.findall(r"`(\w+)`", first)[0]: set(re.findall(r"`(test_\w+)`", last))
        for first, last in table("capabilities").items()
    }
    assert shown.keys() == {field.name for field in fields(Capabilities)}
    assert shown.pop("errors") == {"test_each_declared_error_is_brought_about"}
    for capability, names in shown.items():
        assert names == {
            name
            for name, about in checks.items()
            if about.capability == capability and not about.hook  # shown with the hook
        }


def is_protocol(cls: object) -> bool:
    """Return whether a class is a protocol."""
    return bool(getattr(cls, "_is_protocol", False))


def test_each_ability_is_shown_with_its_checks() -> None:
    """The page on connectors names the checks of each ability."""
    page = CONNECTORS_PAGE.read_text(encoding="utf-8")
    for ability in abilities.__all__:
        if not is_protocol(getattr(abilities, ability)):
            continue  # it is what an ability answers
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{ability}`"))
        for name, about in checks_of(ConnectorSuite).items():
            is_its = getattr(about.ability, "__name__", "") == ability and not about.capability
            assert (f"`{name}`" in row) == is_its


def test_each_method_of_a_connector_is_shown() -> None:
    """The page on connectors says of each method whether it must, may or must not be overridden."""
    shown = {name for first in table("methods") for name in re.findall(r"`(\w+)`", first)}
    public = {
        name
        for name, value in vars(DBConnector).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    assert shown == public


def test_each_hook_is_shown_with_its_check() -> None:
    """The page on connectors names the check of each method that has one for its override."""
    shown = {
        name: set(re.findall(r"`(test_\w+)`", last))
        for first, last in table("methods").items()
        for name in re.findall(r"`(\w+)`", first)
    }
    for name, about in checks_of(ConnectorSuite).items():
        assert not about.hook or name in shown[about.hook]


def test_the_errors_that_are_brought_about_are_listed() -> None:
    """The page on connectors names the errors that the suite brings about."""
    page = CONNECTORS_PAGE.read_text(encoding="utf-8")
    section = page.partition("What is in `Capabilities.errors`")[2].partition("Others only")[0]
    violations = {"Unique", "ForeignKey", "NotNull", "Check"}  # in words of their own
    brought = {
        kind.__name__ for about in checks_of(ConnectorSuite).values() for kind in about.brings
    }
    listed = set(re.findall(r"`(\w+Error)`", section))
    assert brought - {f"{name}ViolationError" for name in violations} == listed


def test_the_toml_of_a_connector_is_valid() -> None:
    """What the page says of the distribution is what packaging tools read."""
    distribution, commands = map(tomllib.loads, blocks_of("toml"))
    points = distribution["project"]["entry-points"]["moorage.connectors"]
    assert points == {"duck": "moorage_duck:DuckConnector"}
    assert list(commands["project"]["entry-points"]) == [COMMANDS_GROUP]


def test_the_page_on_models_runs(tmp_path: Path) -> None:
    """The models of the page on models can be created, and hold a row."""
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "models.py").write_text("\n".join(blocks))
    (tmp_path / "drive.py").write_text(STORE_A_BOAT)
    assert run(tmp_path, "drive.py") == "1 1 Rig.SLOOP\n"
    assert len(blocks) == 2


def test_the_page_on_migrations_runs(tmp_path: Path) -> None:
    """The commands of the page work in a new project, and so does each form of its env.py."""
    page = (ROOT / "docs/migrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    commands = re.findall(r"^\$ moorage (db [^#\n]+)", page, re.MULTILINE)
    models = "from moorage.models import Base, IntegerKey\nclass Boat(IntegerKey, Base):\n"
    (tmp_path / "boats").mkdir()
    (tmp_path / "boats/models.py").write_text(f"{models}    __tablename__ = 'boats'\n")
    file = {"DB_NAME": "app.db"}

    def moorage(command: str) -> str:
        program = "from moorage.cli import main; main()"
        return run(tmp_path, "-c", program, *shlex.split(command), **file)

    for command in commands[:3]:
        moorage(command)
    env = tmp_path / "migrations/env.py"
    assert env.read_text().split() == blocks[0].split()
    (tmp_path / "start.py").write_text(
        f"import asyncio\n{blocks[1]}\n"
        "asyncio.run(start())\nasyncio.run(start_without_migrating())\n"
    )
    assert run(tmp_path, "start.py", **file) == "[]\n"
    blocks = [block for block in blocks if "lint_ignore" not in block]
    for block in blocks[2:]:
        env.write_text(blocks[0].replace("run(Base.metadata)", block))
        assert moorage("db sql").count("CREATE TABLE") == 2
    env.write_text(blocks[0])
    (sections,) = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    (tmp_path / "alembic.ini").write_text(
        sections.replace("/analytics", "/migrations").replace(
            "\n\n", "\nprepend_sys_path = %(here)s\npath_separator = os\n\n"
        )
        + "prepend_sys_path = %(here)s\npath_separator = os\n"
    )
    other = {"DB_NAME": "wrong.db", "ANALYTICS_DB_TYPE": "sqlite", "ANALYTICS_DB_NAME": "app.db"}
    program = "from moorage.cli import main; main()"
    assert run(tmp_path, "-c", program, *shlex.split(commands[4]), **other) == "nothing to do\n"
    assert (len(blocks), len(commands)) == (4, 5)


def test_the_page_on_seeds_runs(tmp_path: Path) -> None:
    """The function and the file of the page are planted in a project, and by its code as well."""
    page = (ROOT / "docs/seeds.md").read_text(encoding="utf-8")
    function, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (data,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "boats").mkdir()
    (tmp_path / "boats/models.py").write_text(MODELS_OF_SEEDS)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/boats.yaml").write_text(data)
    optional = function.replace('"Fram"}', '"Gjøa", "price": 1, "launched_at": NOW}')
    (tmp_path / "seeds/more.py").write_text(f"from boats.models import NOW\n{optional}")
    file = {"DB_NAME": "app.db"}
    run(tmp_path, "-c", "import boats.models as m; m.create()", **file)
    command = ["-c", "from moorage.cli import main; main()", "db", "seed", "--env", "dev"]
    command += ["--models", "boats.models:Base"]
    for expected in ("3 inserted; nothing of it stays", "3 inserted"):
        options = ["--dry-run"] if "nothing" in expected else []
        said = run(tmp_path, *command, *options, **file)
        assert said == f"2 of 2 seeds run; rows: {expected}\n"
    again = f"{code}\nimport asyncio\nfrom moorage import dispose_engine\n"
    again += (
        "async def main():\n    await fill()\n    await dispose_engine()\nasyncio.run(main())\n"
    )
    run(tmp_path, "-c", again, **file)
    said = run(tmp_path, *command, **file)
    assert said == "2 of 2 seeds run; rows: 3 unchanged\n"


MODELS_OF_SEEDS = """
import asyncio
import datetime as dt
import decimal
from moorage import dispose_engine, get_engine
from moorage.models import Base, IntegerKey
from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

class Boat(IntegerKey, Base):
    __tablename__ = "boats"
    name: Mapped[str] = mapped_column(unique=True)
    price: Mapped[decimal.Decimal]
    launched_at: Mapped[dt.datetime]

class Trip(IntegerKey, Base):
    __tablename__ = "trips"
    __table_args__ = (UniqueConstraint("boat_id", "number"),)
    boat_id: Mapped[int] = mapped_column(ForeignKey("boats.id"))
    number: Mapped[int]

def create():
    async def work():
        async with get_engine().begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await dispose_engine()
    asyncio.run(work())
"""


DRIVE_FASTAPI = """
import asyncio, warnings
from contextlib import asynccontextmanager

import page
from boats import Base
from moorage import MoorageError, dispose_engine, get_engine
from moorage_fastapi.testing import isolated_client

with warnings.catch_warnings():  # newer Starlette would rather have httpx2
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

async def prepare():
    async with get_engine().begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

async def isolated():
    await prepare()
    async with asynccontextmanager(page.client)() as client:
        await page.test_boats(client)
    await dispose_engine()

asyncio.run(isolated())
with TestClient(page.app) as client:
    client.portal.call(prepare)
    assert client.post("/boats", params={"name": "Fram"}).status_code == 201
    assert client.get("/boats").json() == ["Fram"]
    assert client.get("/boats/1").json() == "Fram"
    assert client.get("/boats/2").status_code == 404
    assert client.put("/boats/1/name", params={"name": "Gjoa"}).status_code == 200
    assert client.post("/boats/1/launch").status_code == 200
    assert client.get("/boats.csv").text == "1,Gjoa\\n2,Gjoa II\\n"
    with client.websocket_connect("/radio") as radio:
        radio.send_text("Maud")
        assert radio.receive_text() == "stored"
    assert client.get("/health/ready").json()["status"] == "ready"
with TestClient(page.with_analytics) as client:
    assert client.get("/health/ready").json()["databases"]["analytics"]["status"] == "ready"
try:
    with TestClient(page.checked):
        print("started without migrations")
except MoorageError:
    print("refused to start")
"""


def test_the_page_on_fastapi_runs(tmp_path: Path) -> None:
    """All blocks of the page on FastAPI, one after the other, are programs that do what it says."""
    page = (ROOT / "docs/fastapi.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "boats.py").write_text(PROGRAMS[0].replace("asyncio.run(main())", ""))
    (tmp_path / "page.py").write_text("\n".join(blocks))
    (tmp_path / "drive.py").write_text(DRIVE_FASTAPI)
    settings = {"ANALYTICS_DB_TYPE": "sqlite", "ANALYTICS_DB_NAME": ":memory:"}
    assert run(tmp_path, "drive.py", **settings) == "refused to start\n"
    assert len(blocks) == 8


@pytest.mark.timeout(300)
def test_the_page_on_testing_runs(tmp_path: Path) -> None:
    """The tests of the page pass in a project, with the tables made as the page says."""
    page = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    line, schema, tests, server, suite, factories = blocks
    package = tmp_path / "boats"
    package.mkdir()
    (package / "models.py").write_text(
        "import enum, uuid\nfrom decimal import Decimal\nfrom typing import Any\n"
        "from moorage.models import Base, IntegerKey, Timestamps, uuid7\n"
        "from sqlalchemy.orm import Mapped, mapped_column as column\n"
        "Rig = enum.Enum('Rig', {'SLOOP': 'one mast'})\n"
        "class Boat(IntegerKey, Timestamps, Base):\n"
        "    __tablename__ = 'boats'\n"
        "    name: Mapped[str] = column(unique=True)\n"
        "    price: Mapped[Decimal] = column(default=Decimal(1))\n"
        "    rig: Mapped[Rig] = column(default=Rig.SLOOP)\n"
        "    hull: Mapped[uuid.UUID] = column(default=uuid7)\n"
        "    papers: Mapped[dict[str, Any]] = column(default=dict)\n"
    )
    (package / "service.py").write_text(
        "from boats.models import Boat\nfrom moorage import UnitOfWork\n"
        "from sqlalchemy import select\n"
        "async def launch(name):\n"
        "    async with UnitOfWork() as session:\n        session.add(Boat(name=name))\n"
        "async def names():\n"
        "    async with UnitOfWork() as session:\n"
        "        return list(await session.scalars(select(Boat.name)))\n"
    )
    (tmp_path / "conftest.py").write_text(line + schema)
    (tmp_path / "test_boats.py").write_text(tests)
    ini = "[pytest]\nasyncio_default_fixture_loop_scope = function\npythonpath = .\n"
    (tmp_path / "pytest.ini").write_text(ini)
    output = run(tmp_path, "-m", "pytest", "-q", DB_NAME="app.db")
    assert "2 passed" in output
    program = "from moorage.cli import main; main()"
    for command in ("init --models boats.models:Base", "revision -m tables", "upgrade"):
        run(tmp_path, "-c", program, "db", *command.split(), DB_NAME="app.db")
    (tmp_path / "test_migrations.py").write_text(suite)
    assert "5 passed" in run(tmp_path, "-m", "pytest", "-q", DB_NAME="app.db")
    (tmp_path / "conftest.py").write_text(line + schema + server)
    (tmp_path / "test_factories.py").write_text(f"import pytest\n{factories}")
    run_of_three = ("test_boats.py", "test_factories.py")
    assert "3 passed" in run(tmp_path, "-m", "pytest", "-q", *run_of_three)
