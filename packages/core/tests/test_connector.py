"""What a connector that wrote a name and `get_url` gets from the base class."""

import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, SecretStr, model_validator
from sqlalchemy import URL, text

from moorage import (
    Capabilities,
    ConnectionLostError,
    ConnectorContractError,
    ConnectorImportError,
    ConnectorOptions,
    Database,
    DatabaseError,
    DatabaseSettings,
    DatabaseUnavailableError,
    DataError,
    DBConnector,
    Diagnosis,
    InsecureConnectionError,
    SettingsError,
    URLParameter,
)
from moorage.pool import LoopPool


class DuckConnector(DBConnector):
    """A small connector, which can encrypt."""

    name = "duck"
    capabilities: ClassVar[Capabilities] = Capabilities(tls=True)

    def get_url(self) -> URL:
        """Return the URL that the settings say."""
        return self.build_url("duck+asyncduck")


class BirdOptions(ConnectorOptions):
    """Options with a type, a limit and a rule between two of them."""

    wings: int = Field(2, ge=0, description="Number of wings.")
    flies: bool = Field(True, description="Whether it flies.")
    colour: str = Field("green", description="Colour.")

    @model_validator(mode="after")
    def _wings_to_fly(self) -> "BirdOptions":
        if self.flies and self.wings == 0:
            raise ValueError("DB_BIRD_FLIES needs DB_BIRD_WINGS")
        return self


