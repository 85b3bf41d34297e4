"""The tests of this connector run on its own backend, whichever others were chosen."""

import pytest


@pytest.fixture
def backend() -> str:
    """Return the backend of this connector."""
    return "mysql"
