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
from sqlalchemy.engine import Dialect

from moorage.notes import DRIVER_CONNECTION
from moorage.pool.loop_pool import LoopPool
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
    liveness = _Liveness(engine.dialect, settings, is_closed, ping)
    if isinstance(engine.pool, LoopPool):
        engine.pool.death_of = liveness.death_of
    else:
        _attach_to_stranger(engine, liveness)


class _Liveness:
    def __init__(
        self,
        dialect: Dialect,
        settings: DatabaseSettings,
        is_closed: Callable[[Any], bool] | None,
        ping: Callable[[Any], Awaitable[None]] | None,
    ) -> None:
        self._dialect = dialect
        self._driver_connection_of = dialect.get_driver_connection
        self._idle_limit = settings.pool_ping_idle_seconds
        if settings.pool_pre_ping == "always":
            self._idle_limit = 0.0
        self._deadline = settings.connect_timeout_seconds
        self._is_closed = is_closed
        self._ping = ping

    def death_of(self, record: Any, idle_seconds: float) -> sa_exc.DisconnectionError | None:
        """Return the pool's own word for "drop it and open another one", if that is to be done."""
        connection, is_closed = record.dbapi_connection, self._is_closed
        if is_closed is not None and is_closed(
            record.info.get(DRIVER_CONNECTION) or self._driver_connection_of(connection)
        ):
            return sa_exc.DisconnectionError("the connection was closed while idle")
        if idle_seconds < self._idle_limit:
            return None
        try:
            util.await_only(self._answer(connection))
        except (AttributeError, NameError, TypeError):
            raise  # a mistake in the connector, which must not pass for a dead connection
        except Exception as error:  # noqa: BLE001 (whatever it is, another one is opened)
            death = sa_exc.DisconnectionError("the connection died while idle")
            death.__cause__ = error
            return death
        return None

    async def _answer(self, connection: Any) -> None:
        async with asyncio.timeout(self._deadline):
            if self._ping is not None:
                await self._ping(self._driver_connection_of(connection))
            else:
                await util.greenlet_spawn(self._dialect.do_ping, connection)


def _attach_to_stranger(engine: Engine, liveness: _Liveness) -> None:
    """Check the connections of a pool that is not ours, which does not ask by itself."""

    @event.listens_for(engine, "checkin")
    def remember(connection: object, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, proxy: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None:
            return  # it was opened a moment ago
        if (death := liveness.death_of(record, time.monotonic() - idle_since)) is not None:
            raise death