def _on_or_off(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError("must be on or off")
    return text == "on"


class BirdConnector(DBConnector):
    """A connector that uses what the base class offers."""

    name = "bird"
    capabilities: ClassVar[Capabilities] = Capabilities(tls=True)
    default_port = 77
    options_model = BirdOptions
    url_parameters: ClassVar[Mapping[str, URLParameter]] = {
        "sslmode": URLParameter("ssl_mode"),
        "connect_timeout": URLParameter("connect_timeout_seconds", float),
        "fly": URLParameter("options.flies", _on_or_off),
        "target": URLParameter(""),
    }
    options: BirdOptions

    def get_url(self) -> URL:
        """Return the URL that the settings say."""
        return self.build_url("bird+asyncbird")


class FailOverConnector(DuckConnector):
    """A connector that can do more than the base class assumes."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        tls=True, several_hosts=True, read_hosts=True
    )


class FileConnector(DuckConnector):
    """A connector without network."""

    capabilities: ClassVar[Capabilities] = Capabilities(networked=False)


def problems(cls: type[DBConnector] = BirdConnector, **settings: Any) -> list[str]:
    """Return the sentences that a connector refuses settings with."""
    with pytest.raises(SettingsError) as caught:
        cls(DatabaseSettings(**settings))
    return list(caught.value.problems)


# ---- the URL -----------------------------------------------------------------------------------


def test_url_has_the_password_in_the_clear() -> None:
    """The password reaches SQLAlchemy as it is, and no repr or rendering of the URL shows it."""
    settings = DatabaseSettings(user="u", password=SecretStr("p@ss"), name="n")
    url = DuckConnector(settings).get_url()
    assert url.password == "p@ss"
    assert "p@ss" not in f"{url} {url!r} {settings!r}"


@pytest.mark.parametrize(
    ("settings", "host", "port"),
    [
        ({}, "localhost", 77),
        ({"host": "db"}, "db", 77),
        ({"host": "db", "port": 78}, "db", 78),
        ({"host": "db:79"}, "db", 79),
        ({"host": "::1"}, "::1", 77),
        ({"host": "[::1]:79"}, "::1", 79),
        ({"host": "/run/bird"}, "/run/bird", None),
        ({"host": "/run/bird", "port": 78}, "/run/bird", None),
        ({"url": "bird://db:80/app"}, "db", 80),
    ],
    ids=str,
)
def test_url_has_host_and_port_apart(settings: dict[str, Any], host: str, port: int | None) -> None:
    """Host and port are taken apart, and the connector's port is used where none was given."""
    url = BirdConnector(DatabaseSettings(**settings)).get_url()
    assert (url.host, url.port) == (host, port)


def test_url_of_a_file() -> None:
    """A connector without network gets a URL without host, port and login."""
    settings = DatabaseSettings(name="/var/app.db", host="a,b", password="x")
    url = FileConnector(settings).get_url()
    assert url == URL.create("duck+asyncduck", database="/var/app.db")


def test_url_with_overrides() -> None:
    """Any part may be replaced, or left out with None."""
    url = DuckConnector(DatabaseSettings(user="u")).build_url("x", host=None, query={"a": "1"})
    assert url == URL.create("x", "u", database="app", query={"a": "1"})


# ---- options -----------------------------------------------------------------------------------


def test_options_are_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options come from variables, URL and code, with their types."""
    assert BirdConnector(DatabaseSettings()).options == BirdOptions()
    monkeypatch.setenv("DB_BIRD_WINGS", "4")
    monkeypatch.setenv("DB_BIRD_COLOUR", "red")
    settings = DatabaseSettings(url="bird://db/app?fly=off", connector_options={"colour": "blue"})
    assert BirdConnector(settings).options == BirdOptions(wings=4, flies=False, colour="blue")


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        pytest.param(
            {"DB_BIRD_COLOR": "red"},
            ["DB_BIRD_COLOR is no option of connector 'bird'; did you mean DB_BIRD_COLOUR?"],
            id="misspelt",
        ),
        pytest.param(
            {"DB_BIRD_TEETH": "2"},
            [
                "DB_BIRD_TEETH is no option of connector 'bird'; it has DB_BIRD_WINGS,"
                " DB_BIRD_FLIES, DB_BIRD_COLOUR"
            ],
            id="unknown",
        ),
        pytest.param(
            {"DB_BIRD_WINGS": "two", "DB_BIRD_FLIES": "maybe"},
            ["DB_BIRD_WINGS is not a whole number", "DB_BIRD_FLIES is neither true nor false"],
            id="wrong-values",
        ),
        pytest.param(
            {"DB_BIRD_WINGS": "0"}, ["DB_BIRD_FLIES needs DB_BIRD_WINGS"], id="rule-of-the-whole"
        ),
    ],
)
def test_wrong_options_name_their_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentences: list[str]
) -> None:
    """A wrong option is refused under the name of its variable, with the nearest known name."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert problems(type="bird") == sentences


def test_connector_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector that has no options refuses each, saying so."""
    monkeypatch.setenv("DB_DUCK_WINGS", "2")
    assert problems(DuckConnector) == [
        "DB_DUCK_WINGS is no option of connector 'duck'; it has none"
    ]


def test_options_with_another_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix of the settings is the prefix of the options, in errors too."""
    monkeypatch.setenv("SHOP_BIRD_WINGS", "two")
    with pytest.raises(SettingsError, match=r"^SHOP_BIRD_WINGS is not a whole number$"):
        BirdConnector(DatabaseSettings.from_env("SHOP_"))


# ---- hosts -------------------------------------------------------------------------------------


def test_several_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several hosts and read hosts are refused by a connector that cannot use them."""
    monkeypatch.setenv("DB_HOST", "a,b:2")
    monkeypatch.setenv("DB_READ_HOST", "c")
    assert problems(DuckConnector) == [
        "DB_HOST lists 2 hosts, and connector 'duck' does not fail over between hosts yet; name"
        " one host",
        "DB_READ_HOST is set, and connector 'duck' does not use read hosts yet; remove it",
    ]
    assert len(FailOverConnector(DatabaseSettings()).settings.hosts) == 2


# ---- parameters of the URL ---------------------------------------------------------------------


def test_url_parameters_are_translated() -> None:
    """Parameters of the URL become settings, and are known as the URL's."""
    url = "bird://db/app?sslmode=require&connect_timeout=3&target=any"
    settings = BirdConnector(DatabaseSettings(url=url)).settings
    assert (settings.ssl_mode, settings.connect_timeout_seconds) == ("require", 3.0)
    assert settings.origin("ssl_mode") == "argument url"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "ssl_mode=require",
            "DB_URL has the parameter 'ssl_mode', which connector 'bird' does not know; did you"
            " mean sslmode?",
        ),
        (
            "pgbouncer=true",
            "DB_URL has the parameter 'pgbouncer', which connector 'bird' does not know; it knows"
            " sslmode, connect_timeout, fly, target",
        ),
        ("fly=high", "DB_URL has a parameter 'fly' that must be on or off"),
        (
            "sslmode=disable&sslmode=require",
            "DB_SSL_MODE and the parameter 'sslmode' of DB_URL disagree; remove one of them",
        ),
        (
            "sslmode=disable",
            "DB_SSL_MODE and the parameter 'sslmode' of DB_URL disagree; remove one of them",
        ),
    ],
)
def test_bad_url_parameters(monkeypatch: pytest.MonkeyPatch, query: str, sentence: str) -> None:
    """A parameter that is unknown, wrong, or against a setting is refused by its name."""
    monkeypatch.setenv("DB_URL", f"bird://db/app?{query}")
    monkeypatch.setenv("DB_SSL_MODE", "require")
    assert problems() == [sentence]


