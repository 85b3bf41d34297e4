"""Of a test with many variants, small counts run those that its mark names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_scale import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import pytest

@pytest.mark.scaled(small=[{small}])
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
@pytest.mark.parametrize("workers", [1, 2])
def test_variants(backend: str, workers: int) -> None: ...
"""


def run(folder: Path, small: str, scale: str) -> str:
    """Return what pytest prints for a test that names its small variants."""
    (folder / "test_variants.py").write_text(MODULE.format(small=small))
    options = ["-q", "-p", "tests.fix_scale", "-c", os.devnull, f"--rootdir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-W", "ignore", folder / "test_variants.py"],
        cwd=ROOT,
        env={**os.environ, VARIABLE: scale},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("scale", "expected"), [("small", "1 passed, 3 deselected"), ("full", "4 passed")]
)
def test_small_counts_take_the_variants_that_are_named(
    tmp_path: Path, scale: str, expected: str
) -> None:
    """Small counts run the named variants, full counts all of them."""
    assert expected in run(tmp_path, "'1-sqlite'", scale)


def test_a_misspelt_variant_is_refused(tmp_path: Path) -> None:
    """A name that no variant has would leave out a test for good, and ends the run."""
    assert "scaled(small=...) has {'1-sqlight'}" in run(tmp_path, "'1-sqlight'", "small")
