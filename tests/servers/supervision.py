"""Start the programs of one server so that none of them, and no file, can outlive the run."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.servers.places import run_directory, server_user
from tests.servers.watchdog import DELETE_SECONDS, kill_tree

WATCHDOG = Path(__file__).with_name("watchdog.py")

# The new process waits for a line before it becomes the server. The watchdog hears of its id
# before that line is written, so there is no moment in which nobody would kill it.
GATE = 'read -r go && exec "$@" </dev/null'


class ProgramError(RuntimeError):
    """A program of a server failed; the message holds the end of what it printed."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago; another process may still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Enclosure:
    """
    One directory and the processes that work in it, all gone after `close`.

    A watchdog process deletes the directory and kills the processes as soon as its pipe to this
    process closes: through `close`, at a normal exit, or because this process was killed.
    """

    def __init__(self, name: str) -> None:
        self.path = run_directory() / f"moorage-{name}-{secrets.token_hex(6)}"
        self._user = server_user()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", WATCHDOG, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self.path.mkdir(mode=0o700)
        # Not through mkdir, whose mode is cut by the umask: the server's user must enter.
        self.path.chmod(0o711)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def directory(self, name: str) -> Path:
        """Make a directory that belongs to the server's user."""
        path = self.path / name
        path.mkdir(mode=0o700)
        self._user.give(path)
        return path

    def file(self, name: str, text: str = "") -> Path:
        """Write a file that only the server's user can read."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_text(text)
        self._user.give(path)
        return path

    def spawn(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str],
        output: IO[bytes] | int,
    ) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, in a session of its own, under the watchdog."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", GATE, "gate", *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **environment},
            start_new_session=True,
            user=self._user.uid,
            group=self._user.gid,
            extra_groups=self._user.extra_groups,
        )
        self._tell(f"+{process.pid}")
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin as gate:
                gate.write(b"go\n")
            process.stdin = None
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str],
        seconds: float = 120.0,
    ) -> None:
        """
        Run a program as the server's user to its end.

        Raises:
            ProgramError: It failed or did not end in time.
        """
        process = self.spawn(argv, environment, subprocess.PIPE)
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{argv[0]} did not end within {seconds:.0f} s") from None
        finally:
            if process.poll() is None:
                self.kill(process)
            self._tell(f"-{process.pid}")
        if process.returncode:
            raise ProgramError(f"{argv[0]} failed:\n{output.decode(errors='replace')[-2000:]}")

    def terminate(
        self, process: subprocess.Popen[bytes], number: signal.Signals, seconds: float = 30.0
    ) -> None:
        """Ask a process to end, and kill it when it has not done so in time."""
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(process)
        self._tell(f"-{process.pid}")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process with all its children, as a crash would."""
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait()
        self._tell(f"-{process.pid}")

    def close(self) -> None:
        """End everything; may be called again."""
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait(2 * DELETE_SECONDS)

    def _tell(self, message: str) -> None:
        pipe = self._watchdog.stdin
        if pipe is None or pipe.closed:
            raise ProgramError("this server was closed before")
        os.write(pipe.fileno(), f"{message}\n".encode())
