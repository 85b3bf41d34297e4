"""
Tests for users of moorage, to run with pytest: ``pip install 'moorage[testing]'``.

:class:`ConnectorSuite` tells whoever writes a connector whether it is right.
"""

from __future__ import annotations

from moorage.errors import MissingExtraError

try:
    import pytest  # noqa: F401
    import pytest_asyncio  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"moorage.testing needs pytest and pytest-asyncio: {error}",
        hint="pip install 'moorage[testing]'",
    ) from error

from moorage.testing.stepper import Stepper
from moorage.testing.suite import ConnectorSuite

__all__ = ["ConnectorSuite", "Stepper"]
