"""Our dialect of SQLite is one in the eyes of SQLAlchemy."""

import os
import re
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).parent / "suite"
# Hundreds of combinations of the same questions about schemas and views, which it inherits.
LEFT_OUT = "not Reflection and not HasTable and not HasIndex and not QuotedName"


def run(driver: str, folder: Path) -> tuple[int, int]:
    """Run SQLAlchemy's suite for dialects; return how many passed and how many did not."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", LEFT_OUT]
    command += ["-c", "setup.cfg", "--rootdir", ".", "--dburi", f"sqlite+{driver}:///{folder}/x.db"]
    # Not a conftest: pytest would load it into the process that runs these tests.
    command += ["-p", "dialect_plugin", "suite.py"]
    done = subprocess.run(
        command,
        cwd=SUITE,
        env={**os.environ, "PYTHONPATH": str(SUITE)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    summary = done.stdout.strip().splitlines()[-1]
    counts = dict(re.findall(r"(\d+) (passed|failed|error)", summary)[::-1])
    found = {word: int(number) for number, word in counts.items()}
    assert "passed" in found, done.stdout[-2000:] + done.stderr[-2000:]
    return found["passed"], found.get("failed", 0) + found.get("error", 0)


def test_the_dialect_passes_the_suite_of_sqlalchemy(tmp_path: Path) -> None:
    """What SQLAlchemy asks of a dialect, ours does as SQLAlchemy's own for the same driver does."""
    passed, wrong = run("moorage", tmp_path)
    assert wrong == 0
    assert passed > 400
