"""Fixtures for every test of the repository, one file per concern."""

pytest_plugins = [
    "tests.fix_scale",
    "tests.fix_backend",
    "tests.fix_database",
    "tests.fix_pooler",
    "tests.fix_conformance",
]
