"""
Seeds: the rows that a database begins with, written again as often as one likes.

A seed is a coroutine function, or a YAML file (extra ``seeds``), in the folder ``seeds`` of the
project::

    from moorage.seeding import seed, upsert

    @seed(order=10, environments=["dev", "test"])
    async def boats(session):
        await upsert(session, Boat, [{"name": "Fram", "crew_size": 16}], key=["name"])

``moorage db seed --env dev`` runs them, and so does :func:`run_seeds`.
"""

from __future__ import annotations

from moorage.seeding.declaring import Seed, SeedFunction, find_seeds, is_production, seed
from moorage.seeding.running import SeedResult, run_seeds
from moorage.seeding.upserting import Existing, Tally, upsert

__all__ = [
    "Existing",
    "Seed",
    "SeedFunction",
    "SeedResult",
    "Tally",
    "find_seeds",
    "is_production",
    "run_seeds",
    "seed",
    "upsert",
]
