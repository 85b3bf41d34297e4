"""Connectors are found by name, late and once, or not at all with the reason."""

import importlib.metadata
import logging
import re
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from sqlalchemy import URL

from moorage import (
    ConnectorConflictError,
    ConnectorContractError,
    ConnectorError,
    ConnectorImportError,
    ConnectorNotFoundError,
    ContractVersionError,
    DatabaseSettings,
    DBConnector,
    InstalledConnector,
    SettingsError,
)
from moorage.registry import ENTRY_POINT_GROUP, ConnectorRegistry

CONNECTOR = """
from sqlalchemy import URL
from moorage import DBConnector

class Connector(DBConnector):
    name = {name!r}
    {line}

    def get_url(self) -> URL:
        return self.build_url("toy+driver")
"""


class ToyConnector(DBConnector):
    """A connector registered in code."""

    name = "toy"

    def get_url(self) -> URL:
        """Return any URL."""
        return self.build_url("toy+driver")


class OtherToyConnector(ToyConnector):
    """Another class of the same name."""


def source(name: str = "duck", line: str = "") -> str:
    """Return the source of a module with one connector, with a further line in its class."""
    return CONNECTOR.format(name=name, line=line)


class Distributions:
    """Distributions made on the fly, the only ones that the registry sees."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._folders: list[str] = []
        self.modules: set[str] = set()
        self.scans = 0

    def install(
        self, name: str, names: dict[str, str], modules: dict[str, str] | None = None
    ) -> None:
        """
        Put a distribution on the path.

        Args:
            name: Name of the distribution.
            names: Connectors by name, each as ``module:attribute``.
            modules: Source of its modules, by name.
        """
        site = self._folder / f"site-{len(self._folders)}"
        metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {value}\n" for key, value in names.items())
        (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{lines}")
        for module, text in (modules or {}).items():
            (site / f"{module}.py").write_text(text)
            self.modules.add(module)
        self._folders.append(str(site))
        self._monkeypatch.syspath_prepend(str(site))

    def entry_points(self, *, group: str) -> EntryPoints:
        """Stand in for ``importlib.metadata.entry_points``, so that a real connector is unseen."""
        self.scans += 1
        found: list[EntryPoint] = []
        for distribution in importlib.metadata.distributions(path=self._folders):
            found.extend(distribution.entry_points.select(group=group))
        return EntryPoints(found)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    """Return a place where distributions can be made; the registry sees no others."""
    distributions = Distributions(tmp_path, monkeypatch)
    monkeypatch.setattr("moorage.registry.entry_points", distributions.entry_points)
    yield distributions
    for module in distributions.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def registry() -> ConnectorRegistry:
    """Return a registry that knows nothing yet."""
    return ConnectorRegistry()


@pytest.fixture
def duck(site: Distributions) -> Distributions:
    """Return a place where the distribution `moorage-duck` is installed."""
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": source()})
    return site


def refusal(registry: ConnectorRegistry, name: str = "duck") -> ConnectorError:
    """Return the error that a connector cannot be had with."""
    with pytest.raises(ConnectorError) as caught:
        registry.find(name)
    return caught.value


# ---- found -------------------------------------------------------------------------------------


def test_installed_distribution_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: ConnectorRegistry
) -> None:
    """A distribution that publishes an entry point is found through Python's own metadata."""
    Distributions(tmp_path, monkeypatch).install(
        "moorage-duck", {"duck": "duck_of_real_metadata:Connector"}
    )
    assert (
        InstalledConnector("duck", "moorage-duck", "1.0", "duck_of_real_metadata:Connector")
        in registry.installed()
    )


def test_listing_imports_nothing(duck: Distributions, registry: ConnectorRegistry) -> None:
    """What is installed is listed without importing it."""
    assert [item.name for item in registry.installed()] == ["duck"]
    assert "duck_db" not in sys.modules


def test_connector_is_imported_when_it_is_asked_for(
    duck: Distributions, registry: ConnectorRegistry
) -> None:
    """Nothing is scanned before the first question, and everything once."""
    assert duck.scans == 0
    cls = registry.find("duck")
    assert cls.__module__ == "duck_db"
    assert registry.find("duck") is cls
    registry.installed()
    assert duck.scans == 1


