"""No password shows in any error, repr, log line, warning or traceback, whatever goes wrong."""

import logging
import string
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import URL, make_url

from moorage import Capabilities, DatabaseSettings, DBConnector, MoorageError, SettingsError
from moorage.registry import ConnectorRegistry

# Words that occur nowhere else, of which every password below is made.
SECRETS = ("kestrel", "osprey", "merlin")
SPECIAL = string.punctuation + " \t\né"


class ToyConnector(DBConnector):
    """A connector that needs nothing but what SQLAlchemy brings."""

    name = "toy"
    capabilities = Capabilities(tls=True)
    url_schemes = frozenset({"postgres"})

    def get_url(self) -> URL:
        """Return a URL whose driver is nobody's business here."""
        return self.build_url("postgresql+asyncpg")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything that it drags along."""
    while error is not None:
        yield error
        yield from chain(error.__cause__)
        error = error.__context__


def shown(error: BaseException) -> str:
    """Return all that a log, a debugger or a bug report would show of an error."""
    # Without the lines of source that a traceback quotes: these tests name the secrets.
    lines = "".join(traceback.format_exception(error)).splitlines()
    texts = [line for line in lines if not line.startswith("    ")]
    for link in chain(error):
        texts += [str(link), repr(link), repr(link.args), repr(vars(link))]
        if isinstance(link, ValidationError | SettingsError):
            texts.append(repr(link.errors()))
    return "\n".join(texts)


def leaked(text: str) -> set[str]:
    """Return the secrets that a text contains."""
    return {secret for secret in SECRETS if secret in text}


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Return a list that gets every warning; after the test no warning and no log line leaks."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(item.message) for item in caught]
    texts += [record.getMessage() + repr(record.args) for record in caplog.records]
    assert leaked("\n".join(texts)) == set()


def build(**arguments: Any) -> DatabaseSettings | MoorageError:
    """Build settings and use them as far as possible without a connection; return what came."""
    try:
        settings = DatabaseSettings(**arguments)
        registry = ConnectorRegistry()
        registry.register(ToyConnector)
        connector = registry.get(settings)
        assert leaked(repr(connector.get_url()) + str(connector.get_url())) == set()
    except MoorageError as error:
        return error
    return settings


def inspect(outcome: DatabaseSettings | MoorageError) -> str:
    """Return all that can be seen of an outcome."""
    if isinstance(outcome, MoorageError):
        return shown(outcome)
    return "\n".join(
        [
            repr(outcome),
            str(outcome),
            repr(outcome.model_dump()),
            outcome.model_dump_json(),
            repr(outcome.hosts),
            repr(list(outcome.__rich_repr__())),
            repr(vars(outcome)),
            repr(outcome.__pydantic_private__),
        ]
    )


@pytest.mark.usefixtures("output")
@pytest.mark.parametrize("special", SPECIAL, ids=repr)
def test_raw_password_in_a_url(special: str) -> None:
    """A raw password with special characters is either taken as it is or refused, never shown."""
    for more in ("", *SPECIAL):
        password = f"kestrel{special}osprey{more}merlin"
        url = f"toy://app:{password}@db.example/app"
        for arguments in ({"url": url}, {"url": SecretStr(url)}):
            outcome = build(**arguments)
            assert leaked(inspect(outcome)) == set(), password
            if isinstance(outcome, MoorageError):
                assert "percent-encode" in str(outcome)
            else:
                assert outcome.password is not None
                assert outcome.password.get_secret_value() == password
                assert (outcome.host, outcome.name) == ("db.example", "app")


@pytest.mark.parametrize("special", "@/?", ids=repr)
def test_ambiguous_password_is_refused(special: str) -> None:
    """A character that would end the password early is never guessed about."""
    outcome = build(url=f"toy://app:kestrel{special}osprey@db.example/app")
    assert isinstance(outcome, SettingsError)


@pytest.mark.usefixtures("output")
@pytest.mark.parametrize(
    "url",
    [
        "kestrel",
        "app:kestrel@db/app",
        "toy:/app:kestrel@db/app",
        "toy:///app:kestrel@db/app",
        "toy://app:kestrel/app",
        "toy://app:kestrel",
        "toy://app:kestrel:osprey/app",
        "toy://app:kestrel@db:osprey/app",
        "toy://app:kestrel@db@osprey/app",
        "toy://app:kestrel@d b/app",
        "toy://app:kestrel@[osprey]/app",
        "toy://app:kestrel@db/app?unknown=osprey",
        "toy://app:kestrel@a,b/app",
        "other://app:kestrel@db/app",
        "toy://app%3Akestrel%40db/app",
    ],
)
@pytest.mark.parametrize("variable", ["DB_URL", "DATABASE_URL", "DB_URL_FILE"])
def test_broken_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, url: str
) -> None:
    """A broken URL is refused without any part of it, wherever it was read."""
    if variable == "DB_URL_FILE":
        (tmp_path / "url").write_text(url)
        monkeypatch.setenv(variable, str(tmp_path / "url"))
    else:
        monkeypatch.setenv(variable, url)
    outcome = build()
    assert isinstance(outcome, MoorageError)
    assert leaked(inspect(outcome)) == set()


@pytest.mark.usefixtures("output")
@pytest.mark.parametrize(
    "variables",
    [
        {"DB_PORT": "abc"},
        {"DB_PORT": "tcp://10.0.0.7:5432"},
        {"DB_POOL_SIZE": "-1"},
        {"DB_MAX_OVERFLOW": "-1", "DB_POOL_SIZE": "x"},
        {"DB_SSL_MODE": "on"},
        {"DB_NAME": ""},
        {"DB_HOST": "app:osprey@db"},
        {"DB_HOST": "app:osprey"},
        {"DB_HOST": "a,b"},
        {"DB_READ_HOST": "a"},
        {"DB_TYPE": "nobody"},
        {"DB_TYPE": "toy://app:osprey@db/app"},
        {"DB_PASSWORD_FILE": "/nowhere"},
        {"DB_URL": "toy://app:osprey@db/app"},
        {"DB_URL": "toy://app:kestrel@db/app", "DB_HOST": "other"},
        {"DB_URL": "other://app:kestrel@db/app", "DB_TYPE": "toy"},
        {"DB_TOY_KEY": "osprey"},
        {"DB_PASSWROD": "osprey"},
        {"DB_PASSWROD": "osprey", "DB_PORT": "x"},
        {"DB_TYPE": "toy"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_password_beside_other_mistakes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    """Whatever is wrong elsewhere, the password beside it stays hidden."""
    variables = {"DB_PASSWORD": "kestrel", **variables}
    if place == ".env":
        Path(".env").write_text("".join(f"{k}='{v}'\n" for k, v in variables.items()))
    else:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    assert leaked(inspect(build())) == set()


@pytest.mark.usefixtures("output")
@pytest.mark.parametrize(
    "arguments",
    [
        {"password": ["kestrel"]},
        {"password": {"kestrel": 1}},
        {"url": ["kestrel"]},
        {"url": make_url("toy://app:kestrel@db/app")},
        {"port": "kestrel"},
        {"pool_size": "kestrel"},
        {"echo": "kestrel"},
        {"ssl_mode": "kestrel"},
        {"ssl_ca": 3, "password": "kestrel"},
        {"connector_options": "kestrel"},
        {"connector_options": {"key": "kestrel"}, "type": "toy"},
        {"type": "toy", "password": "kestrel", "url": "toy://app:osprey@db/app"},
    ],
    ids=repr,
)
def test_password_in_a_wrong_argument(arguments: dict[str, Any]) -> None:
    """A secret that was handed to the wrong field, or as the wrong type, stays hidden."""
    outcome = build(**arguments)
    assert isinstance(outcome, MoorageError)
    assert leaked(inspect(outcome)) == set()


@pytest.mark.parametrize("file", [".env", "secret"])
def test_password_in_a_file_that_is_no_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    """A decoding error, which holds the whole file, does not travel along."""
    (tmp_path / file).write_bytes(b"DB_PASSWORD=kestrel\xff")
    if file == "secret":
        monkeypatch.setenv("DB_PASSWORD_FILE", str(tmp_path / file))
    outcome = build()
    assert isinstance(outcome, SettingsError)
    assert leaked(inspect(outcome)) == set()


def test_password_that_is_assigned() -> None:
    """Assigning a password to settings, which are frozen, does not repeat it either."""
    with pytest.raises(SettingsError, match="frozen") as caught:
        DatabaseSettings().password = "kestrel"  # type: ignore[assignment, misc]
    assert leaked(shown(caught.value)) == set()


def test_plain_pydantic_settings_leak() -> None:
    """Negative control: a plain settings class repeats the password in its error."""

    class Plain(BaseSettings):
        port: int
        password: SecretStr

    with pytest.raises(ValidationError) as caught:
        Plain.model_validate({"password": "kestrel"})
    assert leaked(shown(caught.value)) == {"kestrel"}


def test_secret_handed_to_sqlalchemy() -> None:
    """Negative control: a SecretStr given to URL.create logs in with asterisks."""
    url = URL.create("postgresql+asyncpg", password=SecretStr("kestrel"))  # type: ignore[arg-type]
    assert str(url.password) == "**********"
    settings = DatabaseSettings(password="kestrel", ssl_mode="disable")
    assert ToyConnector(settings).get_url().password == "kestrel"
