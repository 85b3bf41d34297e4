"""Where settings come from, what beats what, and the sentence that each mistake gets."""

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from moorage import DatabaseSettings, DatabaseType, HostPort, SettingsError, UnknownSettingWarning

SetEnv = Callable[..., None]

ESCAPE = (
    "percent-encode the characters @ / : # % ? of the password (@ is %40), or give the password"
    " apart from the URL"
)
KUBERNETES = (
    "holds a URL: Kubernetes injects such a variable for a Service that is called like the prefix;"
    " set enableServiceLinks: false on the pod, rename the Service, or read the settings with"
    " another prefix"
)


def problems(**arguments: Any) -> list[str]:
    """Return the sentences of the error that these settings are refused with."""
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings(**arguments)
    return list(caught.value.problems)


def password(settings: DatabaseSettings) -> str | None:
    """Return the password in the clear."""
    return settings.password.get_secret_value() if settings.password else None


# ---- one wrong variable ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DB_PORT", "abc", "DB_PORT is not a whole number"),
        ("DB_PORT", "5432.5", "DB_PORT is not a whole number"),
        ("DB_PORT", "0", "DB_PORT must be at least 1"),
        ("DB_PORT", "65536", "DB_PORT must be at most 65535"),
        ("DB_PORT", "tcp://10.0.0.7:5432", f"DB_PORT {KUBERNETES}"),
        ("DB_POOL_SIZE", "-1", "DB_POOL_SIZE must be at least 1"),
        ("DB_POOL_SIZE", "0", "DB_POOL_SIZE must be at least 1"),
        ("DB_POOL_SIZE", "ten", "DB_POOL_SIZE is not a whole number"),
        ("DB_MAX_OVERFLOW", "-1", "DB_MAX_OVERFLOW must be at least 0"),
        ("DB_POOL_TIMEOUT_SECONDS", "0", "DB_POOL_TIMEOUT_SECONDS must be more than 0.0"),
        ("DB_POOL_TIMEOUT_SECONDS", "inf", "DB_POOL_TIMEOUT_SECONDS is not a finite number"),
        ("DB_POOL_RECYCLE_SECONDS", "-1", "DB_POOL_RECYCLE_SECONDS must be at least 1"),
        ("DB_STATEMENT_TIMEOUT_SECONDS", "-1", "DB_STATEMENT_TIMEOUT_SECONDS must be at least 0.0"),
        ("DB_CONNECT_TIMEOUT_SECONDS", "10s", "DB_CONNECT_TIMEOUT_SECONDS is not a number"),
        (
            "DB_POOL_PRE_PING",
            "sometimes",
            "DB_POOL_PRE_PING must be one of 'idle', 'always' or 'never'",
        ),
        (
            "DB_SSL_MODE",
            "on",
            "DB_SSL_MODE must be one of 'disable', 'prefer', 'require', 'verify-ca' or"
            " 'verify-full'",
        ),
        ("DB_ECHO", "perhaps", "DB_ECHO is neither true nor false"),
        ("DB_NAME", "", "DB_NAME is empty; write the database's name, or remove the variable"),
        ("DB_NAME", "  ", "DB_NAME is empty; write the database's name, or remove the variable"),
        ("DB_HOST", "pw@db", f"DB_HOST contains an '@', which no host name does; {ESCAPE}"),
        ("DB_HOST", "a,,b", "DB_HOST is empty, or has a comma too many"),
        (
            "DB_HOST",
            "db:http",
            f"DB_HOST has a port that is not a number from 1 to 65535; if it is none, {ESCAPE}",
        ),
        ("DB_READ_HOST", "a b", "DB_READ_HOST contains white space"),
        (
            "DB_TYPE",
            "postgres://db/app",
            "DB_TYPE is no connector's name; write a name such as postgres, not a URL",
        ),
        (
            "DB_URL",
            "db.example/app",
            "DB_URL is not a URL: it does not begin with a scheme such as postgres://",
        ),
        (
            "DB_URL",
            "postgres://u:p@ss@db/app",
            f"DB_URL has an '@' too many, so that its host is unclear; {ESCAPE}",
        ),
        (
            "DB_URL",
            "postgres://u:p%40ss@d%40b/app",
            f"DB_URL contains an '@', which no host name does; {ESCAPE}",
        ),
        (
            "DB_URL",
            "postgres://u:p/ss@db/app",
            f"DB_URL has an '@' behind a '/' or '?'; {ESCAPE}",
        ),
    ],
)
def test_wrong_value_gets_one_sentence(
    setenv: SetEnv, variable: str, value: str, sentence: str
) -> None:
    """A wrong value is refused with one sentence that names the variable and says what is right."""
    setenv(**{variable: value})
    assert problems() == [sentence]