def test_threads_get_the_same_class(site: Distributions, registry: ConnectorRegistry) -> None:
    """Threads that ask at the same time get one class, from one scan and one import."""
    slow = "import time\ntime.sleep(0.05)\n" + source()
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": slow})
    barrier = threading.Barrier(8)
    found: list[type[DBConnector]] = []

    def ask() -> None:
        barrier.wait()
        found.append(registry.find("duck"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert site.scans == 1


def test_distribution_installed_later(site: Distributions, registry: ConnectorRegistry) -> None:
    """What was installed after the first scan is found after `forget()`."""
    assert registry.installed() == []
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": source()})
    assert registry.installed() == []
    registry.forget()
    assert registry.find("duck").name == "duck"


def test_aliases_are_entry_points(site: Distributions, registry: ConnectorRegistry) -> None:
    """One class may be published under several names."""
    names = {"duck": "duck_db:Connector", "goose": "duck_db:Connector"}
    site.install("moorage-duck", names, {"duck_db": source()})
    assert registry.find("goose") is registry.find("duck")
    assert registry.get(DatabaseSettings(type="goose")).name == "duck"


def test_options_are_read_under_both_names(
    site: Distributions, registry: ConnectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector that is used under an alias reads the options of both names."""
    options = "from moorage import ConnectorOptions\nclass Options(ConnectorOptions): a: int\n"
    text = options + source(line="options_model = Options")
    names = {"duck": "duck_db:Connector", "goose": "duck_db:Connector"}
    site.install("moorage-duck", names, {"duck_db": text})
    monkeypatch.setenv("DB_GOOSE_A", "1")
    assert registry.get(DatabaseSettings(type="goose")).options.a == 1  # type: ignore[attr-defined]


# ---- not found ---------------------------------------------------------------------------------


def test_unknown_name(duck: Distributions, registry: ConnectorRegistry) -> None:
    """An unknown DB_TYPE is refused with the variable, what is installed, and what to do."""
    with pytest.raises(ConnectorNotFoundError) as caught:
        registry.get(DatabaseSettings(type="goose"))
    assert str(caught.value) == (
        "there is no connector 'goose' (argument type asks for it; installed: duck)\n"
        "  Next step: correct the name, or pip install the distribution that publishes it"
        " (moorage-mysql, moorage-postgres, moorage-sqlite are ours)"
    )


def test_unknown_name_names_its_variable(
    site: Distributions, registry: ConnectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that asked for a connector is named: DB_TYPE, or the URL's scheme."""
    monkeypatch.setenv("DB_TYPE", "goose")
    with pytest.raises(ConnectorNotFoundError, match=r"\(DB_TYPE asks for it; none is installed\)"):
        registry.get(DatabaseSettings())
    monkeypatch.delenv("DB_TYPE")
    monkeypatch.setenv("DB_URL", "goose://db/app")
    with pytest.raises(ConnectorNotFoundError, match=r"'goose' \(DB_URL begins with it; none"):
        registry.get(DatabaseSettings())


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("postgres", "moorage-postgres"),
        ("postgresql", "moorage-postgres"),
        ("mysql", "moorage-mysql"),
        ("mariadb", "moorage-mysql"),
        ("sqlite", "moorage-sqlite"),
    ],
)
def test_well_known_name_gets_a_pip_line(
    site: Distributions, registry: ConnectorRegistry, name: str, package: str
) -> None:
    """For a backend of ours the error holds the line that installs it."""
    error = refusal(registry, name)
    assert str(error) == (
        f"there is no connector {name!r} (none is installed)\n  Next step: pip install {package}"
    )


def test_not_found_is_a_lookup_and_a_value_error(
    site: Distributions, registry: ConnectorRegistry
) -> None:
    """An unknown name can be caught as what such a mistake usually is."""
    error = refusal(registry)
    assert isinstance(error, ConnectorNotFoundError)
    assert isinstance(error, LookupError)
    assert isinstance(error, ValueError)


# ---- found and broken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause", "words"),
    [
        pytest.param(
            "import a_driver_that_nobody_has",
            ModuleNotFoundError,
            "ModuleNotFoundError: No module named 'a_driver_that_nobody_has'",
            id="driver-missing",
        ),
        pytest.param(
            "from moorage import NoSuchName", ImportError, "ImportError", id="made-for-another-core"
        ),
        pytest.param("import moorage; moorage.nothing", AttributeError, "nothing", id="attribute"),
        pytest.param("def", SyntaxError, "SyntaxError", id="syntax"),
        pytest.param("raise RuntimeError('no libduck')", RuntimeError, "no libduck", id="any"),
    ],
)
def test_module_that_does_not_import(
    site: Distributions,
    registry: ConnectorRegistry,
    text: str,
    cause: type[Exception],
    words: str,
) -> None:
    """A connector whose module fails is an ImportError with the reason, chained, and a pip line."""
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": text})
    error = refusal(registry)
    assert isinstance(error, ConnectorImportError)
    assert isinstance(error, ImportError)
    assert type(error.__cause__) is cause
    assert "connector 'duck' of moorage-duck 1.0 is installed but does not import" in str(error)
    assert words in str(error)
    assert error.hint.endswith("pip install --force-reinstall moorage-duck")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "names duck_db:Connector, where there is no such attribute", id="absent"),
        pytest.param("Connector = 3", "is int 3, not a subclass of DBConnector", id="no-class"),
        pytest.param(
            "class Connector: ...",
            "is type <class 'duck_db.Connector'>, not a subclass of DBConnector",
            id="wrong-class",
        ),
        pytest.param(
            "from moorage import DBConnector\nclass Connector(DBConnector): name = 'duck'",
            "does not define get_url",
            id="abstract",
        ),
        pytest.param(
            source("Duck DB"),
            "has the name 'Duck DB'; lower-case letters, digits and underscores",
            id="bad-name",
        ),
        pytest.param(
            source().replace("name = 'duck'", "pass"), "has the name None; lower-case", id="no-name"
        ),
        pytest.param(
            source("ssl"),
            "has the name 'ssl', which is the beginning of the core setting 'ssl_mode'",
            id="begins-a-setting",
        ),
        pytest.param(
            source("host"),
            "has the name 'host', which is the beginning of the core setting 'host'",
            id="is-a-setting",
        ),
        pytest.param(
            source(line="contract = '1'"),
            "has the contract '1', which is no number",
            id="contract-is-text",
        ),
    ],
)
def test_object_that_breaks_the_contract(
    site: Distributions, registry: ConnectorRegistry, text: str, words: str
) -> None:
    """What breaks the contract is refused with its distribution and the member at fault."""
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": text})
    error = refusal(registry)
    assert isinstance(error, ConnectorContractError)
    assert isinstance(error, TypeError)
    assert f"connector 'duck' of moorage-duck 1.0 {words}" in str(error)
    assert error.hint


