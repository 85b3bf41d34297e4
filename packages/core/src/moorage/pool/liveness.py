"""
Whether a connection still lives, asked before it is used again.

SQLAlchemy's own pre-ping asks before every use, which on some drivers is three round trips of six
for a one-row read. Connections die while idle (time-outs of proxies, restarts), not between two
uses in a row; and what the driver knows already costs nothing to ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Engine, event, util
from sqlalchemy import exc as sa_exc

from moorage.settings import DatabaseSettings

__all__ = ["attach_liveness"]

_IDLE_SINCE = "moorage_idle_since"


def attach_liveness(
    engine: Engine,
    settings: DatabaseSettings,
    is_closed: Callable[[Any], bool] | None,
    ping: Callable[[Any], Awaitable[None]] | None,
) -> None:
    """
    Check the connections of ``engine`` at checkout, as ``settings.pool_pre_ping`` says.

    Args:
        engine: The engine.
        settings: What its pool was made with.
        is_closed: Tells what the driver has noticed of its connection, where the connector knows.
        ping: Makes one round trip, where the connector has a way of its own.
    """
    if settings.pool_pre_ping == "never":
        return
    idle_limit = settings.pool_ping_idle_seconds if settings.pool_pre_ping == "idle" else 0.0
    deadline = settings.connect_timeout_seconds
    dialect = engine.dialect

    async def answers(connection: Any) -> None:
        async with asyncio.timeout(deadline):
            if ping is not None:
                await ping(dialect.get_driver_connection(connection))
            else:
                await util.greenlet_spawn(dialect.do_ping, connection)

    @event.listens_for(engine, "checkin")
    def remember(connection: object, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, proxy: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None:
            return  # it was opened a moment ago
        if is_closed is not None and is_closed(dialect.get_driver_connection(connection)):
            raise sa_exc.DisconnectionError("the connection was closed while idle")
        if time.monotonic() - idle_since < idle_limit:
            return
        try:
            util.await_only(answers(connection))
        except (AttributeError, NameError, TypeError):
            raise  # a mistake in the connector, which must not pass for a dead connection
        except Exception as error:
            # The pool's own word for "drop it and open another one".
            raise sa_exc.DisconnectionError("the connection died while idle") from error
