"""
Whether the process lives, and whether it can serve: what Kubernetes and load balancers ask.

Liveness does not touch the database: restarting this process would not bring the database back.
Readiness asks it, on one connection whoever many ask, and never waits for the pool: a pool that is
in use to the last connection is a busy service, not a broken one.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from moorage import Database, MoorageError
from moorage_fastapi.lifespan import database_of

__all__ = ["health_router"]


def health_router(
    database: Database | None = None,
    *,
    live_path: str = "/health/live",
    ready_path: str = "/health/ready",
    ping_seconds: float = 1.0,
) -> APIRouter:
    """
    Return a router with two routes for probes: ``app.include_router(health_router())``.

    ``GET /health/live`` answers 200 as long as the event loop runs. ``GET /health/ready`` answers
    200 when the database answers a ping, else 503; both say so in JSON, with the figures of the
    pool. The routes do not show in OpenAPI.

    Args:
        database: The database to ask; the request's if left out.
        live_path: Path of the liveness probe.
        ready_path: Path of the readiness probe.
        ping_seconds: Deadline of the ping; keep it below the probe's own.
    """
    router = APIRouter(include_in_schema=False)
    pings: WeakKeyDictionary[Database, asyncio.Task[str]] = WeakKeyDictionary()

    @router.get(live_path)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(ready_path)
    async def ready(request: Request) -> JSONResponse:
        used = database if database is not None else database_of(request)
        if used.state in {"closing", "disposed"}:
            return _answer("stopping", {})
        try:
            pool = used.pool_statistics()
        except MoorageError:
            return _answer("unavailable", {})
        figures = {"capacity": pool.capacity, "in_use": pool.in_use, "waiting": pool.waiting}
        if pool.waiting or pool.in_use >= pool.capacity > 0:
            return _answer("busy", figures)
        ping = pings.get(used)
        if ping is None or ping.done() or ping.get_loop() is not asyncio.get_running_loop():
            ping = pings[used] = asyncio.create_task(_ping(used, ping_seconds))
        # A client that goes away must not take the answer from the others.
        return _answer(await asyncio.shield(ping), figures)

    return router


async def _ping(database: Database, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            await database.ping()
    except (MoorageError, TimeoutError):
        return "unavailable"
    return "ready"


def _answer(status: str, pool: dict[str, Any]) -> JSONResponse:
    # Busy is ready: taking a busy process out of service would make the others busier.
    code = 200 if status in {"ready", "busy"} else 503
    return JSONResponse({"status": status, "pool": pool}, code)
