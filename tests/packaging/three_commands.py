"""The README's three commands, from an empty folder to a first answer, as a person types them."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.packaging.building import ROOT, run, uv
from tests.servers.supervision import free_port

__all__ = ["Answered", "commands", "lead_to_an_answer"]

START_SECONDS = 240.0


@dataclass(frozen=True)
class Answered:
    """What came of the commands, and how long each took."""

    init_output: str
    books: object
    seconds: dict[str, float]


def commands() -> list[str]:
    """Return the commands of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "moorage init" in block)
    lines: list[str] = block.splitlines()
    return lines


def lead_to_an_answer(folder: Path, wheels: Path, installer: str = "uv") -> Answered:
    """
    Run the three commands in an empty folder, with our wheels in the place of the registry's.

    Args:
        folder: Gets an environment and a project.
        wheels: Our distributions.
        installer: ``pip``, as the README has it, or ``uv``, which is faster.
    """
    install, init, serve = commands()
    place, project = folder / "venv", folder / "shop"
    project.mkdir()
    seed = ["--seed"] if installer == "pip" else []
    run([uv(), "venv", "--quiet", *seed, "--python", sys.executable, place])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DB_")}
    environment = {**kept, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for variable in ("DATABASE_URL", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(variable, None)
    seconds: dict[str, float] = {}
    with _timed(seconds, install):
        words = shlex.split(install)[1:]
        program = [str(place / "bin/pip"), *words]
        if installer == "uv":
            program = [uv(), "pip", *words, "--python", str(place / "bin/python")]
        run([*program, "--quiet", "--find-links", wheels], cwd=project, env=environment)
    with _timed(seconds, init):
        # By its path: a child is looked for on this process's PATH.
        program = [str(place / "bin" / init.split()[0]), *init.split()[1:]]
        output = run(program, cwd=project, env=environment)
    port = free_port()
    with _timed(seconds, f"{serve}, to the first answer"):
        process = subprocess.Popen(
            [str(place / "bin" / serve.split()[0]), *serve.split()[1:], "--port", str(port)],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            books = _answer(f"http://127.0.0.1:{port}/books", lambda: process.poll() is None).json()
        except BaseException:
            _end(process)
            raise
    _end(process)
    return Answered(output, books, seconds)


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[what] = time.monotonic() - began


def _answer(url: str, is_alive: Callable[[], bool]) -> httpx.Response:
    """Ask until somebody answers, nobody is left to answer, or the deadline is over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and is_alive():
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=10, trust_env=False)
        time.sleep(0.1)
    raise AssertionError(f"nobody answers at {url}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()