def test_wrong_argument_is_named_as_argument(setenv: SetEnv) -> None:
    """A wrong argument is called an argument, as no variable is to blame."""
    setenv(DB_PORT="5432")
    assert problems(port="abc") == ["argument port is not a whole number"]
    assert problems(host=None) == ["argument host is not text"]
    assert problems(url=make_url("postgresql://u:p@db/app")) == ["argument url is not text"]


def test_all_problems_come_in_one_error(setenv: SetEnv) -> None:
    """Everything that is wrong is said at once, one sentence per field."""
    setenv(
        DB_PORT="abc",
        DB_POOL_SIZE="-1",
        DB_NAME="",
        DB_PASSWORD_FILE="/nowhere/password",
        DB_URL="app.db",
    )
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings()
    named = {item["variable"] for item in caught.value.errors()}
    assert named == {"DB_PORT", "DB_POOL_SIZE", "DB_NAME", "DB_PASSWORD_FILE", "DB_URL"}
    assert str(caught.value).startswith("5 settings are wrong:\n  - DB_")
    assert str(caught.value).count("\n  - ") == len(caught.value.problems) == 5


def test_errors_is_data_without_input(setenv: SetEnv) -> None:
    """`errors()` gives variable and message, in the manner of pydantic but without the input."""
    setenv(DB_PORT="abc")
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings(pool_size=0)
    assert caught.value.errors() == [
        {"variable": "DB_PORT", "msg": "DB_PORT is not a whole number"},
        {"variable": "pool_size", "msg": "argument pool_size must be at least 1"},
    ]


def test_error_is_a_value_error() -> None:
    """Code that caught ValueError around pydantic settings goes on working."""
    with pytest.raises(ValueError, match=r"^argument port must be at most 65535$"):
        DatabaseSettings(port=99999)


# ---- two that disagree -------------------------------------------------------------------------

URL = "postgres://app:secret-a@db.example:5432/app"


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("DB_HOST", "other.example", "host"),
        ("DB_HOST", "db.example:5433", "host"),
        ("DB_PORT", "5433", "port"),
        ("DB_USER", "other", "user"),
        ("DB_PASSWORD", "secret-b", "password"),
        ("DB_NAME", "other", "name"),
    ],
)
def test_url_and_part_disagree(setenv: SetEnv, variable: str, value: str, part: str) -> None:
    """A part that says something else than the URL is refused, naming both variables."""
    setenv(DB_URL=URL, **{variable: value})
    assert problems() == [
        f"{variable} and DB_URL disagree about the {part}; remove one of them",
    ]


def test_url_and_part_agree(setenv: SetEnv) -> None:
    """Parts that repeat the URL are welcome."""
    setenv(
        DB_URL=URL,
        DB_HOST="db.example",
        DB_PORT="5432",
        DB_USER="app",
        DB_PASSWORD="secret-a",
        DB_NAME="app",
    )
    assert DatabaseSettings().hosts == (HostPort("db.example", 5432),)


def test_part_that_the_url_leaves_open_is_added(setenv: SetEnv) -> None:
    """What the URL does not say is taken from the parts, so that a secret can stand apart."""
    setenv(DB_URL="postgres://db.example/app", DB_HOST="db.example:5433", DB_PASSWORD="secret-a")
    settings = DatabaseSettings()
    assert settings.hosts == (HostPort("db.example", 5433),)
    assert password(settings) == "secret-a"
    assert settings.user == "app"


