"""Tests of other folders, run on PostgreSQL's second driver."""

from typing import Any

import pytest


@pytest.fixture
def backend() -> str:
    """Return the backend that has two drivers."""
    return "postgres"


@pytest.fixture
def fresh_database(fresh_database: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an empty database, on psycopg."""
    return {**fresh_database, "connector_options": {"driver": "psycopg"}}
