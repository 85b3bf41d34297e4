"""
Tests for users of moorage, to run with pytest: ``pip install 'moorage[testing]'``.

:class:`ConnectorSuite` tells whoever writes a connector whether it is right.
"""

from __future__ import annotations

from importlib.util import find_spec

from moorage.errors import MissingExtraError

if find_spec("pytest") is None or find_spec("pytest_asyncio") is None:
    raise MissingExtraError(
        "moorage.testing needs pytest and pytest-asyncio, which are not installed",
        hint="pip install 'moorage[testing]'",
    )

import pytest

# What an assertion of the suite compared is shown to whoever writes a connector.
pytest.register_assert_rewrite("moorage.testing.checks", "moorage.testing.suite")

from moorage.testing.stepper import Stepper
from moorage.testing.suite import ConnectorSuite

__all__ = ["ConnectorSuite", "Stepper"]
