"""The fixtures with anyio's plugin instead of pytest-asyncio."""

import pytest
from kit_boats import launch, names

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.mark.parametrize("turn", [1, 2])
async def test_what_is_committed_is_gone_after_the_test(db_database, turn) -> None:
    """The application commits, and the next test does not see it."""
    assert await names() == []
    await launch("Fram")
    assert await names() == ["Fram"]
