"""What `moorage.models` promises, on every backend."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import String, Table, event, inspect, select, text, update
from sqlalchemy import exc as sa_exc
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import Field, SQLModel

from moorage import (
    CheckViolationError,
    Database,
    DataError,
    ForeignKeyViolationError,
    UniqueViolationError,
    models,
)
from tests.matrix.every_type import Base, Boat, Flag, Rig, Trip, a_boat
from tests.matrix.schema import Account, create_tables


class Buoy(SQLModel, table=True):
    """A class of SQLModel, with a moment of ours."""

    __tablename__ = "buoys"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    seen_at: dt.datetime = Field(sa_type=models.UTCDateTime)


PLUS_TWO = dt.timezone(dt.timedelta(hours=2))
MINUS_TWO = dt.timezone(dt.timedelta(hours=-2))


async def create(database: Database) -> None:
    """Create the tables."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect what is executed on a database."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "after_cursor_execute", note)
    yield seen
    event.remove(engine, "after_cursor_execute", note)


async def test_every_type_comes_back_as_it_was_written(database: Database) -> None:
    """A value of each type is read as it was written, by type and by value."""
    await create(database)
    async with database.unit_of_work() as session:
        session.add(a_boat())
    async with database.session() as session:
        boat = (await session.scalars(select(Boat))).one()
    written = a_boat()
    written.papers["fee"] = "0.10"
    for column in inspect(Boat).column_attrs:
        if column.key in {"id", "created_at", "updated_at"}:
            continue
        value, expected = getattr(boat, column.key), getattr(written, column.key)
        assert value == expected, column.key
        assert isinstance(value, type(expected)), column.key
    assert boat.launched_at.tzinfo is dt.UTC


async def test_nothing_is_loaded_again_after_a_flush(database: Database) -> None:
    """Keys and times are known after a flush, and reading them executes nothing."""
    await create(database)
    async with database.unit_of_work() as session:
        boat = a_boat()
        session.add(boat)
        await session.flush()
        with statements(database) as seen:
            assert boat.id.version == 7
            created = boat.created_at
            assert boat.updated_at == created
            assert created.tzinfo is dt.UTC
            trip = Trip(boat_id=boat.id, number=1)
            session.add(trip)
            await session.flush()
            assert trip.id == 1
            boat.name = "Gjøa"
            await session.flush()
            assert boat.created_at == created
            assert boat.updated_at >= created
    assert [statement.split()[0] for statement in seen] == ["INSERT", "UPDATE"]
    async with database.session() as session:
        stored = (await session.scalars(select(Boat))).one()
        assert (stored.created_at, stored.updated_at) == (boat.created_at, boat.updated_at)


async def test_many_rows_with_uuid_keys_go_in_one_statement(database: Database) -> None:
    """
    Keys that the application makes cost no statement per row, and are in order.

    But for MySQL, which returns nothing of what it inserts: the times would be asked for by row.
    """
    await create(database)
    with statements(database) as seen:
        async with database.unit_of_work() as session:
            boats = [a_boat(name=f"boat {number}") for number in range(50)]
            session.add_all(boats)
    inserts = [statement for statement in seen if statement.startswith("INSERT")]
    assert len(inserts) == (1 if database.engine.dialect.insert_returning else len(boats))
    assert [boat.id for boat in boats] == sorted(boat.id for boat in boats)


async def test_update_statements_set_the_time(database: Database) -> None:
    """An UPDATE that loads no object moves `updated_at` as well."""
    await create(database)
    async with database.unit_of_work() as session:
        session.add(a_boat())
    async with database.unit_of_work() as session:
        before = (await session.scalars(select(Boat.updated_at))).one()
        await session.execute(update(Boat).values(crew_size=1))
        assert (await session.scalars(select(Boat.updated_at))).one() > before


