"""What autogenerate asks of the catalog, on the second driver: tests of the first one."""

from tests.policies.conftest import default_grants, either_project, project
from tests.policies.test_autogenerate import (
    test_the_database_gets_what_is_declared,
    test_what_was_changed_by_hand_is_found,
)

__all__ = [
    "default_grants",
    "either_project",
    "project",
    "test_the_database_gets_what_is_declared",
    "test_what_was_changed_by_hand_is_found",
]