def test_part_as_argument_disagrees_with_url(setenv: SetEnv) -> None:
    """An argument against the environment's URL is refused too: half a URL is nobody's wish."""
    setenv(DB_URL=URL)
    assert problems(host="other") == [
        "argument host and DB_URL disagree about the host; remove one of them"
    ]


def test_injected_port_is_explained_beside_a_url(setenv: SetEnv) -> None:
    """Kubernetes' DB_PORT is explained where there is a URL as well, not called a disagreement."""
    setenv(DB_URL=URL, DB_PORT="tcp://10.0.0.7:5432")
    assert problems() == [f"DB_PORT {KUBERNETES}"]


def test_port_behind_the_host_disagrees_with_port(setenv: SetEnv) -> None:
    """Two different ports for one host are refused."""
    setenv(DB_HOST="db:5433", DB_PORT="5432")
    assert problems() == [
        "DB_PORT and the port written behind the host disagree; remove one of them"
    ]
    setenv(DB_PORT="5433")
    assert DatabaseSettings().hosts == (HostPort("db", 5433),)


# ---- secrets in files --------------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """Return a file with a secret, ended by a line break as editors do."""
    path = tmp_path / "secret"
    path.write_text(" pass word \r\n")
    return path


def test_password_from_file(setenv: SetEnv, secret_file: Path) -> None:
    """The password may be in a file; only the line break at its end is left away."""
    setenv(DB_PASSWORD_FILE=str(secret_file))
    assert password(DatabaseSettings()) == " pass word "


def test_url_from_file(setenv: SetEnv, secret_file: Path) -> None:
    """The URL may be in a file, too, and errors name that file's variable."""
    secret_file.write_text(URL + "\n")
    setenv(DB_URL_FILE=str(secret_file))
    settings = DatabaseSettings()
    assert (settings.host, password(settings)) == ("db.example", "secret-a")
    setenv(DB_HOST="other")
    assert problems() == ["DB_HOST and DB_URL_FILE disagree about the host; remove one of them"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(
            None,
            "names the file {}, which cannot be read (No such file or directory); mount the secret"
            " there, or correct the path",
            id="missing",
        ),
        pytest.param(
            Path,
            "names the file {}, which cannot be read (Is a directory); mount the secret there, or"
            " correct the path",
            id="folder",
        ),
        pytest.param(
            b"",
            "names the file {}, which is empty; write the secret into it",
            id="empty",
        ),
        pytest.param(
            b"\n\n",
            "names the file {}, which is empty; write the secret into it",
            id="line-breaks-only",
        ),
        pytest.param(
            b"\xff\xfe",
            "names the file {}, which cannot be read (it is not UTF-8 text); mount the secret"
            " there, or correct the path",
            id="not-text",
        ),
    ],
)
@pytest.mark.parametrize("variable", ["DB_PASSWORD_FILE", "DB_URL_FILE", "DB_DIRECT_URL_FILE"])
def test_unusable_secret_file(
    setenv: SetEnv, tmp_path: Path, variable: str, content: object, sentence: str
) -> None:
    """A secret file that gives no secret is refused with its variable, its path and the reason."""
    path = tmp_path / "secret"
    if content is Path:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    setenv(**{variable: str(path)})
    assert problems() == [f"{variable} {sentence.format(path)}"]


def test_relative_secret_file_is_not_repeated(setenv: SetEnv) -> None:
    """What does not look like a path may be the secret itself, and is not repeated."""
    setenv(DB_PASSWORD_FILE="kestrel")
    assert problems() == [
        "DB_PASSWORD_FILE names a file, which cannot be read (No such file or directory); mount the"
        " secret there, or correct the path"
    ]


def test_secret_and_its_file(setenv: SetEnv, secret_file: Path) -> None:
    """A secret and a file with it, both set, are refused."""
    setenv(DB_PASSWORD="x", DB_PASSWORD_FILE=str(secret_file))
    assert problems() == ["DB_PASSWORD_FILE and DB_PASSWORD are both set; keep one of them"]


def test_file_that_is_beaten_is_not_read(setenv: SetEnv) -> None:
    """A secret file that something stronger makes needless may be missing."""
    setenv(DB_PASSWORD_FILE="/nowhere/password")
    assert password(DatabaseSettings(password="x")) == "x"
    assert password(DatabaseSettings(url=URL)) == "secret-a"


