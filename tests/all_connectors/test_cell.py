"""The cell of all connectors is what its name says."""

import os
from importlib.metadata import entry_points, version
from importlib.util import find_spec

import pytest


def test_sqlalchemy_is_the_expected_line() -> None:
    """The installed SQLAlchemy belongs to the line that the cell is named after."""
    if "EXPECT_SQLALCHEMY" not in os.environ:
        pytest.skip("not run as a cell of the matrix")
    assert version("sqlalchemy").startswith(os.environ["EXPECT_SQLALCHEMY"] + ".")


@pytest.mark.parametrize("module", ["moorage_sqlite", "moorage_postgres", "moorage_mysql"])
def test_every_connector_is_importable(module: str) -> None:
    """All connectors of ours can be imported side by side."""
    assert find_spec(module) is not None


def test_no_connector_name_is_claimed_twice() -> None:
    """The connectors of ours publish different names."""
    names = [entry.name for entry in entry_points(group="moorage.connectors")]
    assert sorted(names) == sorted(set(names))
