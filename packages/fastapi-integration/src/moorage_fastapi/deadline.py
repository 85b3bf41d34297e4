"""A deadline for a whole request: what is not done by then is rolled back, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from fastapi import Depends, params
from starlette.requests import HTTPConnection

from moorage import MoorageError, SettingsError
from moorage_fastapi.routes import function_stack

__all__ = ["RequestDeadlineError", "deadline"]


class RequestDeadlineError(MoorageError, TimeoutError):
    """A request was not done within the deadline of its route."""

    anchor: ClassVar[str] = "request-deadline"


RequestDeadlineError.__module__ = "moorage_fastapi"


def deadline(seconds: float) -> params.Depends:
    """
    Return a dependency that ends a request which is not done in time.

    Given to a route, a router or an application: ``dependencies=[deadline(2.0)]``. The time runs
    from the moment when dependencies are solved to the one when the response is ready, the commit
    included; a COMMIT that was sent is waited for all the same. The handler is cancelled where it
    waits, its unit rolls back, and the client hears 504 from the problem handlers. A stream is not
    limited.

    Raises:
        SettingsError: ``seconds`` is no positive number.
        RequestDeadlineError: In the request, when its time is over.
    """
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"deadline({seconds!r})", hint="write a positive number of seconds")

    async def limit(connection: HTTPConnection) -> None:
        await function_stack(connection.scope).enter_async_context(_within(seconds))

    dependency: params.Depends = Depends(limit)
    return dependency


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise RequestDeadlineError(
            f"the request was not done within its deadline of {seconds:g} s",
            hint="look what it waits for: a lock, the pool, another service; or allow more",
        ) from error
