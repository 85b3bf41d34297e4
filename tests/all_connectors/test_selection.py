"""With all connectors installed, settings alone choose between them."""

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from moorage import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    Database,
    DatabaseSettings,
    SettingsError,
    get_connector,
    installed_connectors,
)
from moorage.registry import ConnectorRegistry
from tests.fix_database import DatabaseFactory


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what the machine's environment might say about databases."""
    for name in ("DB_TYPE", "DB_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_all_are_listed_with_their_distribution() -> None:
    """Every name of ours is listed with the distribution and version that publishes it."""
    listed = {item.name: item.distribution for item in installed_connectors()}
    assert listed == {
        "mariadb": "moorage-mysql",
        "mysql": "moorage-mysql",
        "postgres": "moorage-postgres",
        "postgresql": "moorage-postgres",
        "supabase": "moorage-postgres",
        "sqlite": "moorage-sqlite",
    }


@pytest.mark.parametrize(
    ("name", "connector"),
    [
        ("sqlite", "sqlite"),
        ("postgres", "postgres"),
        ("postgresql", "postgres"),
        ("supabase", "supabase"),
        ("mysql", "mysql"),
        ("mariadb", "mysql"),
        ("MySQL", "mysql"),
    ],
)
def test_db_type_chooses(monkeypatch: pytest.MonkeyPatch, name: str, connector: str) -> None:
    """DB_TYPE names the connector, by any of its names and in any case."""
    monkeypatch.setenv("DB_TYPE", name)
    assert get_connector(DatabaseSettings()).name == connector


@pytest.mark.parametrize(
    ("url", "connector"),
    [
        ("sqlite:///x.db", "sqlite"),
        ("postgres://h/db", "postgres"),
        ("postgresql+asyncpg://h/db", "postgres"),
        ("mariadb://h/db", "mysql"),
    ],
)
def test_the_url_chooses(monkeypatch: pytest.MonkeyPatch, url: str, connector: str) -> None:
    """Without DB_TYPE the scheme of the URL decides."""
    monkeypatch.setenv("DATABASE_URL", url)
    assert get_connector(DatabaseSettings()).name == connector


def test_postgres_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    """With nothing said, postgres is picked, and one log line says why."""
    with caplog.at_level(logging.INFO, "moorage.registry"):
        assert get_connector(DatabaseSettings()).name == "postgres"
    (line,) = caplog.messages
    assert "'postgres' (moorage-postgres " in line
    assert line.endswith("picked: DB_TYPE is unset and postgres is the default")


def test_url_of_another_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL for another connector than DB_TYPE is an error that names both."""
    monkeypatch.setenv("DB_TYPE", "sqlite")
    monkeypatch.setenv("DB_URL", "mysql://u:s3cret@h/db")
    with pytest.raises(SettingsError) as caught:
        get_connector(DatabaseSettings())
    message = str(caught.value)
    assert "DB_URL begins with mysql://, which belongs to connector 'mysql'" in message
    assert "DB_TYPE says 'sqlite'" in message
    assert "s3cret" not in message


def test_alias_and_scheme_of_one_connector_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB_TYPE and a URL may use different names of the same connector."""
    monkeypatch.setenv("DB_TYPE", "mysql")
    monkeypatch.setenv("DB_URL", "mariadb://h/db")
    assert get_connector(DatabaseSettings()).name == "mysql"


def test_unknown_name_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DB_TYPE that nobody publishes is an error with everything that is installed."""
    monkeypatch.setenv("DB_TYPE", "oracle")
    with pytest.raises(ConnectorNotFoundError) as caught:
        get_connector(DatabaseSettings())
    assert "installed: mariadb, mysql, postgres, postgresql, sqlite" in str(caught.value)


def test_two_distributions_with_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name of ours that another distribution claims too is an error that names both."""
    info = tmp_path / "site" / "acme_sqlite-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sqlite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[moorage.connectors]\nsqlite = acme:Connector\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ConnectorConflictError) as caught:
        ConnectorRegistry().find("sqlite")
    assert "acme-sqlite (acme:Connector)" in str(caught.value)
    assert "moorage-sqlite (moorage_sqlite:SQLiteConnector)" in str(caught.value)


async def test_all_backends_in_one_process(
    fresh_database: dict[str, Any], make_database: DatabaseFactory
) -> None:
    """A database of each backend works beside one of another, each with its own engine."""
    async with Database(DatabaseSettings(type="sqlite", name=":memory:", _env_file=None)) as memory:
        database = make_database()
        for each in (memory, database):
            async with each.unit_of_work() as session:
                assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        assert memory.connector.name == "sqlite"
        assert database.connector.name == fresh_database["type"]


def test_named_databases_read_their_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prefixes give two databases, each with its connector, and neither reads the other's."""
    monkeypatch.setenv("DB_TYPE", "postgres")
    monkeypatch.setenv("ANALYTICS_DB_TYPE", "mysql")
    monkeypatch.setenv("ANALYTICS_DB_NAME", "warehouse")
    main = Database(DatabaseSettings.from_env())
    analytics = Database(DatabaseSettings.from_env("ANALYTICS_DB_"))
    assert (main.connector.name, main.settings.name) == ("postgres", "app")
    assert (analytics.connector.name, analytics.settings.name) == ("mysql", "warehouse")
