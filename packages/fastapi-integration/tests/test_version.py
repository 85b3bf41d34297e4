"""The oldest FastAPI that is declared is tested, and so is the newest."""

import os
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement


def test_both_ends_of_what_is_declared_are_tested() -> None:
    """Cells of the older SQLAlchemy have the oldest FastAPI, the others a newer one."""
    line = os.environ.get("EXPECT_SQLALCHEMY")
    if line is None:
        pytest.skip("not run as a cell of the matrix")
    declared = map(Requirement, requires("moorage-fastapi") or [])
    floor = next(str(found.specifier) for found in declared if found.name == "fastapi")
    assert (f">={version('fastapi')}" == floor + ".0") is (line == "2.0")
