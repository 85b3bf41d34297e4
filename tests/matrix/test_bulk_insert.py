"""Many rows at once: the same rows and the same errors as one by one, only sooner."""

import asyncio
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
    delete,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import (
    BulkInsertError,
    CheckViolationError,
    Database,
    DatabaseError,
    DataError,
    ForeignKeyViolationError,
    NotNullViolationError,
    ReadOnlyError,
    SessionSharedError,
    UniqueViolationError,
    UnitOfWork,
    bulk_insert,
    uncommitted_changes,
)
from tests.fix_database import DatabaseFactory


class Base(DeclarativeBase):
    """Base of the models of this file."""


class Colour(enum.Enum):
    """Something that is stored by its name."""

    RED = "r"
    GREEN = "g"


class Upper(TypeDecorator[str]):
    """Text that is stored in capitals."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        """Make capitals."""
        return None if value is None else value.upper()


class Wrapped(TypeDecorator[str]):
    """Text that the database changes on its way in, so that only SQL can store it."""

    impl = String(40)
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        """Put a function around the value."""
        return func.lower(bindvalue)


class Port(Base):
    """Where ships belong."""

    __tablename__ = "bulk_port"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Ship(Base):
    """A ship, with every kind of constraint and default."""

    __tablename__ = "bulk_ship"
    __table_args__ = (CheckConstraint("masts < 10", name="ck_bulk_ship_masts"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("ship_name", String(40), unique=True)
    masts: Mapped[int] = mapped_column(default=3)
    port_id: Mapped[int | None] = mapped_column(ForeignKey("bulk_port.id"))
    code: Mapped[str] = mapped_column(
        String(40), default=lambda context: context.get_current_parameters()["ship_name"] + "!"
    )
    flag: Mapped[str] = mapped_column(String(10), server_default="none")
    motto: Mapped[str | None] = mapped_column(Wrapped(), deferred=False)


class Sample(Base):
    """One column of each type."""

    __tablename__ = "bulk_sample"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    big: Mapped[int | None] = mapped_column(BigInteger())
    small: Mapped[int | None]
    real: Mapped[float | None] = mapped_column(Float(53))
    decimal: Mapped[Decimal | None] = mapped_column(Numeric(12, 4))
    words: Mapped[str | None] = mapped_column(String(80))
    upper: Mapped[str | None] = mapped_column(Upper())
    raw: Mapped[bytes | None] = mapped_column(LargeBinary())
    yes: Mapped[bool | None]
    day: Mapped[dt.date | None] = mapped_column(Date())
    hour: Mapped[dt.time | None] = mapped_column(Time())
    moment: Mapped[dt.datetime | None] = mapped_column(DateTime())
    aware: Mapped[dt.datetime | None] = mapped_column(DateTime(timezone=True))
    key: Mapped[uuid.UUID | None] = mapped_column(Uuid())
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour))
    json: Mapped[Any] = mapped_column(JSON(), nullable=True)


class Vehicle(Base):
    """The base of an inheritance, which is more than its columns."""

    __tablename__ = "bulk_vehicle"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class Car(Vehicle):
    """A class with a table of its own beside that of its base."""

    __tablename__ = "bulk_car"
    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("bulk_vehicle.id"), primary_key=True)
    wheels: Mapped[int]


@dataclasses.dataclass
class ShipData:
    """A row as a dataclass."""

    name: str
    masts: int


class ShipTuple(NamedTuple):
    """A row as a named tuple."""

    name: str
    masts: int


# What the backends can all store; PostgreSQL has no NUL in text, JSON keeps to strings.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
# Whole seconds: MariaDB's DATETIME keeps no more unless it is asked to.
SECONDS = st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2035, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "big": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-(2**31), 2**31 - 1),
    "real": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "decimal": st.decimals(-(10**7), 10**7, places=4, allow_nan=False),
    "words": WORDS,
    "upper": st.text("abcdé", max_size=10),
    "raw": st.binary(max_size=40),
    "yes": st.booleans(),
    "day": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    "hour": st.times().map(lambda time: time.replace(microsecond=0)),
    "moment": SECONDS,
    "aware": SECONDS.map(lambda moment: moment.replace(tzinfo=dt.UTC)),
    "key": st.uuids(version=4),
    "colour": st.sampled_from(Colour),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers(-1000, 1000) | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=5,
    ),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {}, optional={name: st.none() | values for name, values in VALUES.items()}
    ),
    max_size=12,
)


@pytest.fixture(autouse=True)
async def tables(database: Database) -> None:
    """Create the tables."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


