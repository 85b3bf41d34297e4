"""Connectors for other drivers, written from the documentation alone, pass the suite."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage import DatabaseSettings, register_connector, unregister_connector
from moorage.testing import ConnectorSuite
from moorage_mysql.provocations import PROVOCATIONS as ON_MYSQL
from moorage_postgres.provocations import PROVOCATIONS as ON_POSTGRES

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/other-drivers/*.py"))
LONGEST = 60


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    names = []
    for path in EXAMPLES:
        name = path.stem.removesuffix("_connector")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        register_connector(getattr(module, f"{name.title()}Connector"))
        names.append(name)
    yield
    unregister_connector(*names)


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
class TestPsycopg(ConnectorSuite):
    """PostgreSQL on psycopg 3."""

    provocations = ON_POSTGRES

    @pytest.fixture
    def settings(self, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**{**fresh_database, "type": "psycopg"}, _env_file=None)


@pytest.mark.parametrize("backend", ["mysql"], indirect=True)
class TestAsyncmy(ConnectorSuite):
    """MySQL and MariaDB on asyncmy."""

    provocations = ON_MYSQL

    @pytest.fixture
    def settings(self, fresh_database: dict[str, Any]) -> DatabaseSettings:
        """Return the settings of an empty database."""
        return DatabaseSettings(**{**fresh_database, "type": "asyncmy"}, _env_file=None)


def test_a_connector_is_short() -> None:
    """Another driver of a known backend takes sixty lines at most."""
    assert {path.stem for path in EXAMPLES} == {"psycopg_connector", "asyncmy_connector"}
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
