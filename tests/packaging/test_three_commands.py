"""The README's three commands, from an empty folder to a first answer."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.servers.supervision import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240.0


def commands() -> list[str]:
    """Return the commands of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "moorage init" in block)
    lines: list[str] = block.splitlines()
    return lines


def wheels(folder: Path) -> Path:
    """Build the distributions that the first command needs, in a copy of the tree."""
    tree = folder / "tree"
    rubbish = shutil.ignore_patterns("__pycache__", "dist", ".*")
    shutil.copytree(ROOT / "packages", tree, ignore=rubbish)
    for name in ("core", "connector-sqlite", "fastapi-integration"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        build += ["-d", str(folder / "wheels")]
        subprocess.run(build, cwd=tree / name, check=True, capture_output=True)
    return folder / "wheels"


def answer(url: str) -> httpx.Response:
    """Ask until somebody answers, or the deadline is over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=10, trust_env=False)
        time.sleep(0.1)
    raise AssertionError(f"nobody answers at {url}")


@pytest.mark.timeout(600)
def test_three_commands_lead_to_an_answer(tmp_path: Path) -> None:
    """Install, init and uvicorn, as the README has them, are a service with a database."""
    install, init, serve = commands()
    uv = Path(sys.executable).with_name("uv")
    program = str(uv) if uv.exists() else "uv"
    place, project = tmp_path / "venv", tmp_path / "shop"
    project.mkdir()
    subprocess.run([program, "venv", "-q", "--python", sys.executable, place], check=True)
    # uv in the place of pip, and our wheels in the place of the registry's: the rest as written.
    requirement = install.removeprefix("pip install ").strip('"')
    where = ["--python", str(place / "bin/python"), "--find-links", str(wheels(tmp_path))]
    subprocess.run([program, "pip", "install", "-q", *where, requirement], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DB_")}
    environment = {**kept, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("DATABASE_URL", None)
    for variable in ("VIRTUAL_ENV", "PYTHONPATH"):
        environment.pop(variable, None)
    done = subprocess.run(
        init.split(), cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "migrations are applied: yes" in done.stdout
    port = free_port()
    process = subprocess.Popen(
        [*serve.split(), "--port", str(port)],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert answer(f"http://127.0.0.1:{port}/books").json() == []
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
