"""What a call of a function wants of ``env.py``, and what ``env.py`` answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import MetaData

from moorage.database import Database
from moorage.settings import DatabaseSettings

__all__ = ["COMPARES", "REQUEST", "Declared", "Request"]

logger: logging.Logger = logging.getLogger("moorage.migrations")

REQUEST: Final = "moorage_request"
"""Key in ``Config.attributes`` under which a function of ours says what it wants."""

COMPARES: Final = "moorage_compares"
"""Key in the options of an Alembic command that compares the models with the database."""


@dataclass(frozen=True)
class Declared:
    """
    What ``env.py`` says of its project.

    Attributes:
        metadata: The catalogues of the models.
        settings: Where the database is.
    """

    metadata: tuple[MetaData, ...]
    settings: DatabaseSettings


@dataclass
class Request:
    """
    What one call wants of ``env.py``, and what came of it.

    Attributes:
        database: The database to use instead of the one that the settings name.
        wait_seconds: Longest wait for another process; ``None`` leaves what ``env.py`` says.
        report: Called with a sentence on what happens.
        only_declares: Run nothing; what ``env.py`` says is wanted.
        applied: Revisions that were run, in order.
        metadata: The catalogues of the models.
        declared: What ``env.py`` said, if it was asked.
    """

    database: Database | None = None
    wait_seconds: float | None = None
    report: Callable[[str], None] = logger.info
    only_declares: bool = False
    applied: list[str] = field(default_factory=list)
    metadata: Sequence[MetaData] = ()
    declared: Declared | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """End the call from another thread; what its transaction did is rolled back."""
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def cancellable(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work so that :meth:`cancel` reaches it."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await work
