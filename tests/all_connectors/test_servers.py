"""Throwaway servers are gone with the run that started them, however it ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import BACKENDS, url_variable

ROOT = Path(__file__).parents[2]
# Says where the server is, then stays until the test lets go of its input.
PROGRAM = "import os, sys; print(os.environ[sys.argv[1]], flush=True); sys.stdin.read()"


@pytest.mark.parametrize("server", BACKENDS)
def test_killed_run_leaves_no_server(server: str) -> None:
    """When a run is killed without a chance to clean up, its server ends all the same."""
    variable = url_variable(server)
    environment = {name: value for name, value in os.environ.items() if name != variable}
    program = [sys.executable, "-m", "tests.servers", "run", server, "--"]
    with subprocess.Popen(
        [*program, sys.executable, "-c", PROGRAM, variable],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        port = urlsplit(run.stdout.readline().strip()).port
        assert port is not None
        assert listens(port)
        run.kill()
    deadline = time.monotonic() + 60
    while listens(port):
        assert time.monotonic() < deadline, "the server outlived its run"


def listens(port: int) -> bool:
    """Return whether anybody accepts connections on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
