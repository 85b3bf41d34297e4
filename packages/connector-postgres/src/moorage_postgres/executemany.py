"""
Cancelling one statement with many rows.

asyncpg's ``executemany`` swallows a cancellation that arrives while rows are being sent: it then
waits for an answer that nobody will send, because the end of the rows was never announced. Only a
second cancellation gets it out of there (MagicStack/asyncpg#1265), so a second one is sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine, util

from moorage import wait_shielded

__all__ = ["make_executemany_cancellable"]

_BETWEEN_TWO_SECONDS = 0.05
_MOST_TIMES = 20


def make_executemany_cancellable(engine: Engine) -> None:
    """Let a cancelled ``executemany`` of ``engine`` end, instead of waiting for ever."""

    def do_executemany(
        cursor: Any, statement: str, parameters: Any, context: object = None
    ) -> None:
        util.await_only(_executemany(cursor, statement, parameters))

    # In the dialect, not in an event: what core does around each call of the dialect, such as
    # limiting it in time, has to be around this as well.
    engine.dialect.do_executemany = do_executemany  # type: ignore[method-assign]


async def _executemany(cursor: Any, statement: str, parameters: Any) -> None:
    task = asyncio.create_task(util.greenlet_spawn(cursor.executemany, statement, parameters))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieved
        for _ in range(_MOST_TIMES):
            task.cancel()
            await wait_shielded(task, _BETWEEN_TWO_SECONDS)
            if task.done():
                break
        raise
    task.result()
