"""The connector passes the suite that every connector has to pass."""

import pytest

from moorage import DatabaseSettings
from moorage.testing import ConnectorSuite


class TestHeronConnector(ConnectorSuite):
    """All checks of the suite, on the empty database of `HERON_TEST_NAME`."""

    @pytest.fixture
    def settings(self) -> DatabaseSettings:
        """Return the settings of an empty database."""
        found = DatabaseSettings.from_env("HERON_TEST_", env_file=None)
        return found.replaced("the tests", type="heron")
