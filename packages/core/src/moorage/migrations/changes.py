"""What changes a database: upgrade, downgrade and stamp."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, Unpack

from alembic import command
from alembic.config import Config

from moorage.database import Database
from moorage.migrations.calling import DEFAULT_CONFIG, in_thread
from moorage.migrations.request import Request

__all__ = ["ChangeOptions", "downgrade", "stamp", "upgrade"]

logger: logging.Logger = logging.getLogger("moorage.migrations")


class ChangeOptions(TypedDict, total=False):
    """
    What can be asked of a change.

    Attributes:
        config: Alembic's settings, or their file.
        database: Changed instead of the one that ``env.py`` names.
        wait_seconds: Longest wait for another process; ``None`` leaves what ``env.py`` says.
        report: Called with a sentence on what happens, in another thread.
    """

    config: str | Path | Config
    database: Database | None
    wait_seconds: float | None
    report: Callable[[str], None]


async def upgrade(target: str = "head", **options: Unpack[ChangeOptions]) -> list[str]:
    """
    Apply revisions up to ``target``, and return those that were applied.

    Any number of processes may do this at once: one migrates, the others wait for it. Where there
    is nothing to do, no lock is taken.

    Args:
        target: A revision, ``head``, ``heads``, or ``+1``.
        **options: See :class:`ChangeOptions`.

    Raises:
        MigrationLockError: Another process migrates, for too long.
        HalfAppliedMigrationError: A revision was interrupted before.
        MigrationError: A revision, or ``env.py``, cannot be found or is wrong.
        DatabaseError: The database failed.
    """
    return await _change(lambda alembic: command.upgrade(alembic, target), options)


async def downgrade(target: str, **options: Unpack[ChangeOptions]) -> list[str]:
    """
    Undo revisions down to ``target`` (a revision, ``-1`` or ``base``), and return the undone ones.

    Options and errors are those of :func:`upgrade`.
    """
    return await _change(lambda alembic: command.downgrade(alembic, target), options)


async def stamp(target: str, **options: Unpack[ChangeOptions]) -> None:
    """
    Say that the database is at ``target``, without running anything.

    It is also the way out of a revision that was interrupted, once its rest was done, or undone,
    by hand. Options and errors are those of :func:`upgrade`.
    """
    await _change(lambda alembic: command.stamp(alembic, target), options)


async def _change(work: Callable[[Config], None], options: ChangeOptions) -> list[str]:
    request = Request(
        options.get("database"), options.get("wait_seconds"), options.get("report", logger.info)
    )
    await in_thread(options.get("config", DEFAULT_CONFIG), request, work)
    return request.applied
