"""
How many repetitions a test makes, and on how many variants of itself.

Tests run with small counts by default. ``MOORAGE_TEST_SCALE=full`` gives the full counts to tests
that take the `scale` fixture, and ``-m scaled`` selects just these.

``@pytest.mark.scaled(small=["sqlite", "postgres-2"])`` names the variants, by the ids of their
parameters, that run at small counts; at full counts all of them do. An empty list leaves out all.
"""

import os
from collections import defaultdict
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


@pytest.hookimpl(tryfirst=True)  # before -k and -m have thinned out the variants
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what waits for the full counts; pytest counts it as deselected."""
    if os.environ.get(VARIABLE) == "full":
        return
    variants: defaultdict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        marker = item.get_closest_marker("scaled")
        if marker is None or "small" not in marker.kwargs:
            kept.append(item)
            continue
        small = tuple(marker.kwargs["small"])
        variant = _variant(item)
        variants[item.nodeid.partition("[")[0], small].add(variant)
        (kept if variant in small else left_out).append(item)
    if not any("[" in argument for argument in config.args):
        for (test, small), found in variants.items():
            _refuse_unknown(test, small, found)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _variant(item: pytest.Item) -> str:
    return str(getattr(getattr(item, "callspec", None), "id", ""))


def _refuse_unknown(test: str, small: tuple[str, ...], found: set[str]) -> None:
    """Refuse a misspelt variant, which would leave out a test for good."""
    backends = {name.partition("-")[0] for name in found}  # those of this run
    unknown = {name for name in small if name.partition("-")[0] in backends} - found
    if unknown:
        raise pytest.UsageError(f"{test}: scaled(small=...) has {unknown}, expected {found}")


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