def test_alias_that_begins_a_setting(site: Distributions, registry: ConnectorRegistry) -> None:
    """An alias is held to the same rule as the name, as options are read under it, too."""
    names = {"duck": "duck_db:Connector", "pool": "duck_db:Connector"}
    site.install("moorage-duck", names, {"duck_db": source()})
    assert registry.find("duck").name == "duck"
    assert "'pool', which is the beginning of the core setting 'pool_size'" in str(
        refusal(registry, "pool")
    )


@pytest.mark.parametrize(
    ("number", "hint"),
    [(0, "update the connector"), (2, "update moorage: pip install -U moorage")],
    ids=["older", "newer"],
)
def test_other_contract_number(
    site: Distributions, registry: ConnectorRegistry, number: int, hint: str
) -> None:
    """A connector for another contract is refused, saying which of the two is to be updated."""
    text = source(line=f"contract = {number}")
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": text})
    error = refusal(registry)
    assert isinstance(error, ContractVersionError)
    assert error.args == (
        f"connector 'duck' of moorage-duck 1.0 was written for contract {number}; this moorage"
        " speaks 1",
    )
    assert error.hint == hint


def test_failure_is_not_remembered(site: Distributions, registry: ConnectorRegistry) -> None:
    """A connector that failed is tried again, as after installing its driver."""
    site.install("moorage-duck", {"duck": "duck_db:Connector"}, {"duck_db": "import nowhere_db"})
    refusal(registry)
    sys.modules["nowhere_db"] = sys.modules[__name__]
    try:
        assert "no such attribute" in str(refusal(registry))
    finally:
        del sys.modules["nowhere_db"]


# ---- two of a name -----------------------------------------------------------------------------