# ---- variables that nobody reads ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"DB_POOLSIZE": "5"},
            "DB_POOLSIZE is not a setting of moorage; did you mean DB_POOL_SIZE?",
        ),
        ({"DB_HOTS": "db"}, "DB_HOTS is not a setting of moorage; did you mean DB_HOST?"),
        (
            {"DB_SSLMODE": "require"},
            "DB_SSLMODE is not a setting of moorage; did you mean DB_SSL_MODE?",
        ),
        (
            {"DB_PASWORD_FILE": "/x"},
            "DB_PASWORD_FILE is not a setting of moorage; did you mean DB_PASSWORD_FILE?",
        ),
        (
            {"DB_TYPE": "duck", "DB_GOOSE_WINGS": "2"},
            "DB_GOOSE_WINGS is not a setting of moorage; remove it",
        ),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_unknown_variable_warns_once(
    setenv: SetEnv, variables: dict[str, str], sentence: str
) -> None:
    """A variable that nothing reads warns once, with the name that was meant."""
    setenv(**variables)
    with pytest.warns(UnknownSettingWarning) as caught:
        DatabaseSettings()
    assert [str(item.message) for item in caught] == [sentence]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DatabaseSettings()


def test_unknown_variable_is_an_error_if_strict(setenv: SetEnv) -> None:
    """Under `strict` every variable that nothing reads is an error."""
    setenv(DB_POOLSIZE="5", DB_HOTS="db")
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env(strict=True)
    assert caught.value.problems == (
        "DB_HOTS is not a setting of moorage; did you mean DB_HOST?",
        "DB_POOLSIZE is not a setting of moorage; did you mean DB_POOL_SIZE?",
    )


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(
            {
                "DB_SERVICE_HOST": "10.0.0.7",
                "DB_SERVICE_PORT": "5432",
                "DB_SERVICE_PORT_POSTGRES": "5432",
                "DB_PORT_5432_TCP": "tcp://10.0.0.7:5432",
                "DB_PORT_5432_TCP_PROTO": "tcp",
                "DB_PORT_5432_TCP_PORT": "5432",
                "DB_PORT_5432_TCP_ADDR": "10.0.0.7",
            },
            id="links-of-service-db",
        ),
        pytest.param(
            {
                "DB_POSTGRESQL_SERVICE_HOST": "10.0.0.7",
                "DB_POSTGRESQL_SERVICE_PORT": "5432",
                "DB_POSTGRESQL_PORT": "tcp://10.0.0.7:5432",
                "DB_POSTGRESQL_PORT_5432_TCP": "tcp://10.0.0.7:5432",
            },
            id="links-of-service-db-postgresql",
        ),
        pytest.param({"DB_POSTGRES_JIT": "on", "DB_MYSQL_X": "1"}, id="options-of-connectors"),
        pytest.param({"DB_POOLSIZE": ""}, id="empty"),
        pytest.param({"DBX": "1", "OTHER": "1"}, id="not-under-the-prefix"),
    ],
)
@pytest.mark.parametrize("type_", ["postgres", "postgresql"])
def test_variables_that_are_left_alone(
    setenv: SetEnv, variables: dict[str, str], type_: str
) -> None:
    """Kubernetes' service links, options of connectors and foreign variables pass in silence."""
    setenv(DB_TYPE=type_, **variables)
    settings = DatabaseSettings.from_env(strict=True)
    assert "port" not in str(settings.options_for("postgres", "postgresql"))
    assert "service" not in str(settings.options_for("postgres", "postgresql"))


def test_possible_option_is_left_alone_while_the_type_is_unknown(setenv: SetEnv) -> None:
    """While nothing says which connector it will be, DB_<WORD>_… may be an option of it."""
    setenv(DB_GOOSE_WINGS="2")
    settings = DatabaseSettings.from_env(strict=True)
    assert settings.options_for("goose") == {"wings": "2"}


# ---- where values come from --------------------------------------------------------------------


