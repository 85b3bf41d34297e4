"""Run the example service as its own process, as the demo and the tests of the examples do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.supervision import free_port

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "examples" / "fastapi-app" / "src"

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServiceError(RuntimeError):
    """The service, or the command that prepares it, failed; the message holds what it printed."""


@dataclass(frozen=True)
class Service:
    """A running service: where it answers, and the file that it logs to."""

    url: str
    log: Path

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of what the service printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def service_environment(database: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables with the source of the example and one database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DB_")}
    path = os.pathsep.join(filter(None, [str(SOURCE), str(ROOT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **database}


def create_tables(database: Mapping[str, str], folder: Path) -> None:
    """
    Run the example's own command that creates its tables.

    Raises:
        ServiceError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "lending_library.create_tables"],
        env=service_environment(database),
        cwd=folder,  # a .env file of the user's is not for us
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"the tables could not be created:\n{done.stderr[-4000:]}")


@contextmanager
def running_service(
    database: Mapping[str, str],
    folder: Path,
    workers: int = 1,
    application: str = "lending_library.app:app",
) -> Iterator[Service]:
    """
    Yield the service under uvicorn on a free loopback port; it is gone when the block ends.

    Args:
        database: The variables that point it at a database with tables.
        folder: Where it runs and logs to.
        workers: Number of uvicorn's worker processes.
        application: The service, or one that has it inside.

    Raises:
        ServiceError: It ended, or did not answer in time.
    """
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}", folder / f"service-{port}.log")
    command = [sys.executable, "-m", "uvicorn", application]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    # By default it closes an idle connection after as long as httpx takes it for usable.
    options += ["--timeout-keep-alive", "75"]
    with service.log.open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, "--no-access-log"],
            env=service_environment(database),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us: we end the service when we are done with it.
            start_new_session=True,
        )
        try:
            wait_until_it_answers(service, process)
            yield service
        finally:
            stop(process)


def wait_until_it_answers(service: Service, process: subprocess.Popen[bytes]) -> None:
    """Ask for /health until it answers, the process ends, or the deadline is over."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/health", timeout=5, trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise ServiceError(f"the service did not start:\n{service.log_tail()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the service to end, and kill whatever is left of its processes."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:  # the wait may end by a second Ctrl-C
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
