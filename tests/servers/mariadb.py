"""
MariaDB for tests.

Its programs are taken from this machine; where they are missing, root installs Debian's packages
of the bare programs (they bring no service), and anybody else unpacks them into a private cache.
"""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.servers import debian
from tests.servers.places import UnsafePlaceError, cached_tree, reachable
from tests.servers.server import (
    Address,
    Client,
    OwnServer,
    Server,
    ServerUnavailable,
    find_program,
)
from tests.servers.supervision import ProgramError, free_port

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
DEFAULT_PORT = 3306
INSTALL = f"apt-get install {' '.join(PACKAGES)}   (as root)"

OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    # Relative to the data directory, for the path of a socket is limited to 107 bytes.
    "--socket=server.sock",
    "--character-set-server=utf8mb4",
    "--max-connections=300",
    "--innodb-buffer-pool-size=64M",
    # Written at each commit and synced later: an acknowledged commit survives a killed server.
    "--innodb-flush-log-at-trx-commit=2",
    # Containers often forbid or limit native asynchronous I/O.
    "--innodb-use-native-aio=0",
)


@dataclass(frozen=True)
class Programs:
    """The programs of one MariaDB and what they need when they were only unpacked."""

    server: Path
    initialise: Path
    client: Path
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class MariaDBServer(Server):
    """A MariaDB or MySQL that runs somewhere."""

    backend: ClassVar[str] = "mysql"

    def execute(self, statement: str) -> str:
        address = self.address
        arguments = [
            "--no-defaults",
            "--protocol=TCP",
            f"--host={address.host}",
            f"--port={address.port}",
            f"--user={address.user}",
            "--connect-timeout=10",
            "--batch",
            "--skip-column-names",
            f"--execute={statement}",
        ]
        return self.run_client(arguments, {"MYSQL_PWD": address.password})

    def version(self) -> str:
        version = self.execute("SELECT version()")
        product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
        return f"{product} {version}"

    def create_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        # A transaction that was left open holds a lock on its tables and DROP would wait for it.
        sessions = self.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        )
        for number in sessions.split():
            try:
                self.execute(f"KILL {number}")
            except ProgramError as error:
                # The session may end by itself between the list and the KILL.
                if "ERROR 1094" not in str(error):
                    raise
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")


class OwnMariaDB(OwnServer, MariaDBServer):
    """A MariaDB of our own; TCP logins need the password."""

    def __init__(self, programs: Programs) -> None:
        address = Address(
            scheme="mysql",
            host="127.0.0.1",
            port=free_port(),
            user="root",
            password=secrets.token_urlsafe(16),
            database="mysql",
        )
        super().__init__(address, Client(programs.client, programs.environment))
        self.programs = programs
        self.data = self.enclosure.directory("data")
        self.scratch = self.enclosure.directory("scratch")
        # Read by the server at each start, before it opens its port.
        self.init_file = self.enclosure.file(
            "init.sql",
            f"ALTER USER 'root'@'127.0.0.1' IDENTIFIED BY '{address.password}';\n"
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{address.password}';\n",
        )

    def initialise(self) -> None:
        self.enclosure.run(
            [
                self.programs.initialise,
                "--no-defaults",
                *self.programs.options,
                f"--datadir={self.data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            self.command_environment(),
        )

    def command(self) -> Sequence[str | Path]:
        return [
            self.programs.server,
            "--no-defaults",
            *self.programs.options,
            f"--datadir={self.data}",
            f"--port={self.address.port}",
            f"--init-file={self.init_file}",
            *OPTIONS,
        ]

    def command_environment(self) -> Mapping[str, str]:
        return {"TZ": "UTC", "TMPDIR": str(self.scratch), **self.programs.environment}

    def ready(self) -> bool:
        # The port can open before the server answers: wait for its greeting.
        try:
            with socket.create_connection((self.address.host, self.address.port), 1) as link:
                return link.recv(1) != b""
        except OSError:
            return False


def start() -> OwnMariaDB:
    """
    Start a server of our own, and get its programs first where they are missing.

    Raises:
        ServerUnavailable: There are no programs, or they do not run here.
    """
    server = OwnMariaDB(obtain_programs())
    server.first_start(f"another MariaDB may work: {INSTALL}")
    return server


def find_client() -> Client:
    """Return a command line client for a server that somebody else runs."""
    program = find_program("mariadb") or find_program("mysql")
    if program is not None:
        return Client(program)
    programs = obtain_programs()
    return Client(programs.client, programs.environment)


def find_programs() -> Programs | None:
    """Return the programs that are installed on this machine."""
    system = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")
    server = find_program("mariadbd", *system)
    initialise = find_program("mariadb-install-db", *system)
    client = find_program("mariadb", *system)
    if server is None or initialise is None or client is None or not reachable(server):
        return None
    return Programs(server, initialise, client)


def obtain_programs() -> Programs:
    """
    Return programs: installed ones, newly installed ones, or unpacked ones.

    Raises:
        ServerUnavailable: None of these ways works here.
    """
    if (found := find_programs()) is not None:
        return found
    troubles = []
    if debian.available():
        if os.geteuid() == 0:
            try:
                debian.install(PACKAGES)
            except ProgramError as error:
                troubles.append(str(error))
            if (found := find_programs()) is not None:
                return found
        try:
            return _unpacked_programs()
        except (ProgramError, UnsafePlaceError) as error:
            troubles.append(str(error))
    reasons = "\n".join(("MariaDB is not installed", *troubles))
    raise ServerUnavailable(f"{reasons}\ninstall it with: {INSTALL}")


def _unpack(target: Path) -> None:
    debian.unpack(PACKAGES, target)
    if not (target / "usr" / "sbin" / "mariadbd").exists():
        raise ProgramError(f"{' '.join(PACKAGES)}: unpacked, and there is no mariadbd among it")


def _unpacked_programs() -> Programs:
    root = cached_tree("mariadb", _unpack) / "usr"
    libraries = sorted({str(path.parent) for path in (root / "lib").rglob("*.so*")})
    return Programs(
        server=root / "sbin" / "mariadbd",
        initialise=root / "bin" / "mariadb-install-db",
        client=root / "bin" / "mariadb",
        options=(
            f"--basedir={root}",
            f"--lc-messages-dir={root / 'share' / 'mysql'}",
            f"--character-sets-dir={root / 'share' / 'mysql' / 'charsets'}",
            f"--plugin-dir={root / 'lib' / 'mysql' / 'plugin'}",
        ),
        environment={"LD_LIBRARY_PATH": ":".join(libraries)},
    )
