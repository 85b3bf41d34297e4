"""What `moorage.models` does before any database is there."""

import datetime as dt
import enum
import os
import threading
import time
import uuid
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import SettingsError, models
from moorage.models import keys


def test_uuids_are_in_order_and_of_version_7() -> None:
    """What one process makes is strictly ascending and carries the time."""
    before = time.time_ns() // 1_000_000
    made = [models.uuid7() for _ in range(5_000)]
    after = time.time_ns() // 1_000_000
    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert before <= made[0].int >> 80 <= made[-1].int >> 80 <= after + 1


def test_uuids_stay_in_order_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back makes no key that sorts before an older one."""
    first = keys._uuid7()
    monkeypatch.setattr(keys.time, "time_ns", lambda: 1_000_000_000)
    assert first < keys._uuid7() < keys._uuid7()


def test_a_full_counter_borrows_from_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the counter of a millisecond is used up, the next millisecond begins early."""
    monkeypatch.setattr(keys.time, "time_ns", lambda: 7_000_000)
    monkeypatch.setattr(keys, "_uuid7_last", (7, 2**42 - 1))
    made = keys._uuid7()
    assert (made.int >> 80, made.version, made.variant) == (8, 7, uuid.RFC_4122)


def test_threads_make_different_uuids() -> None:
    """Threads that make keys at once make no key twice."""
    made: list[uuid.UUID] = []
    threads = [
        threading.Thread(target=lambda: made.extend([keys._uuid7() for _ in range(1_000)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_a_forked_child_makes_other_uuids() -> None:
    """A child that was forked in the middle of a millisecond makes keys of its own."""
    keys._uuid7()
    end, begin = os.pipe()
    if (child := os.fork()) == 0:
        os.write(begin, keys._uuid7().bytes)
        os._exit(0)
    mine = keys._uuid7()
    os.waitpid(child, 0)
    theirs = uuid.UUID(bytes=os.read(end, 16))
    os.close(end)
    os.close(begin)
    assert mine != theirs


def test_names_of_constraints() -> None:
    """Each kind of constraint gets its name, with a column or without one."""
    metadata = MetaData(naming_convention=models.NAMING_CONVENTION)
    Table("harbours", metadata, Column("a", Integer), Column("b", Integer), schema="north")
    table = Table(
        "boats",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("a", Integer, index=True, unique=True),
        Column("b", Integer, unique=True),
        UniqueConstraint("a", "b"),
        UniqueConstraint("b", name="given"),
        CheckConstraint("a > 0", name="positive"),
        CheckConstraint("b > 0"),
        ForeignKeyConstraint(["a", "b"], ["north.harbours.a", "north.harbours.b"]),
    )
    Index(None, func.abs(table.c.a))
    names = {constraint.name for constraint in table.constraints}
    assert names == {
        "pk_boats",
        "uq_boats_b",
        "uq_boats_a_b",
        "given",
        "ck_boats_positive",
        "ck_boats_8d53f886",
        "fk_boats_a_b_harbours",
    }
    assert {index.name for index in table.indexes} == {"ix_boats_a", "ix_boats_a_933326d3"}


def test_names_are_deterministic_and_not_too_long() -> None:
    """Long names are cut to what every backend takes, by their whole text."""
    metadata = MetaData(naming_convention=models.NAMING_CONVENTION)
    columns = [Column(f"column_number_{number}", Integer) for number in range(9)]
    table = Table("boats", metadata, *columns)
    for last in (7, 8):
        table.append_constraint(UniqueConstraint(*columns[:6], columns[last]))
    names = [str(one.name) for one in table.constraints if isinstance(one, UniqueConstraint)]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {63}
    assert {name[:54] for name in names} == {names[0][:54]}


def test_a_check_of_a_column_becomes_one_of_its_table() -> None:
    """A check that was written with a column is found where migrations look for it."""

    class Base(models.Conventions, DeclarativeBase):
        pass

    class Boat(models.IntegerKey, Base):
        __tablename__ = "boats"
        masts: Mapped[int] = mapped_column(CheckConstraint("masts > 0", name="positive"))

    table = Boat.__table__
    assert isinstance(table, Table)
    assert "ck_boats_positive" in {constraint.name for constraint in table.constraints}
    assert not table.c.masts.constraints


def test_an_enum_of_numbers_is_refused() -> None:
    """An enum whose values are no strings says how to store it."""

    class Masts(enum.Enum):
        ONE = 1

    with pytest.raises(SettingsError, match="Masts cannot be stored by value: 1 is no string"):

        class Sloop(models.IntegerKey, models.Base):
            __tablename__ = "sloops"
            masts: Mapped[Masts]


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (models.Duration(), dt.timedelta(days=-1, microseconds=1), -86_399_999_999),
        (models.Duration(), None, None),
        (models.UTCDateTime(), None, None),
        (models.ExactDecimal(), None, None),
        (models.JSONDocument(), None, None),
        (models.JSONDocument(), (1, [2]), [1, [2]]),
        (models.JSONDocument(), {"a": uuid.UUID(int=1)}, {"a": str(uuid.UUID(int=1))}),
        (models.JSONDocument(), {"a": dt.date(2026, 1, 1)}, {"a": "2026-01-01"}),
        (models.JSONDocument(), {"a": enum.StrEnum("E", "x").x}, {"a": "x"}),
    ],
)
def test_what_goes_to_the_driver(kind: Any, value: Any, stored: Any) -> None:
    """Values become what every driver understands; a missing value stays one."""
    assert kind.process_bind_param(value, None) == stored
