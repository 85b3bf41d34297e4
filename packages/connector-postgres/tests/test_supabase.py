"""What is Supabase's own: its users, its certificate, its addresses, and what its errors mean."""

import socket
import ssl
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from moorage import Database, DatabaseSettings, SettingsError, get_connector
from moorage_postgres import SupabaseConnector

PROJECT = "db.abcdefghijklmnopqrst.supabase.co"
SHARED = "aws-1-eu-central-1.pooler.supabase.com"


def connector_for(host: str, user: str, **values: Any) -> SupabaseConnector:
    """Return the connector for a project."""
    settings = DatabaseSettings(type="supabase", host=host, user=user, _env_file=None, **values)
    connector = get_connector(settings)
    assert isinstance(connector, SupabaseConnector)
    return connector


@pytest.mark.parametrize(
    ("host", "port", "user", "mode"),
    [
        (PROJECT, None, "postgres", "direct"),
        (PROJECT, 6543, "postgres", "transaction"),
        (SHARED, None, "postgres.abcdefghijklmnopqrst", "session"),
        (SHARED, 6543, "app.abcdefghijklmnopqrst", "transaction"),
        ("localhost", 54322, "postgres", "direct"),
    ],
)
def test_ways_in(host: str, port: int | None, user: str, mode: str) -> None:
    """Each way in is known by its address, and leads to the database that Supabase has."""
    connector = connector_for(host, user, port=port)
    assert connector.pooler == mode
    assert connector.settings.name == "postgres"
    assert connector.get_url().username == user


def test_a_user_without_project_is_refused() -> None:
    """The shared pooler knows a project by the user, and a project's own host does not."""
    with pytest.raises(SettingsError, match=r"user\.PROJECT-REF") as caught:
        connector_for(SHARED, "postgres")
    assert "Connect dialog" in caught.value.hint
    with pytest.raises(SettingsError, match="has users without one") as caught:
        connector_for(PROJECT, "postgres.abcdefghijklmnopqrst")
    assert "write postgres" in caught.value.hint


def test_a_host_elsewhere_must_prove_who_it_is() -> None:
    """The certificate and its name are verified, also through the pooler."""
    for host, user in ((PROJECT, "postgres"), (SHARED, "postgres.x")):
        context = connector_for(host, user).get_engine_args()["connect_args"]["ssl"]
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


def refusal(words: str) -> BaseException:
    """Return an error of Supabase's pooler."""
    error: BaseException = asyncpg.PostgresError.new({"C": "XX000", "M": words, "S": "FATAL"})
    return error


def unknown_authority() -> BaseException:
    """Return the error of a certificate that nobody known has signed."""
    error = ssl.SSLCertVerificationError(1, "unable to get local issuer certificate")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    return error


@pytest.mark.parametrize(
    ("host", "user", "error", "words"),
    [
        (PROJECT, "u", socket.gaierror(-5, "No address"), "IPv6 address only"),
        (PROJECT, "u", OSError(101, "Network is unreachable"), "IPv6 address only"),
        (SHARED, "u.r", OSError(101, "Network is unreachable"), "check that the server runs"),
        (SHARED, "u.r", refusal("Tenant or user not found"), "Connect dialog"),
        (SHARED, "u.r", refusal("max clients reached"), "port 6543"),
        (SHARED, "u.r", unknown_authority(), "download its certificate"),
    ],
)
def test_errors_say_where_to_look(host: str, user: str, error: BaseException, words: str) -> None:
    """What keeps a program out is explained by what Supabase's dashboard has about it."""
    connector = connector_for(host, user)
    diagnosis = connector.classify_error(error)
    assert diagnosis is not None
    assert words in diagnosis.hint


async def test_it_is_postgres(fresh_database: dict[str, Any]) -> None:
    """On a server of one's own, as Supabase's for development is, everything else is the same."""
    options = {"search_path": "public, extensions"}
    values = {**fresh_database, "type": "supabase", "connector_options": options}
    async with Database(DatabaseSettings(**values, _env_file=None)) as database:
        async with database.unit_of_work() as session:
            assert await session.scalar(text("SHOW search_path")) == "public, extensions"
        async with database.read_session() as session:
            assert await session.scalar(text("SELECT 1")) == 1
