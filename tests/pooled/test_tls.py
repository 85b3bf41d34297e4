"""TLS as it is spoken by a real server: who is let through, and who is taken for somebody else."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import moorage.testing
from moorage import Database, InsecureConnectionError, TLSState
from moorage_postgres import PostgresConnector
from tests.fix_backend import Servers
from tests.fix_database import DatabaseFactory
from tests.servers.postgres import CERTIFICATES
from tests.servers.server import Address

# The server's certificate is for localhost, and for no address.
RIGHT_NAME, WRONG_NAME = "localhost", "127.0.0.1"
CA = CERTIFICATES / "ca.pem"
WRONG_CA = Path(moorage.testing.__file__).with_name("stranger.pem")


@pytest.fixture
def fresh_database(servers: Servers) -> dict[str, Any]:
    """Return the settings of a database that every server has: nothing is stored here."""
    address = servers.get("postgres").address
    return {"type": "postgres", "port": address.port, "user": address.user, "name": "postgres"}


@pytest.fixture
def connect(make_database: DatabaseFactory, tls_server: Address, driver: str) -> DatabaseFactory:
    """Return a function that makes a database behind a server with TLS."""

    def make(**values: object) -> Database:
        return make_database(
            port=tls_server.port,
            user=tls_server.user,
            password=tls_server.password,
            connector_options={"pooler": "session", "driver": driver},
            **values,
        )

    return make


async def tls_of(database: Database) -> TLSState:
    """Return how the connection to the server is encrypted, as its driver says."""
    async with database.engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
        raw = await connection.get_raw_connection()
        connector = database.connector
        assert isinstance(connector, PostgresConnector)
        return connector.driver.tls_of(raw.driver_connection)


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        (RIGHT_NAME, "verify-full"),
        (RIGHT_NAME, "verify-ca"),
        (WRONG_NAME, "verify-ca"),
    ],
)
async def test_the_right_authority_passes(connect: DatabaseFactory, host: str, mode: str) -> None:
    """A server that shows a certificate of the given authority is spoken to, encrypted."""
    found = await tls_of(connect(host=host, ssl_mode=mode, ssl_ca=CA))
    assert found.protocol.startswith("TLS")
    assert found.proof == ("host name" if mode == "verify-full" else "authority")


@pytest.mark.parametrize("mode", ["require", "prefer"])
async def test_modes_that_prove_nothing(connect: DatabaseFactory, mode: str) -> None:
    """`require` and `prefer` encrypt, and ask nobody who answers."""
    found = await tls_of(connect(host=WRONG_NAME, ssl_mode=mode))
    assert found.protocol.startswith("TLS")
    assert found.proof == ""


@pytest.mark.parametrize(
    ("host", "mode", "authority"),
    [
        (RIGHT_NAME, "verify-full", WRONG_CA),
        (RIGHT_NAME, "verify-ca", WRONG_CA),
        (RIGHT_NAME, "require", WRONG_CA),  # an authority that is given is asked
        (RIGHT_NAME, "verify-full", None),  # the system's know nothing of it
        (WRONG_NAME, "verify-full", CA),
    ],
)
async def test_somebody_else_is_refused(
    connect: DatabaseFactory, host: str, mode: str, authority: Path | None
) -> None:
    """A wrong authority and a wrong name are refused, with the setting that asked for the proof."""
    database = connect(host=host, ssl_mode=mode, ssl_ca=authority)
    with pytest.raises(InsecureConnectionError, match=r"DB_SSL_MODE=verify-(ca|full) asks for"):
        await database.ping()


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_plain_text_is_refused(
    make_database: DatabaseFactory, driver: str, mode: str
) -> None:
    """A server without TLS is refused before the login, though the authority is the right one."""
    options = {"driver": driver}
    database = make_database(
        host=RIGHT_NAME, ssl_mode=mode, ssl_ca=CA, password="never sent", connector_options=options
    )
    with pytest.raises(InsecureConnectionError, match="does not offer TLS"):
        await database.ping()


async def test_the_plain_engine_asks_nobody(tls_server: Address) -> None:
    """Negative control: what everybody writes takes any certificate for the right one."""
    address = tls_server
    engine = create_async_engine(
        f"postgresql+asyncpg://{address.user}:{address.password}@{WRONG_NAME}:{address.port}"
        "/postgres?ssl=require"
    )
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()
