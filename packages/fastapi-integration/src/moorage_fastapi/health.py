"""
Whether the process lives, and whether it can serve: what Kubernetes and load balancers ask.

Liveness does not touch the database: restarting this process would not bring the database back.
Readiness asks it, on one connection whoever many ask, and never waits for the pool: a pool that is
in use to the last connection is a busy service, not a broken one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from moorage import Database, MoorageError
from moorage_fastapi.lifespan import served_by

__all__ = ["health_router"]

# Worst first: what is said of several databases is what is said of the worst.
_STATES = ("stopping", "unavailable", "busy", "ready")


def health_router(
    database: Database | None = None,
    *,
    databases: Iterable[str] = (),
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
        database: The database to ask; the application's if left out.
        databases: Names of further ones, of ``lifespan(databases=…)``, without which this process
            can serve nothing.
        live_path: Path of the liveness probe.
        ready_path: Path of the readiness probe.
        ping_seconds: Deadline of the ping; keep it below the probe's own.
    """
    router = APIRouter(include_in_schema=False)
    names = tuple(databases)
    pings: WeakKeyDictionary[Database, asyncio.Task[str]] = WeakKeyDictionary()

    @router.get(live_path)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(ready_path)
    async def ready(request: Request) -> JSONResponse:
        served = served_by(request)
        default = database if database is not None else served.get(None)
        state, pool = await look(default)
        further = {name: await look(served.get(name)) for name in names}
        worst = min([state, *(state for state, _ in further.values())], key=_STATES.index)
        body: dict[str, Any] = {"status": worst, "pool": pool}
        if further:
            body["databases"] = {
                name: {"status": state, "pool": pool} for name, (state, pool) in further.items()
            }
        # Busy is ready: taking a busy process out of service would make the others busier.
        return JSONResponse(body, 200 if worst in {"ready", "busy"} else 503)

    async def look(used: Database) -> tuple[str, dict[str, int]]:
        if used.state in {"closing", "disposed"}:
            return "stopping", {}
        try:
            pool = used.pool_statistics()
        except MoorageError:
            return "unavailable", {}
        figures = {"capacity": pool.capacity, "in_use": pool.in_use, "waiting": pool.waiting}
        if _is_busy(used):
            return "busy", figures
        ping = pings.get(used)
        if ping is None or ping.done() or ping.get_loop() is not asyncio.get_running_loop():
            ping = pings[used] = asyncio.create_task(_ping(used, ping_seconds))
        # A client that goes away must not take the answer from the others.
        return await asyncio.shield(ping), figures

    return router


def _is_busy(database: Database) -> bool:
    """Return whether a ping would have to wait for a connection that others hold."""
    # Not the figures of all pools: read sessions may have one of their own.
    pool: Any = database.engine.pool
    if not hasattr(pool, "capacity") or not hasattr(pool, "waiting"):
        return False
    return bool(pool.waiting() or pool.checkedout() >= pool.capacity() > 0)


async def _ping(database: Database, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            await database.ping()
    except (MoorageError, TimeoutError):
        # The last connection may have gone to somebody else in between.
        is_busy = database.state == "started" and _is_busy(database)
        return "busy" if is_busy else "unavailable"
    return "ready"
