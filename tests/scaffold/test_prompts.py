"""At a terminal the questions are asked one by one, with the recommended answer first."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scaffold.projects import MOORAGE, content, environment

DEADLINE_SECONDS = 100.0
ENTER, CONTROL_C = b"\r", b"\x03"
QUESTIONS = (
    b"Which database?",
    b"With FastAPI?",
    b"Units of work",
    b"Example models",
    b"A table of users",
    b"Own the layer's source",
    b"Connections that stay open?",
    b"More of them at peaks?",
    b"Where does the source go?",
    b"Name of the package?",
    b"What manages dependencies?",
)


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.output = b""
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, *MOORAGE, "init", *arguments],
            cwd=folder,
            env={**environment(), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "COLUMNS": "100"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def answer(self, question: bytes, key: bytes) -> None:
        """Wait for a question, and press a key."""
        end = time.monotonic() + DEADLINE_SECONDS
        while question not in self.output[self._seen :]:
            assert self._read(end), f"{question!r} was not asked: {self.output[-2000:]!r}"
        self._seen = self.output.index(question, self._seen) + len(question)
        os.write(self._ours, key)

    def end(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        end = time.monotonic() + DEADLINE_SECONDS
        while self._read(end):
            pass
        return self.process.wait(DEADLINE_SECONDS)

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(end - time.monotonic(), 0))
        if not ready:
            return False
        try:
            got = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += got
        return bool(got)

    def close(self) -> None:
        """End whatever is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.mark.timeout(400)
def test_enter_takes_what_is_recommended(tmp_path: Path) -> None:
    """Enter at each question and at the plan sets up the recommended project."""
    terminal = Terminal(tmp_path, "sqlite", "--tool", "pip")
    try:
        for question in QUESTIONS[1:-1]:  # what was given is not asked
            terminal.answer(question, ENTER)
        terminal.answer(b"Write this?", ENTER)
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert b"Which database?" not in terminal.output
    assert b"+class Entity" in terminal.output
    assert (tmp_path / "app/books.py").is_file()


@pytest.mark.scaled(small=["control-c"])
@pytest.mark.timeout(400)
@pytest.mark.parametrize("key", [b"n", CONTROL_C], ids=["no", "control-c"])
def test_no_writes_nothing(key: bytes, tmp_path: Path) -> None:
    """A no to the plan, or Ctrl-C, ends with 1 and leaves the folder as it was."""
    flags = ["--no-fastapi", "--unit-of-work", "--no-example", "--auth", "--no-standalone"]
    rest = [
        "--pool-size",
        "5",
        "--max-overflow",
        "5",
        "--layout",
        "flat",
        "--package",
        "app",
        "--tool",
        "pip",
    ]
    terminal = Terminal(tmp_path, "sqlite", *flags, *rest)
    try:
        terminal.answer(b"Write this?", key)
        assert terminal.end() == 1
    finally:
        terminal.close()
    assert b"nothing was written" in terminal.output
    assert content(tmp_path) == {}