def test_connector_that_knows_no_parameters() -> None:
    """A connector that knows no parameters refuses each."""
    assert problems(DuckConnector, url="duck://db/app?a=1") == [
        "argument url has the parameter 'a', which connector 'duck' does not know; it knows none"
    ]


# ---- the engine --------------------------------------------------------------------------------


def test_engine_arguments_come_from_the_settings() -> None:
    """The base class gives the pool that the settings ask for, and keeps values out of logs."""
    settings = DatabaseSettings(
        pool_size=3,
        max_overflow=4,
        pool_timeout_seconds=5,
        pool_recycle_seconds=6,
    )
    connector = DuckConnector(settings)
    assert connector.get_engine_args() == {
        "poolclass": LoopPool,
        "connector": connector,
        "pool_size": 3,
        "max_overflow": 4,
        "pool_timeout": 5.0,
        "surplus_seconds": 30.0,
        "hold_warning_seconds": 60.0,
        "pool_recycle": 6,
        "query_cache_size": 2000,
        "pool_reset_on_return": None,
        "echo": False,
        "hide_parameters": True,
        "connect_args": {},
    }


def test_echo_shows_values() -> None:
    """Who asks for echo sees values."""
    arguments = DuckConnector(DatabaseSettings(echo=True)).get_engine_args()
    assert (arguments["echo"], arguments["hide_parameters"]) == (True, False)


def test_engine_of_an_unknown_dialect() -> None:
    """A dialect that SQLAlchemy does not know is a connector whose driver is missing."""
    with pytest.raises(ConnectorImportError, match="connector 'duck' cannot load its driver") as e:
        DuckConnector(DatabaseSettings()).create_engine()
    assert "pip install" in e.value.hint
    assert e.value.__cause__ is not None


class SQLiteFile(FileConnector):
    """A connector whose dialect SQLAlchemy knows."""

    def get_url(self) -> URL:
        """Return the URL of the file."""
        return self.build_url("sqlite+aiosqlite")


def test_engine_without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is an ImportError with its cause and a pip line."""
    monkeypatch.setitem(sys.modules, "aiosqlite", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="aiosqlite") as caught:
        SQLiteFile(DatabaseSettings(password="kestrel")).create_engine()
    assert isinstance(caught.value, ConnectorImportError)
    assert isinstance(caught.value.__cause__, ImportError)
    assert "pip install" in caught.value.hint
    assert "kestrel" not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize(
    ("url", "arguments", "says"),
    [
        ("sqlite+aiosqlite//u:kestrel@h", {}, "Could not parse"),
        ("sqlite+aiosqlite://u:p@h:kestrel/x", {}, "is no number"),
        (None, {}, "got None"),
        ("sqlite://", {}, "async driver"),
        ("sqlite+aiosqlite://", {"wings": 2}, "wings"),
    ],
    ids=["no URL", "no port", "nothing", "no async driver", "unknown argument"],
)
def test_engine_of_a_wrong_url_or_argument(url: Any, arguments: dict[str, int], says: str) -> None:
    """What SQLAlchemy makes no engine of is the connector's fault, which is named without it."""

    class WrongFile(SQLiteFile):
        def get_url(self) -> URL:
            found: URL = url
            return found

        def get_engine_args(self) -> dict[str, Any]:
            return {**super().get_engine_args(), **arguments}

    with pytest.raises(ConnectorContractError, match=r"get_url\(\).* connector 'duck'") as caught:
        WrongFile(DatabaseSettings()).create_engine()
    assert says in str(caught.value)
    assert "build_url()" in caught.value.hint
    assert "kestrel" not in str(caught.value) + str(caught.value.__cause__)


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "the database at db (DB_HOST) cannot be reached: [Errno 111] Connection refused",
        ),
        (
            TimeoutError(),
            "the database at db (DB_HOST) cannot be reached: no connection within 10 s"
            " (DB_CONNECT_TIMEOUT_SECONDS)",
        ),
        (
            ConnectionResetError(),
            "the database at db (DB_HOST) cannot be reached: ConnectionResetError",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operating_system_errors_are_understood(
    monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    """What the operating system raises while connecting names the host and its variable."""
    monkeypatch.setenv("DB_HOST", "db")
    connector = DuckConnector(DatabaseSettings())
    diagnosis = connector.classify_error(error)
    assert diagnosis is not None
    assert diagnosis.sentence == sentence
    assert diagnosis.hint == "check that the server runs and that DB_HOST and DB_PORT name it"
    assert diagnosis.to_error(error).is_transient
    assert diagnosis.to_error(error).orig is error
    assert connector.classify_error(ValueError()) is None


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), EOFError()], ids=repr)
def test_what_breaks_in_the_middle_of_work_is_a_lost_connection(error: Exception) -> None:
    """The same errors behind a statement are a lost connection, and transient."""
    diagnosis = DuckConnector(DatabaseSettings()).classify_error(error, statement="SELECT 1")
    assert diagnosis is not None
    assert diagnosis.kind is ConnectionLostError
    assert diagnosis.to_error(error).is_transient