async def test_plain_sql_gets_the_time_of_the_server(database: Database) -> None:
    """A row that is inserted without SQLAlchemy's models has its times, and a key if it counts."""
    await create(database)
    async with database.unit_of_work() as session:
        boat = a_boat()
        session.add(boat)
        await session.flush()
        key = boat.id.hex
        await session.execute(
            text("INSERT INTO trips (boat_id, number) VALUES (:id, 1)"), {"id": key}
        )
        trip = (await session.scalars(select(Trip))).one()
        server = (await session.scalars(select(models.server_time()))).one()
    assert trip.boat_id == boat.id
    assert abs(trip.created_at - models.utc_now()) < dt.timedelta(hours=1)
    assert abs(server - models.utc_now()) < dt.timedelta(hours=1)


NAIVE = dt.datetime(2026, 1, 1)  # noqa: DTZ001 (what is to be refused)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"launched_at": NAIVE}, "a datetime with a time zone was expected, not one without"),
    ({"launched_at": dt.datetime.max.replace(tzinfo=MINUS_TWO)}, "9999"),
    ({"launched_at": dt.date(2026, 1, 1)}, "a datetime with a time zone was expected, not a date"),
    ({"high_water": dt.time(1, tzinfo=dt.UTC)}, "a time of day with a time zone"),
    ({"price": Decimal("0.1234567")}, "more digits than the column keeps: 18, of which 6"),
    ({"price": Decimal(10) ** 12}, "more digits than the column keeps"),
    ({"price": Decimal("NaN")}, "NaN is no number to store"),
    ({"price": 0.1}, "a Decimal was expected, not a float"),
    ({"papers": 5}, "a dict or a list was expected, not a int"),
    ({"papers": {"x": float("nan")}}, "the number nan"),
    ({"papers": {"x": 2**64}}, "an integer beyond 64 bits"),
    ({"papers": {1: "x"}}, "a key that is a int"),
    ({"papers": {"x": ["a\0"]}}, "the character NUL"),
    ({"papers": {"\ud800": 1}}, "no valid Unicode"),
    ({"papers": {"x": object()}}, "has a object"),
    ({"papers": {"x": NAIVE}}, "a datetime without a time zone"),
]


async def test_what_would_be_changed_is_refused(database: Database) -> None:
    """A value that some backend would change or refuse is refused with our error on all."""
    await create(database)
    for values, fault in REFUSED:
        with pytest.raises(DataError, match=fault) as caught:
            async with database.unit_of_work() as session:
                session.add(a_boat(**values))
        assert caught.value.hint
        assert isinstance(caught.value, sa_exc.StatementError)


async def test_moments_are_compared_by_the_database(database: Database) -> None:
    """A moment in another zone finds the row, and rows are ordered by their moments."""
    await create(database)
    noon = dt.datetime(2026, 5, 1, 12, 0, 0, 1, dt.UTC)
    async with database.unit_of_work() as session:
        session.add_all(
            a_boat(name=str(step), launched_at=noon + step * dt.timedelta(microseconds=1))
            for step in (1, -1, 0)
        )
    async with database.session() as session:
        found = await session.scalars(
            select(Boat.name).where(Boat.launched_at == noon.astimezone(PLUS_TWO))
        )
        assert found.all() == ["0"]
        ordered = await session.scalars(select(Boat.name).order_by(Boat.launched_at))
        assert ordered.all() == ["-1", "0", "1"]


async def test_enums_and_decimals_are_compared_by_the_database(database: Database) -> None:
    """Enums are stored by their values; decimals are equal to what was written, and ordered."""
    await create(database)
    async with database.unit_of_work() as session:
        session.add_all(
            a_boat(name=name, price=Decimal(price))
            for name, price in (("a", "10.1"), ("b", "9.3"), ("c", "-0.7"))
        )
    async with database.session() as session:
        assert (await session.execute(text("SELECT DISTINCT rig, flag FROM boats"))).one() == (
            Rig.SCHOONER.value,
            Flag.NO.value,
        )
        equal = await session.scalars(select(Boat.name).where(Boat.price == Decimal("10.1")))
        assert equal.all() == ["a"]
        ordered = await session.scalars(select(Boat.name).order_by(Boat.price))
        assert ordered.all() == ["c", "b", "a"]