def test_two_distributions_claim_one_name(duck: Distributions, registry: ConnectorRegistry) -> None:
    """Two distributions with different classes for one name are both named, none is chosen."""
    duck.install("best-duck", {"duck": "best_duck:Connector"})
    error = refusal(registry)
    assert isinstance(error, ConnectorConflictError)
    assert isinstance(error, LookupError)
    assert str(error) == (
        "connector 'duck' is claimed by best-duck (best_duck:Connector) and moorage-duck"
        " (duck_db:Connector)\n  Next step: uninstall one of them; moorage does not choose between"
        " two"
    )
    assert len(registry.installed()) == 2


def test_same_value_twice_is_fine(duck: Distributions, registry: ConnectorRegistry) -> None:
    """Two distributions that name the same object are no conflict."""
    duck.install("duck-meta", {"duck": "duck_db:Connector"})
    assert registry.find("duck").name == "duck"


# ---- which one, when DB_TYPE is unset ----------------------------------------------------------


def publish(site: Distributions, distribution: str, *names: str) -> None:
    """Install a distribution with one connector class per name."""
    stem = re.sub(r"\W", "_", distribution)
    site.install(
        distribution,
        {name: f"{stem}_{name}:Connector" for name in names},
        {f"{stem}_{name}": source(name) for name in names},
    )


@pytest.mark.parametrize(
    ("distributions", "picked", "reason"),
    [
        pytest.param(
            {"moorage-duck": ["duck"]},
            "duck",
            "DB_TYPE is unset and moorage-duck publishes no other",
            id="only-name",
        ),
        pytest.param(
            {"moorage-duck": ["aero", "duck", "goose"]},
            "duck",
            "DB_TYPE is unset and moorage-duck publishes no other",
            id="distribution-is-called-like-it",
        ),
        pytest.param(
            {"Moorage.Duck": ["aero", "duck"]},
            "duck",
            "DB_TYPE is unset and Moorage.Duck publishes no other",
            id="distribution-is-spelt-differently",
        ),
        pytest.param(
            {"some-birds": ["goose", "postgres"]},
            "postgres",
            "DB_TYPE is unset and postgres is the default",
            id="nothing-alike-but-postgres",
        ),
        pytest.param(
            {"moorage-duck": ["duck"], "other": ["postgres", "postgresql"]},
            "postgres",
            "DB_TYPE is unset and postgres is the default",
            id="several-with-postgres",
        ),
    ],
)
def test_pick_without_type(
    site: Distributions,
    registry: ConnectorRegistry,
    caplog: pytest.LogCaptureFixture,
    distributions: dict[str, list[str]],
    picked: str,
    reason: str,
) -> None:
    """Without DB_TYPE the only distribution decides, else postgres; the log says why."""
    for distribution, names in distributions.items():
        publish(site, distribution, *names)
    with caplog.at_level(logging.INFO, "moorage.registry"):
        assert registry.get(DatabaseSettings()).name == picked
    owner = next(name for name, names in distributions.items() if picked in names)
    assert caplog.messages == [f"connector {picked!r} ({owner} 1.0) picked: {reason}"]


@pytest.mark.parametrize(
    "distributions",
    [{"moorage-duck": ["duck"], "moorage-goose": ["goose"]}, {"birds": ["duck", "goose"]}],
    ids=["two-distributions", "two-names"],
)
def test_no_pick_without_type(
    site: Distributions, registry: ConnectorRegistry, distributions: dict[str, list[str]]
) -> None:
    """Where nothing decides, the choices are listed and DB_TYPE is asked for."""
    for distribution, names in distributions.items():
        publish(site, distribution, *names)
    with pytest.raises(ConnectorNotFoundError) as caught:
        registry.get(DatabaseSettings())
    assert str(caught.value) == (
        "DB_TYPE is unset, and these connectors are installed: duck, goose\n"
        "  Next step: set DB_TYPE to one of them"
    )


def test_nothing_installed(site: Distributions, registry: ConnectorRegistry) -> None:
    """With no connector at all the error says so and how to get one."""
    with pytest.raises(ConnectorNotFoundError) as caught:
        registry.get(DatabaseSettings.from_env("SHOP_"))
    assert str(caught.value) == (
        "SHOP_TYPE is unset and there is no connector (none is installed)\n"
        "  Next step: pip install moorage-postgres"
    )


