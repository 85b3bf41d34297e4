"""
Connectors that others publish are found; each thing that can be wrong with one has its own error.

Each is a distribution of its own, built outside of this tree and installed beside the core.
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.building import Built, clean_environment, new_environment, run

# What a build backend would write, of which several would take their time here.
INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": "[moorage.connectors]\n{name} = {module}:{attribute}\n",
    "RECORD": "",
}

CONNECTOR = """
from moorage import Capabilities, DBConnector


class Connector(DBConnector):
    name = "{name}"
    contract = {contract}
    capabilities = Capabilities(networked=False)

    def get_url(self):
        return self.build_url("{driver}")
"""

TRY = """
import json

import moorage

found = {}
for item in moorage.installed_connectors():
    try:
        settings = moorage.DatabaseSettings(type=item.name, name="app.db", _env_file=None)
        connector = moorage.get_connector(settings)
        moorage.Database(connector=connector).engine
    except moorage.MoorageError as error:
        found[item.name] = {
            "kind": type(error).__name__,
            "message": str(error),
            "cause": type(error.__cause__).__name__,
        }
    else:
        found[item.name] = {"kind": "", "message": type(connector).__module__, "cause": ""}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Outside:
    """
    A distribution of somebody else.

    Attributes:
        name: Name of its connector.
        error: Class of the error it meets; empty for none.
        says: What else the error tells, besides the distribution.
        source: Its only module; what stands in braces is filled in.
        attribute: What its entry point names.
        contract: Number of the contract.
        driver: SQLAlchemy's name of its driver.
        distribution: Its own name; unset: made of the connector's.
    """

    name: str
    error: str = ""
    says: str = ""
    source: str = CONNECTOR
    attribute: str = "Connector"
    contract: object = 1
    driver: str = "sqlite+aiosqlite"
    distribution: str = ""

    @property
    def published_as(self) -> str:
        """Return the name of the distribution."""
        return self.distribution or f"moorage-{self.name}"

    def build(self, folder: Path) -> Path:
        """Write the wheel and return it."""
        module = self.published_as.replace("-", "_")
        names = {**asdict(self), "distribution": self.published_as, "module": module}
        wheel = folder / f"{module}-1.2.3-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{module}/__init__.py", self.source.format(**names))
            for name, text in INFO.items():
                archive.writestr(f"{module}-1.2.3.dist-info/{name}", text.format(**names))
        return wheel


OUTSIDE = [
    Outside("good"),
    Outside("driverless", "ConnectorImportError", "asyncduck", driver="sqlite+asyncduck"),
    Outside("importless", "ConnectorImportError", "asyncduck", "import asyncduck\n"),
    Outside("empty", "ConnectorContractError", "no such attribute", attribute="Missing"),
    Outside("classless", "ConnectorContractError", "not a subclass", "Connector = dict\n"),
    Outside(
        "urlless",
        "ConnectorContractError",
        "get_url",
        'from moorage import DBConnector\nclass Connector(DBConnector):\n    name = "urlless"\n',
    ),
    Outside(
        "lost",
        "ConnectorContractError",
        "Could not parse",
        CONNECTOR.replace('self.build_url("{driver}")', '"sqlite+aiosqlite//"'),
    ),
    Outside("old", "ContractVersionError", "contract 0", contract=0),
    Outside("new", "ContractVersionError", "contract 2", contract=2),
    Outside("worded", "ConnectorContractError", "no number", contract='"one"'),
    Outside("twice", "ConnectorConflictError", "moorage-twice-too"),
    Outside("twice", "ConnectorConflictError", "moorage-twice", distribution="moorage-twice-too"),
]


@pytest.fixture(scope="module")
def environment(
    built: dict[str, Built], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the Python of an environment with all of them, and a folder to run in."""
    folder = tmp_path_factory.mktemp("outside")
    wheels = [outside.build(folder) for outside in OUTSIDE]
    core = f"{built['moorage'].wheel}[cli]"
    return new_environment(folder / "venv", core, "aiosqlite", *wheels), folder


@pytest.fixture(scope="module")
def met(environment: tuple[Path, Path]) -> dict[str, dict[str, str]]:
    """Return what each connector met when it was asked for."""
    python, folder = environment
    output = run([python, "-W", "error", "-c", TRY], cwd=folder, env=clean_environment())
    found: dict[str, dict[str, str]] = json.loads(output)
    return found


@pytest.mark.parametrize("outside", OUTSIDE, ids=lambda outside: outside.published_as)
def test_each_is_used_or_refused_by_name(outside: Outside, met: dict[str, dict[str, str]]) -> None:
    """A connector of others is used, or refused by an error of its own that names its origin."""
    result = met[outside.name]
    assert result["kind"] == outside.error
    if not outside.error:
        assert result["message"] == "moorage_good"
        return
    assert outside.published_as in result["message"]
    assert outside.says in result["message"]
    assert "Next step: " in result["message"]


def test_a_missing_driver_keeps_its_cause(met: dict[str, dict[str, str]]) -> None:
    """What Python said about a missing module is chained to the error that explains it."""
    assert met["importless"]["cause"] == "ModuleNotFoundError"
    assert met["driverless"]["cause"] == "NoSuchModuleError"


def test_the_command_lists_all_of_them(environment: tuple[Path, Path]) -> None:
    """`moorage connectors --json` tells of each what it is, or what is wrong with it."""
    python, folder = environment
    script = "import sys, moorage.cli; sys.argv[1:] = ['connectors', '--json']; moorage.cli.main()"
    code = f"import contextlib\nwith contextlib.suppress(SystemExit):\n    exec({script!r})"
    listed: list[dict[str, Any]] = json.loads(
        run([python, "-c", code], cwd=folder, env=clean_environment())
    )
    assert sorted(item["distribution"] for item in listed) == sorted(
        outside.published_as for outside in OUTSIDE
    )
    assert {item["version"] for item in listed} == {"1.2.3"}
    (good,) = (item for item in listed if item["name"] == "good")
    assert good["problem"] == ""
    assert good["contract"] == 1
    assert good["driver"].startswith("aiosqlite ")
    for item in listed:
        assert bool(item["problem"]) == (item["name"] != "good")
