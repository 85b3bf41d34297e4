"""A cell of the matrix is what its name says."""

import os
from importlib.metadata import version
from importlib.util import find_spec

import pytest

MODULES = {
    "sqlite": {"moorage_sqlite", "aiosqlite"},
    "postgres": {"moorage_postgres", "asyncpg"},
    "mysql": {"moorage_mysql", "aiomysql"},
}


def test_sqlalchemy_is_the_expected_line() -> None:
    """The installed SQLAlchemy belongs to the line that the cell is named after."""
    if "EXPECT_SQLALCHEMY" not in os.environ:
        pytest.skip("not run as a cell of the matrix")
    assert version("sqlalchemy").startswith(os.environ["EXPECT_SQLALCHEMY"] + ".")


@pytest.mark.skipif(
    os.environ.get("MOORAGE_TEST_BACKENDS") not in MODULES, reason="not a one-connector cell"
)
def test_no_other_connector_is_importable() -> None:
    """A cell of one connector holds that connector, its driver, and no other."""
    own = os.environ["MOORAGE_TEST_BACKENDS"]
    present = {
        module
        for modules in MODULES.values()
        for module in modules
        if find_spec(module) is not None
    }
    assert present == MODULES[own]
