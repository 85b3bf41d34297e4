"""
What a route asks for, read from the tree that FastAPI makes of its dependencies.

It tells, before the first statement, whether anybody will ask for the unit of work and with which
options; and it tells what cannot work: a session of the request in places that run when the
request has ended. All knowledge of FastAPI's own structures is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

from fastapi import routing
from fastapi.dependencies.models import Dependant
from starlette.routing import BaseRoute
from starlette.types import Scope

from moorage import LifecycleError, UnitOfWorkError, UnitOptions

__all__ = [
    "FUNCTION_STACK",
    "REQUEST_STACK",
    "Asked",
    "Plan",
    "asks_for",
    "function_stack",
    "plan_of",
    "refuse_what_cannot_work",
]

FUNCTION_STACK = "fastapi_function_astack"
"""Where a request's scope has what FastAPI ends when the response is ready, before it is sent."""

REQUEST_STACK = "fastapi_inner_astack"
"""Where a request's scope has what FastAPI ends when the response was sent."""

_MOST_PLANS = 4096


@dataclass(frozen=True)
class Asked:
    """What a dependency of ours stands for; ``name`` is that of the database."""

    kind: Literal["session", "unit", "read session"]
    name: str | None
    options: UnitOptions = field(default_factory=UnitOptions)


@dataclass(frozen=True)
class Plan:
    """
    What a route will ask for.

    Attributes:
        units: The databases that get a unit of work, with its options.
        path: Path of the route, with names in place of what they stand for.
    """

    units: dict[str | None, UnitOptions]
    path: str | None = None


_asked: WeakKeyDictionary[Callable[..., Any], Asked] = WeakKeyDictionary()
# FastAPI's trees can be neither hashed nor referred to weakly; each is kept beside its plan, so
# that its id stays its own.
_plans: dict[int, tuple[Dependant, Plan]] = {}
_NOTHING = Plan({})


def asks_for(dependency: Callable[..., Any], asked: Asked) -> None:
    """Note what a dependency stands for."""
    _asked[dependency] = asked


def function_stack(scope: Scope) -> AsyncExitStack:
    """
    Return what FastAPI ends when the response is ready, before it is sent.

    Raises:
        LifecycleError: FastAPI does not solve the dependencies of this request.
    """
    stack = scope.get(FUNCTION_STACK)
    if not isinstance(stack, AsyncExitStack):
        raise LifecycleError(
            "a session of the request was asked for where FastAPI ends no dependencies",
            hint="ask for it in a route of FastAPI, in a version that moorage-fastapi knows",
        )
    return stack


def plan_of(scope: Scope) -> Plan:
    """
    Return what the route of a request asks for.

    Raises:
        LifecycleError: The route uses a session where it cannot work.
        UnitOfWorkError: Two of its dependencies ask for units with different options.
    """
    # An included router has routes of its own, with what was given when it was included.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return _NOTHING
    known = _plans.get(id(dependant))
    if known is None:
        _refuse(dependant, is_websocket=scope["type"] == "websocket")
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = Plan(_units(dependant), getattr(route, "path", None))
        known = _plans[id(dependant)] = (dependant, plan)
    return known[1]


def refuse_what_cannot_work(routes: Iterable[BaseRoute]) -> None:
    """
    Refuse routes that use a session of the request after its end.

    Raises:
        LifecycleError: There is such a route; the hint says what to write.
        UnitOfWorkError: Two dependencies of a route ask for units with different options.
    """
    for route in _each(routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant):
            original = getattr(route, "original_route", route)
            _refuse(dependant, is_websocket=isinstance(original, routing.APIWebSocketRoute))
            _units(dependant)


def _each(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    # Older versions copy the routes of an included router; newer ones keep the router.
    contexts = getattr(routing, "iter_route_contexts", None)
    return iter(routes) if contexts is None else iter(contexts(list(routes)))


def _units(dependant: Dependant) -> dict[str | None, UnitOptions]:
    units: dict[str | None, UnitOptions] = {}
    for asked in _all_asked(dependant):
        if asked.kind != "unit":
            continue
        options = units.setdefault(asked.name, asked.options)
        if asked.options and options and options != asked.options:
            raise UnitOfWorkError(
                f"{_name(dependant)} asks for one unit of work with different options:"
                f" {options} and {asked.options}",
                hint="a request has one unit per database; give the options in one place",
            )
        if asked.options:
            units[asked.name] = asked.options
    return units


def _all_asked(dependant: Dependant) -> Iterator[Asked]:
    """Yield what a route asks us for, however deep."""
    for inner in dependant.dependencies:
        asked = _of(inner.call)
        if asked is not None:
            yield asked
        yield from _all_asked(inner)


def _of(call: Callable[..., Any] | None) -> Asked | None:
    try:
        return None if call is None else _asked.get(call)
    except TypeError:  # an object that cannot be referred to weakly is none of ours
        return None


def _refuse(dependant: Dependant, *, is_websocket: bool) -> None:
    of_its_own = [_of(inner.call) for inner in dependant.dependencies if inner.name is not None]
    if any(asked is not None for asked in of_its_own):
        if is_websocket:
            raise LifecycleError(
                f"{_name(dependant)} is a WebSocket and asks for a session of the request, which"
                " ends when the connection is accepted",
                hint="ask for the database (`database: AppDatabase`), and open a unit for each"
                " message: `async with database.unit_of_work() as session:`",
            )
        if _yields(dependant.call):
            raise LifecycleError(
                f"{_name(dependant)} yields its response and asks for a session of the request,"
                " which ends before the response begins",
                hint="ask for `session: DBStreamSession`, which lives as long as the response",
            )
    _refuse_late_generators(dependant)


def _refuse_late_generators(dependant: Dependant) -> None:
    """
    Refuse generators on top of our dependencies that end after the response was sent.

    What stands behind their ``yield`` would run on a session that has ended, and FastAPI sees no
    mistake in it.
    """
    for inner in dependant.dependencies:
        if (
            _yields(inner.call)
            and inner.scope != "function"
            and next(_all_asked(inner), None) is not None
        ):
            name = _name(inner).removesuffix("()")
            raise LifecycleError(
                f"the dependency {name}() uses the request's session and yields; behind its yield"
                " the session has ended already",
                hint=f'write Depends({name}, scope="function"): it then ends before the session',
            )
        _refuse_late_generators(inner)


def _yields(call: Callable[..., Any] | None) -> bool:
    return inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call)


def _name(dependant: Dependant) -> str:
    return f"{getattr(dependant.call, '__name__', repr(dependant.call))}()"
