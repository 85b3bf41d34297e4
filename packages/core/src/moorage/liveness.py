"""
Whether a connection still lives, asked before it is used again.

SQLAlchemy's own pre-ping asks before every use, which on some drivers is three round trips of six
for a one-row read. Connections die while idle (time-outs of proxies, restarts), not between two
uses in a row; and what the driver knows already costs nothing to ask.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import Engine, event, util
from sqlalchemy import exc as sa_exc

from moorage.connector import DBConnector

__all__ = ["attach_liveness"]

_IDLE_SINCE = "moorage_idle_since"


def attach_liveness(engine: Engine, connector: DBConnector) -> None:
    """Check the connections of ``engine`` at checkout, as ``settings.pool_pre_ping`` says."""
    settings = connector.settings
    if settings.pool_pre_ping == "never":
        return
    idle_limit = settings.pool_ping_idle_seconds if settings.pool_pre_ping == "idle" else 0.0
    deadline = settings.connect_timeout_seconds
    dialect = engine.dialect
    knows = type(connector).is_closed is not DBConnector.is_closed
    has_ping = type(connector).ping is not DBConnector.ping

    async def ping(connection: Any) -> None:
        async with asyncio.timeout(deadline):
            if has_ping:
                await connector.ping(dialect.get_driver_connection(connection))
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
        if knows and connector.is_closed(dialect.get_driver_connection(connection)):
            raise sa_exc.DisconnectionError("the connection was closed while idle")
        if time.monotonic() - idle_since < idle_limit:
            return
        try:
            util.await_only(ping(connection))
        except (AttributeError, NameError, TypeError):
            raise  # a mistake in the connector, which must not pass for a dead connection
        except Exception as error:
            # The pool's own word for "drop it and open another one".
            raise sa_exc.DisconnectionError("the connection died while idle") from error
