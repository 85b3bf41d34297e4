"""What is written through one backend means the same when it is read through another."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, DateTime, MetaData, Table, delete, insert, select

from moorage import Database, DatabaseSettings
from tests.fix_backend import Servers, new_database
from tests.fix_scale import Scale
from tests.matrix.every_type import Base, Boat, Flag, Rig

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
# The years that every backend has; MySQL begins with the year 1000.
MOMENTS = st.datetimes(
    dt.datetime(1000, 1, 2),  # noqa: DTZ001 (the zone is chosen apart)
    dt.datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=ZONES,
)
ROWS = st.fixed_dictionaries(
    {
        "name": st.uuids().map(str),
        "crew_size": st.integers(-(2**31), 2**31 - 1),
        "displacement": st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
        "price": st.decimals(-(10**9) + 1, 10**9 - 1, places=6),
        "length": st.decimals(-(10**7) + 1, 10**7 - 1, places=2),
        "is_afloat": st.booleans(),
        "launched_on": st.dates(dt.date(1000, 1, 1)),
        "launched_at": MOMENTS,
        "high_water": st.times(),
        "longest_trip": st.timedeltas(dt.timedelta(days=-100_000_000), dt.timedelta(days=10**8)),
        "hull_id": st.uuids(),
        "rig": st.sampled_from(Rig),
        "flag": st.sampled_from(Flag),
        "papers": st.dictionaries(TEXT, JSON_VALUES, max_size=3),
        "ports": st.lists(TEXT, max_size=3),
        "picture": st.binary(max_size=50),
        "serial": st.integers(-(2**63), 2**63 - 1),
        "remarks": st.none() | TEXT,
        "sunk_at": st.none() | MOMENTS,
    }
)


@pytest.fixture(scope="module")
def places(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Return the settings of an empty database of each backend."""
    folder: Path = tmp_path_factory.mktemp("values")
    with ExitStack() as stack:
        yield [
            stack.enter_context(new_database(backend, servers, folder))
            for backend in ("sqlite", "postgres", "mysql")
        ]


@pytest.mark.scaled
def test_values_agree(places: list[Any], scale: Scale) -> None:
    """Any row is read from every backend as it was written, moments to the microsecond."""
    with asyncio.Runner() as runner:
        databases = [Database(DatabaseSettings(**place, _env_file=None)) for place in places]

        async def create() -> None:
            for database in databases:
                async with database.engine.begin() as connection:
                    await connection.run_sync(Base.metadata.create_all)

        async def pass_through(database: Database, rows: list[dict[str, Any]]) -> list[Any]:
            async with database.unit_of_work() as session:
                await session.execute(delete(Boat))
                session.add_all(Boat(id=uuid.UUID(int=at), **row) for at, row in enumerate(rows))
            async with database.session() as session:
                boats = await session.scalars(select(Boat).order_by(Boat.id))
                return [{name: getattr(boat, name) for name in rows[0]} for boat in boats]

        @settings(
            max_examples=scale(small=15, full=200),
            deadline=None,
            database=None,
            phases=[Phase.generate],  # each example is many round trips: no time to shrink one
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(ROWS, min_size=1, max_size=8, unique_by=lambda row: row["name"]))
        def agree(rows: list[dict[str, Any]]) -> None:
            for database in databases:
                for read, row in zip(runner.run(pass_through(database, rows)), rows, strict=True):
                    assert read == row, database

        try:
            runner.run(create())
            agree()
        finally:
            for database in databases:
                runner.run(database.dispose())


async def test_the_plain_types_do_not_agree(places: list[Any]) -> None:
    """Negative control: SQLAlchemy's own type of a moment loses its zone on some backends."""
    moment = dt.datetime(2026, 5, 1, 14, 0, 0, 5, dt.timezone(dt.timedelta(hours=2)))
    table = Table("plain", MetaData(), Column("at", DateTime(timezone=True)))
    agreed = []
    for place in places:
        async with (
            Database(DatabaseSettings(**place, _env_file=None)) as database,
            database.engine.begin() as connection,
        ):
            await connection.run_sync(table.create)
            await connection.execute(insert(table).values(at=moment))
            read = (await connection.scalars(select(table.c.at))).one()
            agreed.append(read.tzinfo is not None and read == moment)
    assert agreed == [False, True, False]