def test_defaults() -> None:
    """Without any variable the documented defaults hold."""
    settings = DatabaseSettings()
    assert settings.type is None
    assert settings.hosts == (HostPort("localhost"),)
    assert (settings.name, settings.user, settings.password) == ("app", "app", None)
    assert (settings.pool_size, settings.max_overflow) == (10, 20)
    assert (settings.pool_timeout_seconds, settings.pool_recycle_seconds) == (30, 1800)
    assert settings.pool_pre_ping == "idle"
    assert (settings.ssl_mode, settings.echo) == (None, False)
    assert (settings.url_scheme, dict(settings.url_query)) == (None, {})
    assert settings.model_fields_set == set()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("type", "Postgres", "postgres"),
        ("type", "duck", "duck"),
        ("host", "db.example", "db.example"),
        ("read_host", "replica", "replica"),
        ("port", "5433", 5433),
        ("name", ":memory:", ":memory:"),
        ("user", "somebody", "somebody"),
        ("password", "p@ss", SecretStr("p@ss")),
        ("pool_size", "3", 3),
        ("max_overflow", "0", 0),
        ("pool_pre_ping", "never", "never"),
        ("ssl_mode", "verify-ca", "verify-ca"),
        ("ssl_ca", "/ca.pem", Path("/ca.pem")),
        ("statement_timeout_seconds", "0", 0.0),
        ("lock_timeout_seconds", "0.5", 0.5),
        ("application_name", "shop", "shop"),
        ("echo", "true", True),
    ],
)
@pytest.mark.parametrize("spelling", [str.upper, str.lower], ids=["upper", "lower"])
def test_every_field_is_a_variable(
    setenv: SetEnv, spelling: Callable[[str], str], field: str, value: str, expected: object
) -> None:
    """Every field is read from its variable, in capitals or not."""
    setenv(**{spelling(f"db_{field}"): value})
    settings = DatabaseSettings()
    assert getattr(settings, field) == expected
    assert settings.origin(field) == f"DB_{field.upper()}"
    assert settings.model_fields_set == {field}


def test_database_type_is_a_string() -> None:
    """The first-party names are strings like any other name."""
    assert DatabaseSettings(type=DatabaseType.MYSQL).type == "mysql"
    assert type(DatabaseSettings(type=DatabaseType.MYSQL).type) is str


@pytest.mark.parametrize("field", ["type", "host", "port", "url", "password", "ssl_ca", "echo"])
def test_empty_variable_is_unset(setenv: SetEnv, field: str) -> None:
    """An empty variable means that nothing was set, as compose files write it."""
    setenv(**{f"DB_{field.upper()}": ""})
    assert DatabaseSettings().model_fields_set == set()


def test_order_of_sources(setenv: SetEnv, tmp_path: Path) -> None:
    """Arguments beat the environment, and the environment beats .env."""
    Path(".env").write_text("DB_HOST=file\nDB_USER=file\nDB_NAME=file\n")
    setenv(DB_HOST="environment", DB_USER="environment")
    settings = DatabaseSettings(host="argument")
    assert (settings.host, settings.user, settings.name) == ("argument", "environment", "file")
    assert settings.origin("host") == "argument host"
    assert settings.origin("user") == "DB_USER"
    assert settings.origin("name") == "DB_NAME in .env"
    assert settings.origin("port") == "DB_PORT"


def test_empty_variable_does_not_beat_the_file(setenv: SetEnv) -> None:
    """An empty variable leaves .env in force, for fields and for options of a connector."""
    Path(".env").write_text("DB_HOST=file\nDB_POSTGRES_JIT=on\n")
    setenv(DB_HOST="", DB_POSTGRES_JIT="")
    settings = DatabaseSettings()
    assert settings.host == "file"
    assert settings.options_for("postgres") == {"jit": "on"}


def test_beaten_values_are_not_judged(setenv: SetEnv) -> None:
    """What is beaten by something stronger may be wrong."""
    Path(".env").write_text("DB_PORT=abc\nDB_NAME=\n")
    setenv(DB_PORT="1", DB_NAME="app")
    assert DatabaseSettings().port == 1
    setenv(DB_PORT="abc", DB_NAME="")
    assert DatabaseSettings(port=2, name="x").port == 2