def test_refused_tls_names_the_mode() -> None:
    """A server without the TLS that was asked for is an error with the settings to choose from."""
    diagnosis: Diagnosis = DuckConnector(DatabaseSettings(host="db")).insecure("no TLS")
    assert "verify-full" in diagnosis.sentence
    assert "DB_SSL_CA" in diagnosis.hint
    assert "DB_SSL_MODE" in diagnosis.hint


def test_abstract_connector_cannot_be_made() -> None:
    """A class without `get_url` is no connector."""

    class Nothing(DBConnector):
        name = "nothing"

    with pytest.raises(TypeError, match="get_url"):
        Nothing(DatabaseSettings())  # type: ignore[abstract]


class PlainConnector(DuckConnector):
    """A connector that says nothing of encryption, and has none."""

    capabilities: ClassVar[Capabilities] = Capabilities()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"host": "db.example.com"}, "is not this machine"),
        ({"ssl_mode": "require"}, "argument ssl_mode=require"),
        ({"ssl_mode": "verify-ca"}, "argument ssl_mode=verify-ca"),
    ],
)
def test_encryption_is_not_skipped_silently(values: dict[str, Any], told: str) -> None:
    """A connector without TLS refuses settings that ask for it, also where they do so unsaid."""
    with pytest.raises(SettingsError, match=told) as caught:
        PlainConnector(DatabaseSettings(**values))
    assert "DB_SSL_MODE=disable" in str(caught.value)


@pytest.mark.parametrize(
    "values", [{}, {"ssl_mode": "prefer"}, {"ssl_mode": "disable", "host": "db.example.com"}]
)
def test_no_encryption_is_somebodys_decision(values: dict[str, Any]) -> None:
    """A connector without TLS connects on this machine, and where it was told to."""
    PlainConnector(DatabaseSettings(**values))


class DriverError(Exception):
    """What a driver makes of an error of the operating system."""


def test_a_wrapped_refusal_is_understood() -> None:
    """What the operating system said is found inside of what the driver made of it."""
    connector = DuckConnector(DatabaseSettings())
    refused = DriverError("2003")
    refused.__cause__ = ConnectionRefusedError("refused")
    found = connector.classify_error(refused)
    assert found is not None
    assert found.kind is DatabaseUnavailableError
    unproven = DriverError("2026")
    unproven.__context__ = ssl.SSLError(1, "certificate verify failed")
    found = connector.classify_error(unproven)
    assert found is not None
    assert found.kind is InsecureConnectionError
    assert connector.classify_error(DriverError("1045")) is None


async def test_the_dialect_tells_lost_connections(tmp_path: Path) -> None:
    """Where the connector is silent, SQLAlchemy's dialect tells that a connection was lost."""
    connector = SQLiteFile(DatabaseSettings(name=str(tmp_path / "app.db")))
    async with (
        Database(connector=connector) as database,
        database.engine.connect() as connection,
    ):
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.close()
        with pytest.raises(ConnectionLostError):
            await connection.execute(text("SELECT 1"))


class KnowsNothing(SQLiteFile):
    """A connector whose author did not call `super()`."""

    def classify_error(self, error: BaseException, *, statement: str | None = None) -> None:
        """Leave everything open."""

    def get_engine_args(self) -> dict[str, Any]:
        """Replace what the base has."""
        return {}


async def test_an_override_without_super_loses_no_classification(tmp_path: Path) -> None:
    """What an override leaves open is asked of the base, and an engine is built with it."""
    connector = KnowsNothing(DatabaseSettings(name=str(tmp_path / "app.db")))
    async with Database(connector=connector) as database:
        with pytest.raises(DataError) as caught:
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT :n"), {"n": 2**70})
        assert isinstance(caught.value.__cause__, OverflowError)
        with pytest.raises(DatabaseError):
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT * FROM nowhere"))
