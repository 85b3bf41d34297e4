"""
How many repetitions a test makes.

Tests run with small counts by default. ``MOORAGE_TEST_SCALE=full`` gives the full counts to tests
that take the `scale` fixture, and ``-m scaled`` selects just these.
"""

import os
from typing import Protocol

import pytest

VARIABLE = "MOORAGE_TEST_SCALE"


class Scale(Protocol):
    """Choose between two counts."""

    def __call__(self, *, small: int, full: int) -> int: ...


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a misspelt scale, which would otherwise quietly mean the small one."""
    value = os.environ.get(VARIABLE, "small")
    if value not in {"small", "full"}:
        raise pytest.UsageError(f"{VARIABLE}={value!r}: expected 'small' or 'full'")


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Scale:
    """
    Return a function that picks the count of this run: ``scale(small=20, full=2_000)``.

    The test must be marked ``scaled``, or the full run would never select it.
    """
    if request.node.get_closest_marker("scaled") is None:
        pytest.fail("a test that takes `scale` must be marked with @pytest.mark.scaled")
    is_full = os.environ.get(VARIABLE) == "full"

    def pick(*, small: int, full: int) -> int:
        return full if is_full else small

    return pick