def test_error_names_the_file(tmp_path: Path) -> None:
    """A wrong value in a file is reported with the file."""
    Path(".env").write_text("DB_PORT=abc\n")
    assert problems() == ["DB_PORT in .env is not a whole number"]
    other = tmp_path / "production.env"
    other.write_text("DB_PORT=tcp\n")
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env(env_file=other)
    assert caught.value.problems == (f"DB_PORT in {other} is not a whole number",)


def test_foreign_keys_in_the_file_are_ignored() -> None:
    """A .env that serves other programs, too, is fine."""
    Path(".env").write_text("SECRET_KEY=x\nDEBUG=1\nPORT=8000\nDB_HOST=db\n")
    assert DatabaseSettings.from_env(strict=True).host == "db"


def test_file_that_is_no_text() -> None:
    """A .env in another encoding is named, without a byte of it."""
    Path(".env").write_bytes("DB_PASSWORD=kästrel\n".encode("latin-1"))
    assert problems() == [".env is not UTF-8 text; save it as UTF-8"]


def test_no_file_if_none_is_wanted() -> None:
    """`env_file=None` reads no file."""
    Path(".env").write_text("DB_HOST=file\n")
    assert DatabaseSettings.from_env(env_file=None).host == "localhost"


def test_other_prefix(setenv: SetEnv) -> None:
    """Settings with another prefix read and name only their own variables."""
    setenv(DB_HOST="main", REPORTS_HOST="reports", REPORTS_DUCK_WINGS="2")
    settings = DatabaseSettings.from_env("reports_")
    assert settings.host == "reports"
    assert settings.env_prefix == "REPORTS_"
    assert settings.variable("pool_size") == "REPORTS_POOL_SIZE"
    assert settings.options_for("duck") == {"wings": "2"}
    setenv(REPORTS_PORT="abc", DB_PORT="tcp://x")
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env("REPORTS_")
    assert caught.value.problems == ("REPORTS_PORT is not a whole number",)


def test_database_url_is_a_fallback(setenv: SetEnv) -> None:
    """DATABASE_URL is read for the default prefix, while DB_URL is unset."""
    setenv(DATABASE_URL="postgres://fallback/app")
    settings = DatabaseSettings()
    assert (settings.host, settings.origin("host")) == ("fallback", "DATABASE_URL")
    assert DatabaseSettings.from_env("OTHER_").host == "localhost"
    assert DatabaseSettings(url="postgres://argument/app").host == "argument"
    setenv(DB_URL="postgres://first/app")
    assert DatabaseSettings().host == "first"


def test_database_url_disagrees_with_a_part(setenv: SetEnv) -> None:
    """DATABASE_URL is held against the parts under its own name, also from .env."""
    Path(".env").write_text("DATABASE_URL=postgres://file/app\n")
    setenv(DB_HOST="other")
    assert problems() == [
        "DB_HOST and DATABASE_URL in .env disagree about the host; remove one of them"
    ]


def test_url_as_argument_beats_lingering_parts(setenv: SetEnv) -> None:
    """A URL given in code is taken whole, whatever parts linger in the environment."""
    Path(".env").write_text("DB_NAME=\n")
    setenv(
        DB_HOST="lingers", DB_PORT="tcp://x", DB_USER="lingers", DB_PASSWORD="x", DB_POOL_SIZE="3"
    )
    settings = DatabaseSettings(url="postgres://db.example/shop")
    assert settings.hosts == (HostPort("db.example"),)
    assert (settings.name, settings.user, settings.password) == ("shop", "app", None)
    assert settings.pool_size == 3


def test_options_of_a_connector_are_collected(setenv: SetEnv) -> None:
    """Raw options come from variables, .env and code, and code wins."""
    Path(".env").write_text("DB_DUCK_WINGS=3\nDB_DUCK_COLOUR=green\n")
    setenv(DB_TYPE="duck", DB_DUCK_WINGS="2", DB_DUCK_BEAK="flat", DB_POSTGRES_JIT="on")
    settings = DatabaseSettings(connector_options={"beak": "round"})
    assert settings.options_for("duck") == {"wings": "2", "colour": "green", "beak": "round"}
    assert DatabaseSettings().options_for("postgres") == {"jit": "on"}


