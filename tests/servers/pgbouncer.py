"""
PgBouncer for tests: a pooler in front of a PostgreSQL.

Its program is taken from this machine; where it is missing, root installs Debian's package, and
anybody else unpacks it into a private cache.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tests.servers import debian
from tests.servers.places import UnsafePlaceError, cached_tree, reachable
from tests.servers.postgres import CERTIFICATES
from tests.servers.server import Address, ServerUnavailable, find_program
from tests.servers.supervision import Enclosure, ProgramError, free_port

PACKAGE = "pgbouncer"
INSTALL = f"apt-get install {PACKAGE}   (as root)"
START_SECONDS = 30.0

Mode = Literal["session", "transaction"]

CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
pool_mode = {mode}
auth_type = scram-sha-256
auth_file = {users}
admin_users = {admin}
default_pool_size = {size}
max_client_conn = 300
server_login_retry = 0
log_connections = 0
log_disconnections = 0
"""


@dataclass(frozen=True)
class Program:
    """The program, and the libraries that it needs when it was only unpacked."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def pooler(
    server: Address,
    mode: Mode = "transaction",
    *,
    size: int = 4,
    users: Mapping[str, str] | None = None,
    tls: bool = False,
    ignored: str = "",
) -> Iterator[Address]:
    """
    Yield the address of a pooler in front of a server, which is gone afterwards.

    Args:
        server: Where PostgreSQL listens, and whose user may log in.
        mode: How long a client keeps a connection of the server.
        size: Connections of the server, per database and user.
        users: Further users of the server who may log in, with their passwords.
        tls: Offer TLS to clients; without it a pooler answers that it has none.
        ignored: Parameters of the login, comma-separated, that are dropped and not refused.

    Raises:
        ServerUnavailable: It cannot be had; the message names the command that installs it.
    """
    program = obtain_program()
    with Enclosure(PACKAGE) as enclosure:
        passwords = {server.user: server.password, **(users or {})}
        known = "".join(f'"{user}" "{password}"\n' for user, password in passwords.items())
        listed = enclosure.file("users.txt", known)

        further = f"ignore_startup_parameters = {ignored}\n" if ignored else ""
        if tls:
            files = {
                "cert": enclosure.file("server.pem", (CERTIFICATES / "server.pem").read_text()),
                "key": enclosure.file("key.pem", (CERTIFICATES / "server-key.pem").read_text()),
            }
            lines = (f"client_tls_{name}_file = {path}" for name, path in files.items())
            further += "\n".join(("client_tls_sslmode = allow", *lines))

        def start() -> tuple[Address, subprocess.Popen[bytes]]:
            address = replace(server, host="127.0.0.1", port=free_port())
            text = CONFIGURATION.format(
                host=server.host,
                port=server.port,
                listen=address.port,
                mode=mode,
                users=listed,
                admin=server.user,
                size=size,
            )
            return address, _start(program, enclosure, text + further, address)

        try:
            try:
                address, process = start()
            except ProgramError as error:
                if "in use" not in str(error):
                    raise
                address, process = start()  # somebody else took the port meanwhile; once
        except ProgramError as error:
            raise ServerUnavailable(f"{error}\nanother one may work: {INSTALL}") from error
        try:
            yield address
        finally:
            enclosure.kill(process)


def _start(
    program: Program, enclosure: Enclosure, text: str, address: Address
) -> subprocess.Popen[bytes]:
    configuration = enclosure.file("pgbouncer.ini", text)
    log = enclosure.file("pgbouncer.log")
    with log.open("ab") as output:
        process = enclosure.spawn([program.path, configuration], program.environment, output)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((address.host, address.port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return process
    enclosure.kill(process)
    raise ProgramError(f"{program.path} did not start:\n{log.read_text()[-2000:]}")


def find_installed() -> Program | None:
    """Return the program that is installed on this machine, if it runs."""
    path = find_program(PACKAGE, "/usr/sbin", "/usr/local/sbin", "/usr/local/bin")
    return Program(path) if path is not None and reachable(path) else None


def obtain_program() -> Program:
    """
    Return the program: an installed one, a newly installed one, or an unpacked one.

    Raises:
        ServerUnavailable: None of these ways works here.
    """
    if (found := find_installed()) is not None:
        return found
    troubles = []
    if debian.available():
        if os.geteuid() == 0:
            try:
                debian.install([PACKAGE])
                _leave_no_service()
            except ProgramError as error:
                troubles.append(str(error))
            if (found := find_installed()) is not None:
                return found
        try:
            return _unpacked()
        except (ProgramError, UnsafePlaceError) as error:
            troubles.append(str(error))
    reasons = "\n".join(("PgBouncer is not installed", *troubles))
    raise ServerUnavailable(f"{reasons}\ninstall it with: {INSTALL}")


def _leave_no_service() -> None:
    """Stop the service that Debian's package starts where a service manager runs."""
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "disable", "--now", PACKAGE], check=False, timeout=60)


def _unpack(target: Path) -> None:
    debian.unpack([PACKAGE], target)
    if not (target / "usr" / "sbin" / PACKAGE).exists():
        raise ProgramError(f"{PACKAGE}: unpacked, and there is no program among it")


def _unpacked() -> Program:
    root = cached_tree(PACKAGE, _unpack) / "usr"
    libraries = sorted({str(path.parent) for path in (root / "lib").rglob("*.so*")})
    return Program(root / "sbin" / PACKAGE, {"LD_LIBRARY_PATH": ":".join(libraries)})
