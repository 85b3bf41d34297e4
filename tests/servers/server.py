"""What every database server of the tests can do, whoever started it."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

from tests.servers.supervision import Enclosure, ProgramError, free_port

START_SECONDS = 60.0


class ServerUnavailable(RuntimeError):  # noqa: N818 (a state of the machine, named as such)
    """No server of this backend can be had; the message names the command that installs one."""


@dataclass(frozen=True)
class Address:
    """Where a server listens and who may log in."""

    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str

    @classmethod
    def from_url(cls, url: str, default_port: int) -> Self:
        """Read a URL; a driver in the scheme (``mysql+x://``) is dropped."""
        parts = urlsplit(url)
        return cls(
            scheme=parts.scheme.partition("+")[0],
            host=parts.hostname or "127.0.0.1",
            port=parts.port or default_port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")),
        )

    @property
    def url(self) -> str:
        """The address as a URL that names no driver."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}@{host}:{self.port}/{quote(self.database, safe='')}"


@dataclass(frozen=True)
class Client:
    """The command line client that ships with a server, and what it needs to run."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class Server(ABC):
    """
    A running database server that databases can be made on.

    It talks through the client program of the server, never through a driver: an environment that
    holds one connector only must be able to use every server.
    """

    backend: ClassVar[str]

    def __init__(self, address: Address, client: Client) -> None:
        self.address = address
        self.client = client

    @property
    def url(self) -> str:
        """The address of the server's own database, with the password and without a driver."""
        return self.address.url

    @abstractmethod
    def execute(self, statement: str) -> str:
        """Run one statement and return what the client prints, without headings."""

    @abstractmethod
    def version(self) -> str:
        """Return the product and its version, for people."""

    @abstractmethod
    def create_database(self, name: str) -> None:
        """Create an empty database."""

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, with whatever connections it still has."""

    def environment(self, database: str = "app") -> dict[str, str]:
        """Create the database anew and return the variables that point an application at it."""
        self.drop_database(database)
        self.create_database(database)
        return {
            "DB_TYPE": self.backend,
            "DB_HOST": self.address.host,
            "DB_PORT": str(self.address.port),
            "DB_USER": self.address.user,
            "DB_PASSWORD": self.address.password,
            "DB_NAME": database,
        }

    def run_client(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        """
        Run the client program and return its output.

        Raises:
            ProgramError: It failed; the message holds what it printed.
        """
        done = subprocess.run(
            [self.client.program, *arguments],
            # Neither the user's own client settings nor their password file may take part.
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **self.client.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise ProgramError(f"{self.client.program.name}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()


class OwnServer(Server):
    """
    A server of our own: started on a free loopback port, stoppable, gone after `close`.

    `kill` and `start` again keep port and data, which is how a test lets a server crash.
    """

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, address: Address, client: Client) -> None:
        super().__init__(address, client)
        self.enclosure = Enclosure(self.backend)
        self.log = self.enclosure.file("server.log")
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def initialise(self) -> None:
        """Write the files of a new, empty server."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the command that runs the server in the foreground on its port."""

    @abstractmethod
    def command_environment(self) -> Mapping[str, str]:
        """Return the variables that the server's programs need."""

    @abstractmethod
    def ready(self) -> bool:
        """Tell whether a starting server accepts logins by now."""

    def first_start(self, advice: str) -> None:
        """
        Initialise and start, or leave nothing behind.

        A port that somebody else took meanwhile is changed once.

        Raises:
            ServerUnavailable: The programs do not run here; the message ends with ``advice``.
        """
        try:
            self.initialise()
            try:
                self.start()
            except ProgramError as error:
                if "address already in use" not in str(error).lower():
                    raise
                self.address = replace(self.address, port=free_port())
                self.start()
        except ProgramError as error:
            self.close()
            raise ServerUnavailable(f"{error}\n{advice}") from error
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """
        Start the server and wait until it accepts logins; nothing happens if it runs.

        Raises:
            ProgramError: It ended or was not ready in time; the message holds its log.
        """
        if self._process is not None and self._process.poll() is None:
            return
        seen = self.log.stat().st_size
        with self.log.open("ab") as log:
            process = self.enclosure.spawn(self.command(), self.command_environment(), log)
        self._process = process
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self.ready():
                return
            time.sleep(0.01)
        self.kill()
        with self.log.open("rb") as log:
            log.seek(seen)
            printed = log.read().decode(errors="replace")
        raise ProgramError(f"{self.command()[0]} did not start:\n{printed[-2000:]}")

    def stop(self) -> None:
        """Shut the server down in order."""
        if self._process is not None:
            self.enclosure.terminate(self._process, self.stop_signal)
            self._process = None

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, as a crash would."""
        if self._process is not None:
            self.enclosure.kill(self._process)
            self._process = None

    def close(self) -> None:
        """End the server and delete its data."""
        self.enclosure.close()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def find_program(name: str, *folders: str) -> Path | None:
    """Find a program on PATH or in folders that a user's PATH often lacks."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *folders))
    found = shutil.which(name, path=path)
    return Path(found) if found is not None else None