# ---- URLs and hosts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("postgres://db/app", "postgres"),
        ("postgresql+asyncpg://db/app", "postgresql"),
        ("postgresql+psycopg2://db/app", "postgresql"),
        ("mysql+pymysql://db/app", "mysql"),
        ("mariadb://db/app", "mariadb"),
        ("sqlite+aiosqlite:///app", "sqlite"),
        ("DUCK://db/app", "duck"),
    ],
)
def test_vendor_schemes(url: str, scheme: str) -> None:
    """The base name of a scheme is kept, the driver in it is not: connectors choose drivers."""
    settings = DatabaseSettings(url=url)
    assert (settings.url_scheme, settings.name) == (scheme, "app")


def test_parameters_of_the_url_are_kept() -> None:
    """The parameters of a URL are kept for the connector, and cannot be changed."""
    settings = DatabaseSettings(url="postgres://db/app?sslmode=require&options=-c%20a%3D1")
    assert dict(settings.url_query) == {"sslmode": ("require",), "options": ("-c a=1",)}
    with pytest.raises(TypeError):
        settings.url_query["x"] = ("y",)  # type: ignore[index]


def test_password_in_url_is_decoded() -> None:
    """A percent-encoded password reaches the driver as it was meant."""
    settings = DatabaseSettings(url="postgres://us%40er:p%40%2F%3A%23%25%3F@db/app")
    assert (settings.user, password(settings)) == ("us@er", "p@/:#%?")


@pytest.mark.parametrize(
    ("arguments", "hosts"),
    [
        ({"host": "::1"}, [HostPort("::1")]),
        ({"host": "[::1]:5433"}, [HostPort("::1", 5433)]),
        ({"host": "::1", "port": 5433}, [HostPort("::1", 5433)]),
        ({"url": "postgres://[2001:db8::5]:5433/app"}, [HostPort("2001:db8::5", 5433)]),
        ({"host": "/run/pg"}, [HostPort("/run/pg")]),
        ({"host": "a:1,b", "port": 2}, [HostPort("a", 1), HostPort("b", 2)]),
        ({"url": "postgres://a:1,b/app", "port": 2}, [HostPort("a", 1), HostPort("b", 2)]),
        ({"url": "postgres://a,[::1]:3/app"}, [HostPort("a"), HostPort("::1", 3)]),
    ],
    ids=str,
)
def test_hosts(arguments: dict[str, Any], hosts: list[HostPort]) -> None:
    """Hosts are taken apart alike, wherever they came from; the port is for those without one."""
    assert list(DatabaseSettings(**arguments).hosts) == hosts


def test_several_hosts_agree_or_not(setenv: SetEnv) -> None:
    """A list of hosts is held against the URL's as a whole."""
    setenv(DB_HOST="a:1, b:2")
    assert DatabaseSettings.from_env().hosts == (HostPort("a", 1), HostPort("b", 2))
    setenv(DB_URL="postgres://a:1,b:2/app")
    assert len(DatabaseSettings().hosts) == 2
    setenv(DB_URL="postgres://b:2,a:1/app")
    assert problems() == ["DB_HOST and DB_URL disagree about the host; remove one of them"]


# ---- settings as values ------------------------------------------------------------------------


def test_settings_are_frozen() -> None:
    """Settings do not change after they were built."""
    settings = DatabaseSettings()
    with pytest.raises(SettingsError) as caught:
        settings.host = "other"  # type: ignore[misc]
    assert str(caught.value) == ("host cannot be assigned: settings are frozen; build new ones")
    assert settings.host == "localhost"


def test_replaced_remembers_the_origin(setenv: SetEnv) -> None:
    """A connector's translation makes a copy and leaves the original as it is."""
    setenv(DB_SSL_MODE="require")
    settings = DatabaseSettings()
    copied = settings.replaced("DB_URL", ssl_mode="disable")
    assert (settings.ssl_mode, settings.origin("ssl_mode")) == ("require", "DB_SSL_MODE")
    assert (copied.ssl_mode, copied.origin("ssl_mode")) == ("disable", "DB_URL")