def ships(count: int, begin: int = 0) -> list[dict[str, Any]]:
    """Return rows of ships."""
    return [{"name": f"ship {number}", "masts": 2} for number in range(begin, begin + count)]


async def names(database: Database) -> list[str]:
    """Return the names of what is stored."""
    async with database.session() as session:
        return list((await session.scalars(select(Ship.name).order_by(Ship.id))).all())


async def stored(session: AsyncSession) -> list[tuple[Any, ...]]:
    """Return all samples."""
    columns = Sample.__table__.columns
    return [tuple(row) for row in await session.execute(select(*columns).order_by(Sample.id))]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, chunk_rows=st.integers(1, 5))
async def test_what_is_stored_is_what_insert_stores(
    database: Database, rows: list[dict[str, Any]], chunk_rows: int
) -> None:
    """Rows of every type, with and without each value, come out as INSERT would have them."""
    rows = [{"id": number, **row} for number, row in enumerate(rows)]
    seen = []
    for fast in (True, False):
        async with database.unit_of_work() as session:
            await session.execute(delete(Sample))
            if fast:
                await bulk_insert(session, Sample, rows, chunk_rows=chunk_rows)
            else:
                for row in rows:
                    await session.execute(insert(Sample), [row])
        async with database.session() as session:
            seen.append(await stored(session))
    assert seen[0] == seen[1]


async def gives(rows: list[Any]) -> AsyncIterator[Any]:
    """Give rows one by one, asynchronously."""
    for row in rows:
        await asyncio.sleep(0)
        yield row


@pytest.mark.parametrize("kind", ["dicts", "iterator", "async", "dataclasses", "tuples", "models"])
async def test_rows_may_be_anything(database: Database, kind: str) -> None:
    """Rows come from lists and iterators of dicts, dataclasses, named tuples and objects."""
    rows: list[Any] = ships(5)
    if kind == "dataclasses":
        rows = [ShipData(**row) for row in rows]
    elif kind == "tuples":
        rows = [ShipTuple(**row) for row in rows]
    elif kind == "models":
        rows = [Ship(**row) for row in rows]
    given: Any = {"iterator": iter, "async": gives}.get(kind, list)(rows)
    async with database.unit_of_work() as session:
        assert await bulk_insert(session, Ship, given, chunk_rows=2) == 5
        assert not session.new
    assert await names(database) == [f"ship {number}" for number in range(5)]


async def test_sequences_with_columns(database: Database) -> None:
    """Plain sequences are rows when it is said what is in them; a table will do for a model."""
    async with database.unit_of_work() as session:
        await bulk_insert(session, Ship, [("Fram", 3), ["Gjøa", 1]], columns=("name", "masts"))
        table = Ship.__table__
        await bulk_insert(session, table, [{"ship_name": "Vega", "masts": 3}])  # type: ignore[arg-type]  # it is a Table
        with pytest.raises(BulkInsertError, match="has 1 values, and columns= names 2"):
            await bulk_insert(session, Ship, [("Maud",)], columns=("name", "masts"))
    assert await names(database) == ["Fram", "Gjøa", "Vega"]


async def test_defaults_are_filled_in(database: Database) -> None:
    """Defaults of Python, also those that look at the row, and of the database are filled in."""
    async with database.unit_of_work() as session:
        await bulk_insert(session, Ship, [{"name": "Fram"}, {"name": "Gjøa", "motto": "ON"}])
    async with database.session() as session:
        fram, gjoa = (await session.scalars(select(Ship).order_by(Ship.id))).all()
    assert (fram.masts, fram.code, fram.flag, fram.motto) == (3, "Fram!", "none", None)
    assert (gjoa.code, gjoa.motto) == ("Gjøa!", "on")


async def test_objects_are_read_as_the_session_would(database: Database) -> None:
    """A None of an object is what ``add_all`` makes of it: the default."""
    async with database.unit_of_work() as session:
        await bulk_insert(session, Ship, [Ship(name="Fram", masts=None)])
    async with database.session() as session:
        assert (await session.scalars(select(Ship.masts))).all() == [3]


