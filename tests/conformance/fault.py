"""What the tests of the suite need to know of a connector that is wrong in one way, or right."""

from collections.abc import Mapping
from typing import Any, ClassVar

from moorage import DBConnector
from moorage.testing import ConnectorSuite
from moorage.testing.check import checks_of

CHECKS = frozenset(checks_of(ConnectorSuite))


class Fault:
    """
    A connector with one realistic fault: one of ours, with one thing gone wrong.

    Attributes:
        noticed_by: Checks that it must fail, and no others.
        passes: Checks that it must pass, and not skip; for connectors that are right.
        expected_failures: What its author excuses.
    """

    noticed_by: ClassVar[frozenset[str]]
    passes: ClassVar[frozenset[str]] = frozenset()
    expected_failures: ClassVar[Mapping[str, str]] = {}


def faults_of(names: Mapping[str, Any]) -> list[type[Any]]:
    """Return the faults that a module defines."""
    return [
        value
        for value in names.values()
        if isinstance(value, type) and issubclass(value, Fault) and issubclass(value, DBConnector)
    ]
