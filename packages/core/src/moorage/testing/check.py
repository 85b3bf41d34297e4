"""One check of the suite: what it is about, whom it concerns, and what to look at when it fails."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from moorage.connector import DBConnector
from moorage.errors import DatabaseError
from moorage.registry import get_connector

__all__ = ["PATIENCE_SECONDS", "Check", "check", "checks_of"]

PATIENCE_SECONDS = 30.0
"""Longest run of one check."""

_F = TypeVar("_F", bound=Callable[..., Any])
_ATTRIBUTE = "moorage_check"


@dataclass(frozen=True)
class Check:
    """
    What is known of a check besides its code.

    Attributes:
        advice: What to look at when it fails.
        capability: Field of ``Capabilities`` without which it is skipped.
        error: Class that has to be in ``Capabilities.errors``, or it is skipped.
        ability: Protocol that the connector must have, or it is skipped.
        hook: Method of ``DBConnector`` that it must override, or it is skipped.
        brings: Classes of errors that are brought about, where they are declared.
    """

    advice: str
    capability: str = ""
    error: type[DatabaseError] | None = None
    ability: type | None = None
    hook: str = ""
    brings: frozenset[type[DatabaseError]] = frozenset()

    def lacking(self, connector: DBConnector, kind: object = None) -> str:
        """Return why the check does not concern a connector; empty if it does."""
        can = connector.capabilities
        if self.capability and not getattr(can, self.capability):
            return f"Capabilities.{self.capability} is {getattr(can, self.capability)!r}"
        for error in (self.error, kind):
            if isinstance(error, type) and error not in can.errors:
                return f"Capabilities.errors does not have {error.__name__}"
        if self.ability is not None and not isinstance(connector, self.ability):
            return f"the connector is no {self.ability.__name__}"
        if self.hook and getattr(type(connector), self.hook) is getattr(DBConnector, self.hook):
            return f"the connector has no {self.hook} of its own"
        return ""


def check(
    advice: str,
    *,
    capability: str = "",
    error: type[DatabaseError] | None = None,
    ability: type | None = None,
    hook: str = "",
    brings: Iterable[type[DatabaseError]] = (),
) -> Callable[[_F], _F]:
    """Make a check of a coroutine function; for the arguments see :class:`Check`."""
    brought = frozenset(brings if error is None else (error, *brings))
    about = Check(advice, capability, error, ability, hook, brought)

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        async def checked(self: Any, **arguments: Any) -> None:
            kind = arguments.get("kind")
            if reason := about.lacking(_connector_of(arguments), kind):
                pytest.skip(reason)
            excuse = _excuse(self.expected_failures, function.__name__, kind)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await function(self, **arguments)
            except (Exception, pytest.fail.Exception) as failure:
                if excuse:
                    pytest.xfail(excuse)
                failure.add_note(f"What to look at: {advice}")
                raise
            if excuse:
                pytest.fail(f"expected_failures names {function.__name__}, which passes")

        setattr(checked, _ATTRIBUTE, about)
        return checked  # type: ignore[return-value]

    return decorate


def checks_of(suite: type) -> dict[str, Check]:
    """Return the checks of a suite by name."""
    return {
        name: getattr(value, _ATTRIBUTE)
        for name in dir(suite)
        if hasattr(value := getattr(suite, name), _ATTRIBUTE)
    }


def _connector_of(arguments: Mapping[str, Any]) -> DBConnector:
    database = arguments.get("database")
    return database.connector if database else get_connector(arguments["settings"])


def _excuse(expected_failures: Mapping[str, str], name: str, kind: object) -> str:
    exact = f"{name}[{getattr(kind, '__name__', kind)}]"
    return expected_failures.get(exact) or expected_failures.get(name, "")
