"""Poolers in front of the PostgreSQL of this run, for tests of what still works behind them."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fix_backend import Servers
from tests.servers.pgbouncer import Mode, pooler
from tests.servers.postgres import start_with_tls
from tests.servers.server import Address, ServerUnavailable

MODES: tuple[Mode, ...] = ("transaction", "session")


@pytest.fixture(scope="session")
def service_login(servers: Servers) -> Iterator[dict[str, str]]:
    """Return user and password of a service, which may nothing by itself."""
    server = servers.get("postgres")
    user, password = f"service_{secrets.token_hex(4)}", secrets.token_hex(8)
    server.execute(f"CREATE ROLE {user} LOGIN NOINHERIT PASSWORD '{password}'")
    yield {"user": user, "password": password}
    server.execute(f"DROP ROLE {user}")


@pytest.fixture(scope="session")
def poolers(servers: Servers, service_login: dict[str, str]) -> Iterator[dict[str, Address]]:
    """Return where poolers listen, by mode."""
    server = servers.get("postgres").address
    users = {service_login["user"]: service_login["password"]}
    with ExitStack() as stack:
        try:
            yield {mode: stack.enter_context(pooler(server, mode, users=users)) for mode in MODES}
        except ServerUnavailable as error:
            pytest.fail(f"no pooler: {error}", pytrace=False)


@pytest.fixture(scope="session", params=["PostgreSQL", "PgBouncer"])
def tls_server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Address]:
    """
    Return where PostgreSQL is spoken with TLS: a server, and a pooler.

    The wheel's server has no TLS. Where this machine has no other one, the pooler has to do.
    """
    if request.param == "PostgreSQL":
        try:
            server = start_with_tls()
        except ServerUnavailable as error:
            pytest.skip(str(error))
        with server:
            yield server.address
        return
    try:
        with pooler(servers.get("postgres").address, "session", tls=True) as address:
            yield address
    except ServerUnavailable as error:
        pytest.fail(f"no pooler: {error}", pytrace=False)


@pytest.fixture
def pooled(poolers: dict[str, Address], fresh_database: dict[str, Any]) -> dict[str, Any]:
    """Return settings that lead to the test's database through a pooler in transaction mode."""
    address = poolers["transaction"]
    login = f"{fresh_database['user']}:{fresh_database['password']}"
    place = f"{fresh_database['host']}:{fresh_database['port']}"
    return {
        **fresh_database,
        "host": address.host,
        "port": address.port,
        "direct_url": f"postgres://{login}@{place}/{fresh_database['name']}",
        "connector_options": {"pooler": "transaction"},
    }
