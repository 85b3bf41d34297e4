"""Faults of servers, and of the way to them, are found on real ones, each under its own code."""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from moorage import (
    DBConnector,
    ServerFacts,
    ServerFault,
    TLSState,
    make_ssl_context,
    register_connector,
    unregister_connector,
)
from moorage.doctor import Report, examine
from moorage_mysql import MySQLConnector
from moorage_postgres import PostgresConnector
from moorage_sqlite import SQLiteConnector
from tests.fix_backend import Servers, new_database
from tests.servers.pgbouncer import CERTIFICATES, Mode, pooler
from tests.servers.postgres import PostgresServer
from tests.servers.server import Server

# An address of this machine that does not look like one: nothing vouches for what is behind it.
ELSEWHERE = "127.1"


@dataclass
class Place:
    """An empty database, and how the settings of a test lead to it."""

    servers: Servers
    backend: str
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> Server:
        """Return the server."""
        return self.servers.get(self.backend)

    def set(self, **variables: Any) -> None:
        """Add variables, in place of what they say now."""
        self.settings |= variables

    def sql(self, statement: str) -> None:
        """Run a statement in the database, as its owner."""
        name = str(self.settings["name"])
        if self.backend == "mysql":
            self.server.execute(f"USE {name}; {statement}")
        else:
            address = replace(self.server.address, database=name)
            PostgresServer(address, self.server.client).execute(statement)

    def go_through(self, mode: Mode, **options: Any) -> None:
        """Put a pooler in between."""
        users = {str(self.settings["user"]): str(self.settings["password"])}
        found = pooler(self.server.address, mode, users=users, **options)
        self.set(port=self.stack.enter_context(found).port)

    def log_in_as_service(self, options: str = "") -> str:
        """Log in as a role of its own, which may use what is in the database."""
        role, password = f"service_{secrets.token_hex(4)}", secrets.token_hex(8)
        self.server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' {options}")
        self.stack.callback(self.server.execute, f"DROP ROLE {role}")
        self.stack.callback(self.sql, f"DROP OWNED BY {role}")
        self.sql(f"GRANT ALL ON SCHEMA public TO {role}")
        self.set(user=role, password=password)
        return role

    def use(self, connector: type[DBConnector]) -> None:
        """Choose a connector that an application registers."""
        register_connector(connector)
        self.stack.callback(unregister_connector, connector.name)
        self.set(type=connector.name)

    def examine(self, **deployment: int) -> Report:
        """Say what is wrong."""
        for name, value in self.settings.items():
            self.monkeypatch.setenv(f"DB_{name.upper()}", str(value))
        self.monkeypatch.chdir(self.folder)
        return asyncio.run(examine(**deployment))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what is undone when the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def go(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> Callable[[str], Place]:
    """Return a function that makes a place on a backend."""
    for name in list(os.environ):
        if name.startswith(("DB_", "WEB_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)

    def make(backend: str) -> Place:
        settings = stack.enter_context(new_database(backend, servers, tmp_path))
        if backend == "sqlite":
            (tmp_path / "app.db").touch()
        folder = tmp_path / "empty"
        folder.mkdir()
        return Place(servers, backend, folder, monkeypatch, stack, dict(settings))

    return make


def variable(**variables: str) -> Callable[[Place], None]:
    """Return a fault that is a setting."""
    return lambda place: place.set(**variables)


def statement(sql: str) -> Callable[[Place], None]:
    """Return a fault that is made in the database."""
    return lambda place: place.sql(sql)


def believe_anybody(place: Place) -> None:
    """Let an application's own connector ask for no certificate."""

    class Careless(PostgresConnector):
        name = "careless"

        def get_engine_args(self) -> dict[str, Any]:
            arguments = super().get_engine_args()
            arguments["connect_args"]["ssl"] = make_ssl_context(self.settings, "require")
            return arguments

    place.go_through("session", tls=True)
    place.use(Careless)
    place.set(host="localhost", ssl_mode="verify-full", ssl_ca=CERTIFICATES / "ca.pem")
    place.set(careless_pooler="session")


def live_in_oslo(place: Place) -> None:
    """Let an application's own connector set another time zone."""

    class Northern(MySQLConnector):
        name = "northern"

        async def prepare_connection(self, driver_connection: Any) -> None:
            await super().prepare_connection(driver_connection)
            async with driver_connection.cursor() as cursor:
                await cursor.execute("SET time_zone = '+02:00'")

    place.use(Northern)


def too_old(module: str, name: str = "_OLDEST") -> Callable[[Place], None]:
    """Return a fault that is a server of yesterday, told by a connector of tomorrow."""
    return lambda place: place.monkeypatch.setattr(f"{module}.examination.{name}", (99,))


def on_psycopg(plant: Callable[[Place], None]) -> Callable[[Place], None]:
    """Return a fault that is looked for by the other driver."""

    def both(place: Place) -> None:
        place.set(postgres_driver="psycopg")
        plant(place)

    return both


def go_through(mode: Mode) -> Callable[[Place], None]:
    """Return a fault that is a pooler which nobody told of."""
    return lambda place: place.go_through(mode)


def say_session_to_transactions(place: Place) -> None:
    """Take a pooler that shares connections out for one that keeps them."""
    place.go_through("transaction")
    place.set(postgres_pooler="session")


POLICIES = """
CREATE TABLE notes (id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON notes {whose} USING (false);
"""


def own_the_tables(place: Place) -> None:
    """Log in as the owner of tables that have policies."""
    role = place.log_in_as_service()
    place.sql(POLICIES.format(whose="") + f"ALTER TABLE notes OWNER TO {role}")


def bypass_policies(place: Place) -> None:
    """Log in as a role that no policy holds for."""
    place.log_in_as_service("BYPASSRLS")
    place.sql(POLICIES.format(whose=""))


def limit_user(place: Place) -> None:
    """Let the user have few connections."""
    user, password = f"app_{secrets.token_hex(4)}", secrets.token_hex(8)
    run = place.server.execute
    run(f"CREATE USER {user} IDENTIFIED BY '{password}' WITH MAX_USER_CONNECTIONS 7")
    place.stack.callback(run, f"DROP USER {user}")
    run(f"GRANT ALL ON {place.settings['name']}.* TO {user}")
    place.set(user=user, password=password)


def limit_database(place: Place) -> None:
    """Let the database have few connections, and log in as somebody whom that binds."""
    place.log_in_as_service()
    place.server.execute(f"ALTER DATABASE {place.settings['name']} CONNECTION LIMIT 20")


def speak_latin(place: Place) -> None:
    """Make a database that holds Latin letters only."""
    run, name = place.server.execute, f"{place.settings['name']}_latin"
    run(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    place.stack.callback(place.server.drop_database, name)
    place.set(name=name)


def set_otherwise(pragma: str) -> Callable[[Place], None]:
    """Return a fault that is an application's own connector, which knows better."""

    class Willful(SQLiteConnector):
        name = "willful"

        async def prepare_connection(self, driver_connection: Any) -> None:
            await super().prepare_connection(driver_connection)
            await driver_connection.execute(f"PRAGMA {pragma}")

    return lambda place: place.use(Willful)


def mount(place: Place) -> None:
    """Let the folder be on another machine, as far as this one knows."""
    table = place.folder.parent / "mounts"
    folder = str(place.folder.parent).replace(" ", "\\040")
    table.write_text(f"/dev/vda1 / ext4 rw 0 0\nnas:/data {folder} nfs4 rw 0 0\n")
    place.monkeypatch.setattr("moorage_sqlite.examination._MOUNTS", table)


SERVER_FAULTS: dict[str, tuple[str, str, Callable[[Place], None]]] = {
    "in the clear": ("C404", "postgres", variable(host=ELSEWHERE, ssl_mode="prefer")),
    "in the clear, too": ("C404", "mysql", variable(host=ELSEWHERE, ssl_mode="prefer")),
    "anybody is believed": ("C405", "postgres", believe_anybody),
    "an old server": ("C406", "postgres", too_old("moorage_postgres")),
    "an old MariaDB": ("C406", "mysql", too_old("moorage_mysql", "_OLDEST_MARIADB")),
    "an old library": ("C406", "sqlite", too_old("moorage_sqlite")),
    "a pooler that nobody told of": ("C407", "postgres", go_through("transaction")),
    "the same, on psycopg": ("C407", "postgres", on_psycopg(go_through("transaction"))),
    "one that keeps connections": ("C407", "postgres", go_through("session")),
    "one of another mode": ("C407", "postgres", say_session_to_transactions),
    "a superuser": ("C408", "postgres", statement(POLICIES.format(whose=""))),
    "an owner": ("C408", "postgres", own_the_tables),
    "a role without policies": ("C408", "postgres", bypass_policies),
    "a user's limit": ("C409", "mysql", limit_user),
    "a role's limit": ("C409", "postgres", lambda p: p.log_in_as_service("CONNECTION LIMIT 20")),
    "a database's limit": ("C409", "postgres", limit_database),
    "another time zone": (
        "C410",
        "postgres",
        variable(postgres_server_settings="timezone=Europe/Oslo"),
    ),
    "another time zone, too": ("C410", "mysql", live_in_oslo),
    "few letters": ("C411", "postgres", speak_latin),
    "fewer letters": ("C411", "mysql", statement("ALTER DATABASE CHARACTER SET latin1")),
    "no transactions": ("C412", "mysql", statement("CREATE TABLE t (id int) ENGINE=MyISAM")),
    "orphans": ("C413", "sqlite", set_otherwise("foreign_keys=OFF")),
    "no patience": ("C413", "sqlite", set_otherwise("busy_timeout=0")),
    "no sync": ("C413", "sqlite", set_otherwise("synchronous=OFF")),
    "another journal": ("C413", "sqlite", set_otherwise("journal_mode=DELETE")),
    "a network": ("C414", "sqlite", mount),
    "an old journal": ("C415", "sqlite", variable(sqlite_journal_mode="delete")),
}
# What the settings alone say already.
ALSO = {"C404": {"S305"}}


@pytest.mark.parametrize("fault", SERVER_FAULTS)
def test_a_fault_of_the_server_is_found(fault: str, go: Callable[[str], Place]) -> None:
    """What is wrong with a server is found under its code and no other, without a secret."""
    code, backend, plant = SERVER_FAULTS[fault]
    place = go(backend)
    plant(place)
    report = place.examine()
    found = {finding.code for finding in report.findings}
    assert found == {code} | ALSO.get(code, set()), report
    assert all(finding.why and finding.advice for finding in report.findings)
    secret = str(place.settings.get("password", ""))
    assert not secret or secret not in str(report)


def test_a_pooler_can_go_unnoticed(go: Callable[[str], Place]) -> None:
    """Negative control: one that drops parameters lets everybody in, and only a probe finds it."""
    place = go("postgres")
    dropped = "extra_float_digits,timezone,jit,search_path,statement_timeout,lock_timeout"
    dropped += ",idle_in_transaction_session_timeout,tcp_keepalives_idle,tcp_keepalives_interval"
    place.go_through("transaction", ignored=f"{dropped},tcp_keepalives_count")

    async def ask() -> object:
        values = place.settings
        url = f"postgresql+asyncpg://{values['user']}:{values['password']}@127.0.0.1"
        engine = create_async_engine(f"{url}:{values['port']}/{values['name']}")
        async with engine.connect() as connection:
            answer = await connection.scalar(text("SELECT 1"))
        await engine.dispose()
        return answer

    assert asyncio.run(ask()) == 1
    (finding,) = place.examine().findings
    assert finding.code == "C407"
    assert finding.advice.startswith("set DB_POSTGRES_POOLER=transaction")


@pytest.mark.parametrize("declared", ["session", "transaction"])
def test_a_pooler_that_was_told_of_is_no_fault(declared: Mode, go: Callable[[str], Place]) -> None:
    """Behind a pooler of the mode that the settings say, nothing is found."""
    place = go("postgres")
    place.go_through(declared)
    place.set(postgres_pooler=declared)
    report = place.examine()
    assert report.findings == []
    assert report.facts["pooler"] == declared


def test_a_pooler_too_many_is_no_fault(go: Callable[[str], Place]) -> None:
    """Settings for a pooler are right without one, too; that there is none is said."""
    place = go("postgres")
    place.set(postgres_pooler="transaction")
    report = place.examine()
    assert report.findings == []
    assert report.facts["pooler"] == "transaction is declared, and none is there"


def test_what_proves_the_server_is_told(go: Callable[[str], Place]) -> None:
    """A verified connection is said to be one, with its protocol and where encryption ends."""
    place = go("postgres")
    place.go_through("session", tls=True)
    place.set(postgres_pooler="session", host="localhost")
    place.set(ssl_mode="verify-full", ssl_ca=CERTIFICATES / "ca.pem")
    report = place.examine()
    assert report.findings == []
    told = report.facts["encryption"]
    assert told.startswith("TLSv1.")
    assert told.endswith("the certificate was verified (authority and host name)")
    assert report.facts["encryption at the server"].startswith("none")
    place.set(ssl_mode="verify-ca", postgres_driver="psycopg")
    report = place.examine()
    assert report.findings == []
    assert report.facts["encryption"] == "TLS, the certificate was verified (authority)"
    place.set(ssl_mode="require", ssl_ca="")
    assert place.examine().facts["encryption"].endswith("the certificate was not verified")


@pytest.mark.parametrize(
    "statements",
    [
        POLICIES.format(whose="TO pg_read_all_data"),
        "CREATE TABLE notes (id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    ],
    ids=["policies of others", "no policy"],
)
def test_policies_for_others_are_no_fault(statements: str, go: Callable[[str], Place]) -> None:
    """A service that owns the tables is not told of policies that were never meant for it."""
    place = go("postgres")
    place.sql(statements)
    assert place.examine().findings == []


def test_policies_that_hold_are_no_fault(go: Callable[[str], Place]) -> None:
    """FORCE binds the owner; and where identities are required, the login's rights do not count."""
    place = go("postgres")
    role = place.log_in_as_service()
    owned = POLICIES.format(whose="") + f"ALTER TABLE notes OWNER TO {role};"
    place.sql(owned + "ALTER TABLE notes FORCE ROW LEVEL SECURITY")
    assert place.examine().findings == []
    place.sql("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY")
    assert [finding.code for finding in place.examine().findings] == ["C408"]
    place.set(postgres_require_identity="true", postgres_identity_roles="app_user")
    assert place.examine().findings == []


def test_the_budget_counts_processes_and_loops(go: Callable[[str], Place]) -> None:
    """How often the application runs is multiplied, and the server's own limit decides."""
    place = go("postgres")
    place.set(pool_size=10, max_overflow=20)
    assert place.examine(processes=2, loops=2).findings == []
    report = place.examine(processes=5, loops=4)
    (finding,) = report.findings
    assert finding.code == "C409"
    assert finding.what.startswith("5 processes (as asked) x 4 loops x 30 = 600 connections")
    assert "max_connections is" in report.facts["connections allowed"]
    place.monkeypatch.setenv("WEB_CONCURRENCY", "50")
    assert "50 processes (WEB_CONCURRENCY)" in place.examine().findings[0].what


def test_a_connector_has_codes_of_its_own(go: Callable[[str], Place]) -> None:
    """What only a connector knows is told in its words, as grave as it says."""
    fault = ServerFault("pond-frozen", "there is ice", "wait", "ducks slip", severity="error")

    class Duck(SQLiteConnector):
        name = "duck"

        async def examine_server(self, engine: Any) -> ServerFacts:
            return ServerFacts("Duck 1", details={"ice": "thick"}, faults=(fault,))

    place = go("sqlite")
    place.use(Duck)
    report = place.examine()
    (finding,) = report.findings
    assert str(finding) == "pond-frozen error: there is ice\n    why: ducks slip\n    do: wait"
    assert report.has_errors
    assert (report.facts["server"], report.facts["ice"]) == ("Duck 1", "thick")


def test_a_connector_of_an_application_is_examined(go: Callable[[str], Place]) -> None:
    """A subclass that changes what is said at the login is asked like its base."""

    class Patient(PostgresConnector):
        name = "patient"

        def get_engine_args(self) -> dict[str, Any]:
            arguments = super().get_engine_args()
            arguments["connect_args"]["server_settings"].pop("statement_timeout")
            return arguments

    place = go("postgres")
    place.use(Patient)
    assert place.examine().findings == []
    place.go_through("transaction")
    assert [finding.code for finding in place.examine().findings] == ["C407"]


def test_looking_makes_no_database(go: Callable[[str], Place]) -> None:
    """A file that is not there is not there afterwards, either."""
    place = go("sqlite")
    path = Path(str(place.settings["name"]))
    path.unlink()
    report = place.examine()
    assert report.findings == []
    assert report.facts["server"].startswith("not there yet")
    assert not path.exists()


def test_a_plain_connection_has_no_tls() -> None:
    """What a transport without TLS says is not taken for a protocol."""
    assert str(TLSState.of(None)) == "not encrypted"