async def test_classes_with_inheritance(database: Database) -> None:
    """A class with several tables is stored whole."""
    async with database.unit_of_work() as session:
        await bulk_insert(session, Car, [{"wheels": 3}, {"wheels": 4}])
    async with database.session() as session:
        cars = (await session.scalars(select(Vehicle).order_by(Vehicle.id))).all()
    assert [(car.kind, type(car)) for car in cars] == [("car", Car)] * 2


async def test_nothing_is_stored_without_the_unit(database: Database) -> None:
    """A bulk insert belongs to its transaction, from its first row on."""
    with pytest.raises(LookupError):
        async with database.unit_of_work() as session:
            await bulk_insert(session, Ship, ships(50), chunk_rows=10)
            raise LookupError
    assert await names(database) == []


async def test_the_session_knows_that_it_has_written(database: Database) -> None:
    """Rows that nobody commits are noticed, as are other writes."""
    async with database.session() as session:
        await bulk_insert(session, Ship, ships(5))
        assert uncommitted_changes(session) == "statements that write"


async def test_pending_parents_go_first(database: Database) -> None:
    """What was added to the session is there for rows that refer to it."""
    async with database.unit_of_work() as session:
        session.add(Port(id=7, name="Oslo"))
        await bulk_insert(session, Ship, [{"name": "Fram", "port_id": 7}])
    assert await names(database) == ["Fram"]


async def test_read_sessions_refuse_it(database: Database) -> None:
    """A bulk insert is a write that a read session refuses."""
    async with database.read_session() as session:
        with pytest.raises(ReadOnlyError):
            await bulk_insert(session, Ship, ships(5))
    assert await names(database) == []


async def test_two_tasks_are_noticed(database: Database) -> None:
    """A session that does a bulk insert belongs to that task."""
    async with database.unit_of_work() as session:

        async def rows() -> AsyncIterator[dict[str, Any]]:
            yield ships(1)[0]
            with pytest.raises(SessionSharedError):
                await asyncio.create_task(session.execute(select(Ship)))

        await bulk_insert(session, Ship, rows())
    assert await names(database) == ["ship 0"]


BAD: dict[str, tuple[type[DatabaseError], dict[str, Any]]] = {
    "unique": (UniqueViolationError, {"name": "ship 3", "masts": 1}),
    "null": (NotNullViolationError, {"name": None, "masts": 1, "code": ""}),
    "check": (CheckViolationError, {"name": "bad", "masts": 11}),
    "foreign key": (ForeignKeyViolationError, {"name": "bad", "masts": 1, "port_id": 99}),
}


@pytest.mark.parametrize("what", BAD)
async def test_errors_are_those_of_insert(database: Database, what: str) -> None:
    """A row that breaks a constraint raises what INSERT raises, and the error says where."""
    kind, bad = BAD[what]
    seen: list[DatabaseError] = []
    for fast in (True, False):
        with pytest.raises(kind) as caught:
            async with database.unit_of_work() as session:
                rows = [*ships(24), bad, *ships(5, 30)]
                if fast:
                    await bulk_insert(session, Ship, rows, chunk_rows=10)
                else:
                    await session.execute(insert(Ship), rows[:24])
                    await session.execute(insert(Ship), [bad])
        seen.append(caught.value)
    fast_error, slow_error = seen
    for name in ("constraint", "table", "columns"):
        assert getattr(fast_error, name) == getattr(slow_error, name)
    if what != "null":  # of a column left out MariaDB says that it has no default
        assert fast_error.backend_code == slow_error.backend_code
        assert type(fast_error).__mro__ == type(slow_error).__mro__
    assert "chunk 3)" in str(fast_error.args[0])
    assert await names(database) == []


async def test_values_that_do_not_fit(database: Database, backend: str) -> None:
    """A value of a wrong type or size is an error of the data, as it is for INSERT."""
    if backend == "sqlite":
        pytest.skip("it stores what it gets")
    for column, value in (("masts", 2**40), ("name", "x" * 41)):
        row = {"name": "Fram", "masts": 1, column: value}
        with pytest.raises(DataError):
            async with database.unit_of_work() as session:
                await bulk_insert(session, Ship, [*ships(3), row])
    assert await names(database) == []


