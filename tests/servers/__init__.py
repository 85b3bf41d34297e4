"""
Throwaway database servers for tests, demo and benchmarks.

``throwaway("postgres")`` and ``throwaway("mysql")`` yield a running server. A URL in
``MOORAGE_TEST_POSTGRES_URL`` or ``MOORAGE_TEST_MYSQL_URL`` names one that runs already and wins;
otherwise a server is started on a free loopback port and is gone afterwards, however the run ends.
`own_server` always starts one: for tests that stop or kill it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import mariadb, postgres
from tests.servers.server import Address, OwnServer, Server, ServerUnavailable
from tests.servers.supervision import ProgramError

__all__ = [
    "BACKENDS",
    "OwnServer",
    "Server",
    "ServerUnavailable",
    "own_server",
    "throwaway",
    "url_variable",
]

BACKENDS = ("postgres", "mysql")


def url_variable(backend: str) -> str:
    """Return the name of the variable that points tests at a running server."""
    return f"MOORAGE_TEST_{backend.upper()}_URL"


@contextmanager
def throwaway(backend: str) -> Iterator[Server]:
    """
    Yield a server of one backend: the one that the environment names, else one of our own.

    Raises:
        ServerUnavailable: It cannot be had; the message names the command that installs it.
    """
    if backend in BACKENDS and (url := os.environ.get(url_variable(backend))):
        yield _running_server(backend, url)
    else:
        with own_server(backend) as server:
            yield server


@contextmanager
def own_server(backend: str) -> Iterator[OwnServer]:
    """
    Yield a server of our own, which may be stopped, killed and started again.

    Raises:
        ServerUnavailable: It cannot be had; the message names the command that installs it.
        ValueError: The backend has no server.
    """
    server: OwnServer
    if backend == "postgres":
        server = postgres.start()
    elif backend == "mysql":
        server = mariadb.start()
    else:
        raise ValueError(f"no server for {backend!r}: choose from {', '.join(BACKENDS)}")
    with server:
        yield server


def _running_server(backend: str, url: str) -> Server:
    server: Server
    if backend == "postgres":
        client = postgres.find_client()
        if client is None:
            raise ServerUnavailable(f"psql is missing; install it with: {postgres.INSTALL}")
        address = Address.from_url(url, postgres.DEFAULT_PORT)
        server = postgres.PostgresServer(address, client)
    else:
        address = Address.from_url(url, mariadb.DEFAULT_PORT)
        server = mariadb.MariaDBServer(address, mariadb.find_client())
    try:
        server.version()
    except ProgramError as error:
        variable = url_variable(backend)
        raise ServerUnavailable(
            f"{error}\n{variable} names a server that does not answer: start it or unset this"
        ) from error
    return server
