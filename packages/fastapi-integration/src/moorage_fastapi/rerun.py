"""Running a request again, when its unit collided and running it again is the cure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from functools import wraps
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from moorage import Attempts
from moorage_fastapi.routes import FUNCTION_STACK, REQUEST_STACK

__all__ = ["IDEMPOTENT_METHODS", "rerun_route"]

IDEMPOTENT_METHODS: frozenset[str] = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods that a client itself may repeat (RFC 9110, section 9.2.2)."""


def rerun_route(
    *,
    attempts: int = 3,
    deadline_seconds: float = 10.0,
    methods: Collection[str] = IDEMPOTENT_METHODS,
) -> type[APIRoute]:
    """
    Return a class of routes that run a request again after a passing failure of the database.

    Opted into by router: ``APIRouter(route_class=rerun_route())``. Run again is all of it, from the
    dependencies to the commit, on new sessions, after errors with ``is_transient`` (a deadlock, a
    collision, a lost connection); never after a COMMIT whose outcome is unknown, and never once
    the response has begun. What a handler does besides the database is done again as well, which
    is why only idempotent methods are: a client may repeat those too. A body that the handler
    itself read as a stream cannot be read twice.

    Args:
        attempts: Most runs, the first one included.
        deadline_seconds: No attempt begins later than this after the first one.
        methods: Methods that are run again; others run once.

    Raises:
        MissingExtraError: stamina is not installed.
        SettingsError: ``attempts`` or ``deadline_seconds`` is no positive number.
    """
    repeated = Attempts(attempts, deadline_seconds)
    repeatable = frozenset(method.upper() for method in methods)

    class RerunRoute(APIRoute):
        """A route whose requests are run again after a passing failure."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            once = super().get_route_handler()

            @wraps(self.endpoint)
            async def attempt(request: Request) -> Response:
                return await _run_apart(once, request)

            async def handle(request: Request) -> Response:
                if request.method not in repeatable:
                    return await once(request)
                return await repeated.run(attempt, request)

            return handle

    return RerunRoute


async def _run_apart(
    handler: Callable[[Request], Coroutine[Any, Any, Response]], request: Request
) -> Response:
    """
    Run a request with its dependencies, and end those of its function.

    What lives until the response is sent is handed to the request if this attempt succeeds.
    """
    scope = request.scope
    outer: AsyncExitStack = scope[REQUEST_STACK]
    function_of_request = scope[FUNCTION_STACK]
    try:
        async with AsyncExitStack() as inner:
            scope[REQUEST_STACK] = inner
            async with AsyncExitStack() as function:
                scope[FUNCTION_STACK] = function
                response = await handler(request)
            outer.push_async_exit(inner.pop_all())
    finally:
        scope[REQUEST_STACK], scope[FUNCTION_STACK] = outer, function_of_request
    return response