async def test_conflicts_are_skipped_or_update(database: Database) -> None:
    """Rows whose key is there are left out, or overwrite what is there."""
    async with database.unit_of_work() as session:
        await bulk_insert(session, Port, [{"id": n, "name": "old"} for n in (1, 2)])
        rows = [{"id": n, "name": "new"} for n in (2, 3)]
        await bulk_insert(session, Port, rows, on_conflict="skip")
        question = select(Port.name).order_by(Port.id).execution_options(populate_existing=True)
        assert (await session.scalars(question)).all() == ["old", "old", "new"]
        await bulk_insert(session, Port, rows, on_conflict="update", chunk_rows=1)
        assert (await session.scalars(question)).all() == ["old", "new", "new"]
        await bulk_insert(session, Ship, ships(2))
        more = [{"name": "ship 1", "masts": 5}, {"name": "ship 2", "masts": 5}]
        await bulk_insert(session, Ship, more, on_conflict="update", key=("name",))
        masts = await session.scalars(select(Ship.masts).order_by(Ship.name))
        assert masts.all() == [2, 5, 5]


async def test_skipping_hides_no_other_error(database: Database) -> None:
    """Only conflicts of keys are skipped: other constraints still hold."""
    with pytest.raises(CheckViolationError):
        async with database.unit_of_work() as session:
            rows = [{"name": "bad", "masts": 11}]
            await bulk_insert(session, Ship, rows, on_conflict="skip", key=("name",))
    assert await names(database) == []


async def test_what_cannot_be_inserted_is_said(database: Database) -> None:
    """Unknown columns, unknown kinds of rows and impossible wishes are named."""
    async with database.unit_of_work() as session:
        with pytest.raises(BulkInsertError, match=r"'sails'.*no column of 'bulk_ship'"):
            await bulk_insert(session, Ship, [{"name": "Fram", "sails": 3}])
        with pytest.raises(BulkInsertError, match="type 'int'"):
            await bulk_insert(session, Ship, [7])
        with pytest.raises(BulkInsertError, match="neither a mapped class nor a table"):
            await bulk_insert(session, int, [])
        with pytest.raises(BulkInsertError, match="chunk_rows is 0"):
            await bulk_insert(session, Ship, [], chunk_rows=0)
        with pytest.raises(BulkInsertError, match="on_conflict='skip' is not possible"):
            await bulk_insert(session, Car, [{"wheels": 3}], on_conflict="skip")


async def test_memory_is_bounded_and_progress_told(database: Database) -> None:
    """Rows are taken a chunk at a time, and after each one the number so far is told."""
    taken, told, ahead = 0, [], []

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in ships(95):
            taken += 1
            yield row

    def progress(done: int) -> None:
        told.append(done)
        ahead.append(taken - done)

    async with database.unit_of_work() as session:
        count = await bulk_insert(session, Ship, rows(), chunk_rows=20, progress=progress)
    assert count == 95
    assert told == [20, 40, 60, 80, 95]
    assert max(ahead) == 0


async def test_a_cancelled_bulk_insert_leaves_nothing(make_database: DatabaseFactory) -> None:
    """A bulk insert that is cancelled between or in its chunks is undone, connection and all."""
    database = make_database(pool_size=1, max_overflow=0)
    for steps in (0, 1, 3, 10, 30):
        begun, unit = asyncio.Event(), database.unit_of_work()

        async def work(begun: asyncio.Event = begun, unit: UnitOfWork = unit) -> None:
            async with unit as session:
                rows = ships(4000)
                await bulk_insert(
                    session, Ship, rows, chunk_rows=1000, progress=lambda _: begun.set()
                )

        task = asyncio.create_task(work())
        await begun.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if unit.outcome == "committed":  # it was done before, or its COMMIT was under way
            async with database.unit_of_work() as session:
                await session.execute(delete(Ship))
        assert database.pool_statistics().in_use == 0
        assert await names(database) == []


async def test_no_rows(database: Database) -> None:
    """Nothing is done for nothing."""
    async with database.unit_of_work() as session:
        assert await bulk_insert(session, Ship, []) == 0
        assert await session.scalar(select(literal(1))) == 1
