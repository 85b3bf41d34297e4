"""
A MariaDB for one run of tests, from the programs that are installed.

Nothing here is for production.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from moorage import DatabaseSettings
from moorage.testing import ThrowawayServer

__all__ = ["throwaway_server"]

_INSTALL = "your system's package of the server, as root: apt-get install mariadb-server-core"
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin")
_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    # Relative to the data, for the path of a socket is limited to 107 bytes.
    "--socket=server.sock",
    "--character-set-server=utf8mb4",
    "--innodb-buffer-pool-size=64M",
    # What is lost when the machine crashes is thrown away anyhow.
    "--innodb-flush-log-at-trx-commit=0",
    # Containers often forbid or limit native asynchronous I/O.
    "--innodb-use-native-aio=0",
)


@contextmanager
def throwaway_server(name: str = "app") -> Iterator[DatabaseSettings]:
    """
    Start a MariaDB on a free loopback port, and give the settings of an empty database on it.

    Nothing is left of it behind the block, nor when this process is killed.

    Args:
        name: Of the database.

    Raises:
        SettingsError: The programs are not there, or do not run; the hint installs them.
    """
    with ThrowawayServer(_INSTALL) as server:
        data = server.folder / "data"
        server.run(
            [
                server.program("mariadb-install-db", *_FOLDERS),
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )
        # Read before the port opens.
        first = server.file(
            "first.sql",
            f"ALTER USER 'root'@'127.0.0.1' IDENTIFIED BY '{server.password}';\n"
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{server.password}';\n",
        )
        server.start(
            [
                server.program("mariadbd", *_FOLDERS),
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={server.folder}",
                f"--port={server.port}",
                f"--init-file={first}",
                *_OPTIONS,
            ],
            lambda: _is_ready(server.port),
        )
        yield server.make_database("mysql", "root", name)


def _is_ready(port: int) -> bool:
    # The port can open before the server answers: wait for its greeting.
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as link:
            return link.recv(1) != b""
    except OSError:
        return False
