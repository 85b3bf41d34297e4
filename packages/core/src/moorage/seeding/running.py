"""Seeds, one after the other, each in a unit of work of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import MetaData, event
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.abilities import BindsIdentities
from moorage.database import Database
from moorage.default import get_database
from moorage.errors import SeedError
from moorage.identity import ADMIN
from moorage.seeding.declaring import Seed, find_seeds, is_production
from moorage.seeding.upserting import Tally, tally_of

__all__ = ["SeedResult", "run_seeds"]

logger: logging.Logger = logging.getLogger("moorage.seeding")


@dataclass(frozen=True)
class SeedResult:
    """
    What became of one seed.

    Attributes:
        name: The seed.
        state: ``skipped`` was not for this environment; ``rolled back`` was a dry run.
        inserted: Rows that it has inserted, by ``upsert`` or through the session.
        updated: Rows that it has updated.
        deleted: Rows that it has deleted.
        unchanged: Rows that were as they should be.
    """

    name: str
    state: Literal["committed", "rolled back", "skipped"]
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


class _RolledBack(Exception):  # noqa: N818 (it is how a dry run ends)
    pass


async def run_seeds(
    environment: str,
    *,
    seeds: Sequence[str | Path | Seed] = ("seeds",),
    catalogues: MetaData | Sequence[MetaData] = (),
    database: Database | None = None,
    dry_run: bool = False,
    report: Callable[[str], None] = logger.info,
) -> list[SeedResult]:
    """
    Run the seeds of an environment in their order, and return what became of each.

    All of them are found and checked before the first one runs. One that fails is rolled back;
    those before it stay, and the next run finds them done. The answer begins with those that are
    not for the environment.

    Args:
        environment: Where this is, as ``dev``. In ``production`` (``prod``, ``live``) only seeds
            run that name it.
        seeds: Folders, files, names of modules; or seeds.
        catalogues: The tables that data files may name, as ``Base.metadata``.
        database: Where rows are written; that of the process if left out.
        dry_run: Run all of them in one unit of work, and roll it back. What only COMMIT checks
            is not checked then.
        report: Called with a sentence before and after each seed.

    Raises:
        SeedError: A seed is wrong, and nothing was written; or none is for production.
        DatabaseError: The database refused something.
    """
    found = [one for one in seeds if isinstance(one, Seed)]
    places = [one for one in seeds if not isinstance(one, Seed)]
    found.extend(find_seeds(places, catalogues))
    found.sort(key=lambda one: (one.order, one.name))
    chosen = [one for one in found if one.is_for(environment)]
    if is_production(environment) and found and not chosen:
        raise SeedError(
            f"none of {len(found)} seeds names {environment!r}, and others do not run there",
            hint=f"say so in those that belong there: environments=[{environment!r}]",
        )
    used = database if database is not None else get_database()
    results: list[SeedResult] = []
    for one in found:
        if one not in chosen:
            report(f"{one.name}: not for {environment}")
            results.append(SeedResult(one.name, "skipped"))
    async with _sessions(used, dry_run) as session_of_one:
        for number, one in enumerate(chosen, 1):
            report(f"{one.name}: running ({number} of {len(chosen)})")
            try:
                async with session_of_one() as session:
                    tally = await _run(one, session)
            except Exception:
                kept = 0 if dry_run else number - 1
                report(f"{one.name}: failed and rolled back; {kept} before it stay")
                raise
            state: Literal["committed", "rolled back"] = "rolled back" if dry_run else "committed"
            results.append(SeedResult(one.name, state, **vars(tally)))
            report(f"{one.name}: {tally}{', rolled back' if dry_run else ''}")
    return results


@asynccontextmanager
async def _sessions(database: Database, dry_run: bool) -> AsyncIterator[Any]:
    """Yield what gives each seed its session; those of a dry run share a unit, and see another."""
    connector = database.connector
    asks = isinstance(connector, BindsIdentities) and connector.requires_identity()
    identity = ADMIN if asks else None
    if not dry_run:
        yield lambda: database.unit_of_work(identity=identity)
        return
    try:
        async with database.unit_of_work(identity=identity) as session:

            @asynccontextmanager
            async def shared() -> AsyncIterator[AsyncSession]:
                yield session
                await session.flush()
                session.expunge_all()

            yield shared
            raise _RolledBack
    except _RolledBack:
        pass


async def _run(seed: Seed, session: AsyncSession) -> Tally:
    tally = tally_of(session)
    vars(tally).update(vars(Tally()))
    with _counted(session, tally):
        await seed.run(session)
        await session.flush()
    return tally


@contextmanager
def _counted(session: AsyncSession, tally: Tally) -> Iterator[None]:
    """Count the objects that the session writes."""

    def count(sync_session: Any, _context: object) -> None:
        tally.inserted += len(sync_session.new)
        tally.deleted += len(sync_session.deleted)
        tally.updated += sum(1 for one in sync_session.dirty if sync_session.is_modified(one))

    event.listen(session.sync_session, "after_flush", count)
    try:
        yield
    finally:
        event.remove(session.sync_session, "after_flush", count)