async def test_names_of_constraints_are_the_same_everywhere(database: Database) -> None:
    """The database has the constraints under the names of the convention."""
    await create(database)

    def names(connection: Any) -> dict[str, set[str | None]]:
        inspector = inspect(connection)
        return {
            "unique": {item["name"] for item in inspector.get_unique_constraints("trips")},
            "foreign": {item["name"] for item in inspector.get_foreign_keys("trips")},
            "check": {
                item["name"]
                for item in inspector.get_check_constraints("trips")
                if item["name"] == "ck_trips_positive"
            },
            "index": {
                item["name"]
                for item in inspector.get_indexes("trips")
                if item["name"] == "ix_trips_number_miles"
            },
        }

    async with database.engine.connect() as connection:
        assert await connection.run_sync(names) == {
            "unique": {"uq_trips_boat_id_number"},
            "foreign": {"fk_trips_boat_id_boats"},
            "check": {"ck_trips_positive"},
            "index": {"ix_trips_number_miles"},
        }


async def test_errors_name_the_constraint(database: Database) -> None:
    """Where the backend tells which constraint was broken, it is the name of the convention."""
    await create(database)
    async with database.unit_of_work() as session:
        boat = a_boat()
        session.add(boat)
        await session.flush()
        session.add(Trip(boat_id=boat.id, number=1))
    cases: list[tuple[Callable[[], object], type[Any], str]] = [
        (
            lambda: Trip(boat_id=boat.id, number=1),
            UniqueViolationError,
            "uq_trips_boat_id_number",
        ),
        (lambda: Trip(boat_id=boat.id, number=0), CheckViolationError, "ck_trips_positive"),
        (
            lambda: Trip(boat_id=uuid.uuid4(), number=2),
            ForeignKeyViolationError,
            "fk_trips_boat_id_boats",
        ),
    ]
    for make, error, name in cases:
        with pytest.raises(error) as caught:
            async with database.unit_of_work() as session:
                session.add(make())
        assert caught.value.constraint in {name, None}


async def test_a_long_name_is_cut_alike(database: Database) -> None:
    """A name that is too long for some backend is the same on all, and is in the database."""

    class LongBase(models.Conventions, DeclarativeBase):
        pass

    class Long(models.IntegerKey, LongBase):
        __tablename__ = "a_table_whose_name_takes_nearly_all_the_room_there_is"
        a_column_of_some_length: Mapped[str] = mapped_column(String(20), index=True)

    table = Long.__table__
    assert isinstance(table, Table)
    async with database.engine.begin() as connection:
        await connection.run_sync(LongBase.metadata.create_all)
        indexes = await connection.run_sync(
            lambda sync: inspect(sync).get_indexes(Long.__tablename__)
        )
    assert [index["name"] for index in indexes] == [
        "ix_a_table_whose_name_takes_nearly_all_the_room_there__ccde81a6"
    ]


async def test_a_stranger_s_base_works(database: Database) -> None:
    """A base of one's own needs nothing of moorage's models."""
    await create_tables(database)
    async with database.unit_of_work() as session:
        session.add(Account(owner="ada"))
    async with database.session() as session:
        assert (await session.scalars(select(Account.owner))).all() == ["ada"]


async def test_sqlmodel_works(database: Database) -> None:
    """Classes of SQLModel are stored and read by units and sessions of moorage."""
    seen = dt.datetime(2026, 5, 1, 14, 0, 0, 5, PLUS_TWO)
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with database.unit_of_work() as session:
        session.add(Buoy(name="spar", seen_at=seen))
    async with database.session() as session:
        buoy = (await session.scalars(select(Buoy))).one()
    assert (buoy.name, buoy.seen_at, buoy.id) == ("spar", seen, 1)