@pytest.mark.parametrize(
    "clone",
    [
        pytest.param(
            lambda settings: pickle.loads(pickle.dumps(settings)),  # noqa: S301  # our own bytes
            id="pickle",
        ),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda settings: settings.model_copy(deep=True), id="model_copy"),
    ],
)
def test_settings_survive_being_copied(
    setenv: SetEnv, clone: Callable[[DatabaseSettings], DatabaseSettings]
) -> None:
    """A copy, also in another process, knows what the original knew."""
    setenv(DB_DUCK_WINGS="2")
    settings = DatabaseSettings(url="duck://app:secret-a@a:1,b:2/app?x=1")
    copied = clone(settings)
    assert copied == settings
    assert copied.hosts == settings.hosts
    assert copied.url_query == settings.url_query
    assert copied.options_for("duck") == {"wings": "2"}
    assert copied.origin("host") == "argument url"


def test_equal_values_make_equal_settings(setenv: SetEnv) -> None:
    """Where a value came from makes no difference to what settings are equal to."""
    setenv(DB_HOST="db")
    assert DatabaseSettings() == DatabaseSettings(host="db")
    assert DatabaseSettings() != DatabaseSettings(host="other")


def test_subclass_may_add_fields(setenv: SetEnv) -> None:
    """An application may derive its own settings and read more from the same prefix."""

    class ShopSettings(DatabaseSettings):
        archive_after_days: int = 30

    setenv(DB_ARCHIVE_AFTER_DAYS="7", DB_HOST="db")
    settings = ShopSettings.from_env(strict=True)
    assert (settings.archive_after_days, settings.host) == (7, "db")
    setenv(DB_ARCHIVE_AFTER_DAYS="soon")
    with pytest.raises(SettingsError, match=r"^DB_ARCHIVE_AFTER_DAYS is not a whole number$"):
        ShopSettings()


def test_model_validate_is_a_constructor_too(setenv: SetEnv) -> None:
    """`model_validate` gives the same values and the same errors as calling the class."""
    setenv(DB_USER="somebody")
    settings = DatabaseSettings.model_validate({"host": "db"})
    assert (settings.host, settings.user) == ("db", "somebody")
    with pytest.raises(ValueError, match="argument port is not a whole number"):
        DatabaseSettings.model_validate({"port": "abc"})


def test_unknown_argument_is_refused() -> None:
    """An argument that is no setting is an error with the nearest name, and shows no value."""
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings(poolsize=3, pasword="s3cret", _env_file=None)
    message = str(caught.value)
    assert "argument poolsize is not a setting; did you mean pool_size?" in message
    assert "argument pasword is not a setting; did you mean password?" in message
    assert "s3cret" not in message


def test_direct_settings(setenv: SetEnv) -> None:
    """The direct URL is a secret, and leads to settings that differ in what it says."""
    setenv(
        DB_URL="postgres://u.ref:secret-a@pool.example:6543/db?sslmode=require",
        DB_DIRECT_URL="postgres://u@db.example/db?sslmode=disable",
        DB_POOL_SIZE="3",
    )
    settings = DatabaseSettings()
    direct = settings.direct()
    assert (direct.host, direct.port, direct.user, direct.name) == ("db.example", None, "u", "db")
    assert (password(direct), direct.pool_size) == ("secret-a", 3)
    assert direct.url_query == {"sslmode": ("disable",)}
    assert (settings.is_direct, direct.is_direct, direct.direct_url) == (False, True, None)
    assert settings.host == "pool.example"
    assert direct.origin("host") == "DB_DIRECT_URL"
    assert "secret-a" not in repr(direct)
    assert direct.direct() is direct


def test_a_direct_url_that_is_wrong(setenv: SetEnv) -> None:
    """A direct URL is checked like the other one, and not repeated."""
    setenv(DB_DIRECT_URL="postgres://u:kestrel@@db.example/db")
    (problem,) = problems()
    assert problem.startswith("DB_DIRECT_URL has an '@' too many")
    assert "kestrel" not in problem


def test_without_a_direct_url_the_way_is_the_same(setenv: SetEnv) -> None:
    """Settings without a direct URL are their own direct settings."""
    settings = DatabaseSettings()
    assert settings.direct() is settings
