"""
A server for one run of tests: in a folder of its own, and gone with the process that started it.

What is started, and how it says that it is ready, knows the connector; ``throwaway_server`` in its
module ``throwaway`` is what tests use.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from moorage.errors import MoorageError, SettingsError
from moorage.settings import DatabaseSettings
from moorage.testing.storage import create_database

__all__ = ["ThrowawayServer", "free_port"]

# The pipe closes when this process ends, however it does; then nothing is left of the server.
_GUARD = """
trap '' INT TERM HUP
cd "$SERVER_FOLDER"
(sh -c 'echo $$ >pid && exec "$@"' server "$@" </dev/null >server.log 2>&1; : >ended) &
cat >/dev/null
until [ -s pid ] || [ -e ended ]; do sleep 0.05; done
kill "-$SERVER_SIGNAL" "$(cat pid)" 2>/dev/null
wait
cd / && rm -rf -- "$SERVER_FOLDER"
"""
_START_SECONDS = 60.0
_RUN_SECONDS = 120.0
_END_SECONDS = 30.0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ThrowawayServer:
    """
    The programs of one server, and the folder that they work in.

    Under root they run as ``nobody``, since servers refuse to be root. Leaving the ``with`` kills
    the server and deletes the folder, and so does the end of this process.

    Args:
        install: The line that installs the server, for errors.
        signal: What ends it at once, without a care for its data.
    """

    def __init__(self, install: str, signal: str = "KILL") -> None:
        self.password: str = secrets.token_urlsafe(16)
        self.port: int = free_port()
        self._install = install
        self._signal = signal
        self._guard: subprocess.Popen[bytes] | None = None
        owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._uid = None if owner is None else owner.pw_uid
        self._gid = None if owner is None else owner.pw_gid
        self._groups: list[int] | None = None if owner is None else []
        self.folder: Path = Path(tempfile.mkdtemp(prefix="moorage-server-"))
        self._give(self.folder)

    def program(self, name: str, *folders: str | Path) -> str:
        """
        Return a program of the server, from folders or from PATH.

        Raises:
            SettingsError: It is not there, or cannot be run by the user of the server.
        """
        path = os.pathsep.join((*map(str, folders), os.environ.get("PATH", os.defpath)))
        found = shutil.which(name, path=path)
        if found is None:
            raise SettingsError(
                f"a throwaway server needs the program {name}, which is not installed",
                hint=self._install,
            )
        place = Path(found).resolve()
        if not self.may_run(place):
            raise SettingsError(
                f"a server cannot run as root, and {place} cannot be run by anybody else",
                hint=f"run the tests as an ordinary user, or, for all users: {self._install}",
            )
        return str(place)

    def may_run(self, program: Path) -> bool:
        """Return whether the user of the server reaches a program, by the permissions."""
        if self._uid is None or self.folder in program.parents:
            return True
        return all(step.stat().st_mode & 0o001 for step in (program, *program.parents))

    def copied(self, source: Path) -> Path:
        """Copy a tree of programs to where the user of the server reaches it."""
        target = self.folder / "programs" / source.name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target, symlinks=True)
        for path in (target.parent, target, *target.rglob("*")):
            self._give(path)
        return target

    def file(self, name: str, text: str) -> Path:
        """Write a file that the server may read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        self._give(path)
        return path

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """
        Run a program of the server to its end.

        Raises:
            SettingsError: It failed; the message has what it printed.
        """
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )
        if done.returncode:
            raise self._failed(command[0], done.stdout)

    def start(
        self,
        command: Sequence[str],
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Start the server and wait until it is ready.

        Raises:
            SettingsError: It ended, or was not ready in time; the message has its log.
        """
        log = self.file("server.log", "")
        guard = {"SERVER_FOLDER": str(self.folder), "SERVER_SIGNAL": self._signal}
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", *command],
            cwd=self.folder,
            env={**self._environment(environment), **guard},
            stdin=subprocess.PIPE,
            start_new_session=True,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )
        end = time.monotonic() + _START_SECONDS
        while not is_ready():
            if time.monotonic() >= end or (self.folder / "ended").exists():
                raise self._failed(command[0], log.read_text(errors="replace"))
            time.sleep(0.02)

    def make_database(self, connector: str, user: str, name: str) -> DatabaseSettings:
        """
        Make a database on the server that was started; return its settings.

        Args:
            connector: By name.
            user: Who may do so, with the password of this object.
            name: Of the database.
        """
        settings = DatabaseSettings(
            type=connector,
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=self.password,
            name=name,
            ssl_mode="disable",
            _env_file=None,
        )
        create_database(settings)
        return settings

    def close(self) -> None:
        """Kill the server and delete its folder; may be called again."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            guard.wait(_END_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _give(self, path: Path) -> None:
        if self._uid is not None and self._gid is not None:
            os.chown(path, self._uid, self._gid, follow_symlinks=False)

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        # Neither the user's own settings of a server nor of a client may take part.
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC", **(more or {})}

    def _failed(self, program: str, printed: str) -> MoorageError:
        return SettingsError(
            f"the throwaway server does not start, {Path(program).name} says:\n{printed[-2000:]}",
            hint=f"another one may do: {self._install}",
        )