def test_scheme_decides(
    site: Distributions, registry: ConnectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Without DB_TYPE the scheme of the URL decides, whatever its driver says."""
    publish(site, "moorage-duck", "duck")
    publish(site, "other", "postgres")
    with caplog.at_level(logging.INFO, "moorage.registry"):
        connector = registry.get(DatabaseSettings(url="duck+fast://localhost/app"))
    assert connector.name == "duck"
    assert caplog.messages == [
        "connector 'duck' (moorage-duck 1.0) picked: argument url begins with it"
    ]


# ---- URL against DB_TYPE -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("goose", "DB_URL begins with goose://, which belongs to connector 'goose', but DB_TYPE"),
        ("nobody", "DB_URL begins with nobody://, but DB_TYPE"),
    ],
)
def test_url_of_another_connector(
    site: Distributions,
    registry: ConnectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    words: str,
) -> None:
    """A URL that belongs to another connector than DB_TYPE is refused, naming both."""
    publish(site, "moorage-duck", "duck")
    publish(site, "moorage-goose", "goose")
    monkeypatch.setenv("DB_TYPE", "duck")
    monkeypatch.setenv("DB_URL", f"{scheme}://localhost/app")
    with pytest.raises(SettingsError) as caught:
        registry.get(DatabaseSettings())
    assert str(caught.value) == (
        f"{words} says 'duck', which takes duck\n"
        "  Next step: remove DB_TYPE, or give the URL of the same database"
    )


def test_url_with_an_alias(site: Distributions, registry: ConnectorRegistry) -> None:
    """A URL whose scheme is another name of the same class is fine, in both directions."""
    names = {"duck": "duck_db:Connector", "goose": "duck_db:Connector"}
    text = source(line="url_schemes = frozenset({'mallard'})")
    site.install("moorage-duck", names, {"duck_db": text})
    for type_, scheme in [("duck", "goose"), ("goose", "duck"), ("duck", "mallard")]:
        settings = DatabaseSettings(type=type_, url=f"{scheme}://localhost/app")
        assert registry.get(settings).name == "duck"


# ---- registered in code ------------------------------------------------------------------------


def test_registered_connector(
    site: Distributions, registry: ConnectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A connector registered in code is found under its name, and listed."""
    registry.register(ToyConnector)
    registry.register(ToyConnector)
    assert registry.find("toy") is ToyConnector
    assert registry.installed() == [
        InstalledConnector("toy", "", "", f"{__name__}:ToyConnector"),
    ]
    with caplog.at_level(logging.INFO, "moorage.registry"):
        registry.get(DatabaseSettings())
    assert caplog.messages == [
        "connector 'toy' (registered in code) picked: DB_TYPE is unset and this process publishes"
        " no other"
    ]


def test_registered_beats_installed(duck: Distributions, registry: ConnectorRegistry) -> None:
    """A connector registered in code takes the place of an installed one, until it is removed."""
    registry.register(ToyConnector, "duck")
    assert registry.find("duck") is ToyConnector
    registry.unregister("duck", "never-registered")
    assert registry.find("duck").__module__ == "duck_db"


def test_registered_twice(site: Distributions, registry: ConnectorRegistry) -> None:
    """A second class under a name is refused, and none of its other names is kept."""
    registry.register(ToyConnector)
    with pytest.raises(ConnectorConflictError, match="'toy' is registered already") as caught:
        registry.register(OtherToyConnector, "plaything", "toy")
    assert caught.value.hint == "unregister_connector() it first, or choose another name"
    refusal(registry, "plaything")


@pytest.mark.parametrize("names", [("Toy",), ("pool",), ("toy", "")])
def test_registered_under_a_bad_name(
    site: Distributions, registry: ConnectorRegistry, names: tuple[str, ...]
) -> None:
    """A name that no setting could spell, or that begins a setting, is refused."""
    with pytest.raises(ConnectorContractError, match=r"registered in code, has the name"):
        registry.register(ToyConnector, *names)
    assert registry.installed() == []


def test_registered_class_is_checked(site: Distributions, registry: ConnectorRegistry) -> None:
    """What is registered in code must keep the contract as well."""
    with pytest.raises(ConnectorContractError, match="registered in code, is type"):
        registry.register(str)  # type: ignore[arg-type]
