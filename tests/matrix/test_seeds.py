"""Seeds write the rows of their functions and files once, however often they run."""

import asyncio
import datetime as dt
import json
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from typer.testing import CliRunner

from moorage import Database, SeedError, UniqueViolationError
from moorage.cli import make_app
from moorage.seeding import Seed, SeedResult, find_seeds, run_seeds, seed, upsert
from tests.matrix.every_type import Base, Boat, Flag, Rig, Trip

BOATS = """
environments: [dev, test]
order: 5
tables:
  boats:
    key: name
    rows:
      - &fram
        name: Fram
        crew_size: 16
        displacement: 402.1
        price: 280000.10
        length: 38.9
        is_afloat: yes
        launched_on: 1892-10-26
        launched_at: 1892-10-26T12:59:59.999999+01:00
        high_water: 04:05:06
        longest_trip: P3DT4H
        hull_id: 01234567-89ab-cdef-0123-456789abcdef
        rig: two masts
        flag: norway
        papers: {owner: Nansen, fee: 0.5, ports: [NO]}
        ports: [Larvik]
        picture: !!binary AP8=
        serial: 0x10000000000
      - <<: *fram
        name: NO
        rig: SLOOP
        remarks: 1.10
  trips:
    key: [boat_id, number]
    rows:
      - {boat_id: {name: Fram}, number: 1, miles: 12.50}
      - {boat_id: {name: NO}, number: 1}
"""


@pytest.fixture
async def tables(database: Database) -> Database:
    """Return the test's database with the tables of the models."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for seeds."""
    made = tmp_path / "seeds"
    made.mkdir()
    return made


async def plant(database: Database, *places: Any, dry_run: bool = False) -> list[SeedResult]:
    """Run seeds as in development."""
    return await run_seeds(
        "dev", seeds=places, catalogues=Base.metadata, database=database, dry_run=dry_run
    )


async def content(database: Database) -> Any:
    """Return all rows of the boats."""
    async with database.read_session() as session:
        return (await session.execute(select(Boat.__table__).order_by(Boat.name))).all()


async def test_a_file_is_written_once(tables: Database, folder: Path) -> None:
    """Values of each type arrive as the columns take them; a second run executes no write."""
    (folder / "boats.yaml").write_text(BOATS)
    assert await plant(tables, folder) == [SeedResult("boats.yaml", "committed", inserted=4)]
    async with tables.read_session() as session:
        fram, other = await session.scalars(select(Boat).order_by(Boat.name))
        trips = (await session.scalars(select(Trip).order_by(Trip.miles))).all()
    assert (fram.price, fram.length) == (Decimal("280000.10"), Decimal("38.90"))
    assert fram.launched_at == dt.datetime(1892, 10, 26, 11, 59, 59, 999999, dt.UTC)
    assert (fram.high_water, fram.longest_trip) == (dt.time(4, 5, 6), dt.timedelta(days=3, hours=4))
    assert fram.hull_id == uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
    assert (fram.rig, other.rig, fram.flag) == (Rig.SCHOONER, Rig.SLOOP, Flag.NO)
    assert fram.papers == {"owner": "Nansen", "fee": 0.5, "ports": [False]}  # a document is YAML's
    assert (fram.picture, fram.serial, fram.is_afloat) == (b"\x00\xff", 2**40, True)
    assert (other.name, other.remarks, other.crew_size) == ("NO", "1.10", 16)
    assert {trip.boat_id for trip in trips} == {fram.id, other.id}
    before = await content(tables)

    statements = []
    engine = tables.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert await plant(tables, folder) == [SeedResult("boats.yaml", "committed", unchanged=4)]
    assert not [one for one in statements if one.startswith(("INSERT", "UPDATE"))]
    assert await content(tables) == before


async def test_the_naive_way_writes_each_time(tables: Database) -> None:
    """Negative control: an INSERT of the same row fails, and one more row is not an upsert."""

    async def naive(session: Any) -> None:
        session.add(Trip(boat_id=boat.id, number=1))

    async with tables.unit_of_work() as session:
        await upsert(session, Boat, [a_row("Fram")], key="name")
        boat = (await session.scalars(select(Boat))).one()
    assert (await plant(tables, Seed("naive", naive)))[0].inserted == 1
    with pytest.raises(UniqueViolationError):
        await plant(tables, Seed("naive", naive))


def a_row(name: str, **values: Any) -> dict[str, Any]:
    """Return a boat as a row."""
    usual = {
        "name": name,
        "crew_size": 16,
        "displacement": 1.5,
        "price": Decimal(1),
        "length": Decimal(2),
        "is_afloat": True,
        "launched_on": dt.date(1892, 10, 26),
        "launched_at": dt.datetime(1892, 10, 26, tzinfo=dt.UTC),
        "high_water": dt.time(4),
        "longest_trip": dt.timedelta(1),
        "hull_id": uuid.UUID(int=1),
        "rig": Rig.SLOOP,
        "flag": Flag.SE,
        "papers": {"fee": Decimal("0.10")},
        "ports": [],
        "picture": b"",
        "serial": 1,
    }
    return {**usual, **values}


async def test_replicas_that_seed_at_once_agree(tables: Database) -> None:
    """Whoever finds a row missing that another one inserts meanwhile goes on without an error."""
    rows = [a_row(f"boat {number}") for number in range(40)]

    async def replica() -> None:
        async with tables.unit_of_work() as session:
            await upsert(session, Boat, rows, key="name")

    await asyncio.gather(*(replica() for _ in range(4)))
    assert len(await content(tables)) == 40


async def test_what_differs_is_updated(tables: Database) -> None:
    """Of rows that are there only those are written that differ, with their `updated_at`."""
    rows = [a_row(f"boat {number:03}") for number in range(250)]
    async with tables.unit_of_work() as session:
        assert str(await upsert(session, Boat, rows, key=["name"])) == "250 inserted"
    async with tables.unit_of_work() as session:
        await session.execute(
            update(Boat).values(updated_at=dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
        )
    rows[3] = a_row("boat 003", crew_size=17, papers={"fee": "0.20"})
    rows.append(a_row("boat 250"))
    async with tables.unit_of_work() as session:
        done = await upsert(session, Boat.__table__, rows, key=["name"])
        assert (done.inserted, done.updated, done.unchanged) == (1, 1, 249)
    async with tables.read_session() as session:
        touched = select(Boat).where(Boat.updated_at > dt.datetime(2001, 1, 1, tzinfo=dt.UTC))
        changed = {boat.name: boat.crew_size for boat in await session.scalars(touched)}
    assert changed == {"boat 003": 17, "boat 250": 16}
    async with tables.unit_of_work() as session:
        kept = await upsert(session, Boat, [a_row("boat 003")], key="name", existing="keep")
        assert (kept.updated, kept.unchanged) == (0, 1)


async def test_another_unique_value_is_no_key(tables: Database, backend: str) -> None:
    """A row that another unique constraint forbids is an error, not an update of that row."""
    async with tables.unit_of_work() as session:
        await upsert(session, Boat, [a_row("Fram")], key="name")
    (id_,) = {row.id for row in await content(tables)}
    with pytest.raises((SeedError, UniqueViolationError), match="boats"):
        async with tables.unit_of_work() as session:
            await upsert(session, Boat, [a_row("Gjøa", id=id_)], key="name")
    assert [row.name for row in await content(tables)] == ["Fram"]


async def test_a_dry_run_leaves_nothing(tables: Database, folder: Path) -> None:
    """A dry run sees what its earlier seeds wrote, says what it would do, and leaves nothing."""

    async def crews(session: Any) -> None:
        boat = (await session.scalars(select(Boat).where(Boat.name == "Fram"))).one()
        session.add(Trip(boat_id=boat.id, number=2))
        boat.crew_size = 15

    (folder / "boats.yaml").write_text(BOATS)
    results = await plant(tables, folder, Seed("crews", crews, order=9), dry_run=True)
    assert results == [
        SeedResult("boats.yaml", "rolled back", inserted=4),
        SeedResult("crews", "rolled back", inserted=1, updated=1),
    ]
    assert await content(tables) == []


async def test_each_seed_is_a_unit(tables: Database) -> None:
    """A seed that fails is rolled back as a whole; the one before it stays."""
    told: list[str] = []

    async def first(session: Any) -> None:
        await upsert(session, Boat, [a_row("Fram")])

    async def second(session: Any) -> None:
        await upsert(session, Boat, [a_row("Gjøa")])
        raise RuntimeError("no wind")

    seeds = [Seed("a", first), Seed("b", second)]
    with pytest.raises(RuntimeError, match="no wind"):
        await run_seeds("dev", seeds=seeds, database=tables, report=told.append)
    assert [row.name for row in await content(tables)] == ["Fram"]
    assert told[-1] == "b: failed and rolled back; 1 before it stay"


async def test_production_has_to_be_named(tables: Database) -> None:
    """In production only a seed runs that names it; elsewhere one that names no place runs too."""
    ran: list[str] = []

    def noting(name: str, *environments: str) -> Seed:
        async def note(session: Any) -> None:
            ran.append(name)

        return Seed(name, note, environments=frozenset(environments))

    everywhere, dev = noting("everywhere"), noting("dev", "Dev")
    production = noting("production", "production", "dev")
    for environment in ("production", "prod", "LIVE"):
        with pytest.raises(SeedError, match="none of 2 seeds names"):
            await run_seeds(environment, seeds=[everywhere, dev], database=tables)
    results = await run_seeds("prod", seeds=[everywhere, dev, production], database=tables)
    assert [one.state for one in results] == ["skipped", "skipped", "committed"]
    assert ran == ["production"]
    twice = [everywhere, noting("everywhere", "staging"), dev, production]
    results = await run_seeds("staging", seeds=twice, database=tables)
    assert ran == ["production", "everywhere", "everywhere"]
    assert [one.name for one in results] == ["dev", "production", "everywhere", "everywhere"]


WRONG = """tables:
  boat: []
  boats:
    - name: Fram
      crew: 16
      price: many
      launched_at: 1892-10-26 10:00:00
    - crew_size: 3
    - {name: a, name: b}
    - name:
    - name: &x Fram
      crew_size: !!python/object:os.system {}
  trips:
    key: number
    rows: []
"""


async def test_what_is_wrong_is_refused_before_anything_is_written(
    tables: Database, folder: Path
) -> None:
    """Everything that is wrong in files is told at once, by file and line; no seed runs."""
    (folder / "a.yaml").write_text(BOATS)
    (folder / "b.yaml").write_text(WRONG)
    (folder / "c.yml").write_text("tables: [\n  x: {\n")
    with pytest.raises(SeedError) as caught:
        await plant(tables, folder)
    text = str(caught.value)
    for expected in (
        "b.yaml:2: there is no table 'boat'; did you mean 'boats'?",
        "b.yaml:5: boats has no column 'crew'; did you mean 'crew_size'?",
        "b.yaml:6: price: ",
        "b.yaml:7: launched_at: a datetime with a time zone was expected",
        "b.yaml:8: this row has no 'name', which is of its natural key",
        "b.yaml:9: 'name' is there twice",
        "b.yaml:10: name cannot be empty",
        "b.yaml:12: could not determine a constructor",
        "b.yaml:14: key of trips: there is no unique constraint over (number)",
        "c.yml:",
        "Next step: mend these lines",
    ):
        assert expected in text
    assert await content(tables) == []


async def test_a_reference_that_leads_nowhere_names_its_line(
    tables: Database, folder: Path
) -> None:
    """A row that refers to one that is not there ends its seed, and names file and line."""
    (folder / "trips.yaml").write_text(
        "tables:\n  trips:\n    - {boat_id: {name: Fram}, number: 1}\n"
    )
    with pytest.raises(SeedError, match=r"trips\.yaml:3: no row of boats with name 'Fram'"):
        await plant(tables, folder)


def test_where_seeds_are_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds come from folders, files and packages, each once, by order and then by name."""
    function = (
        "from moorage.seeding import seed\n"
        "from {other} import shared\n"
        "@seed(order={order}, environments='dev')\nasync def first(session): ...\n"
    )
    package = tmp_path / "seeds_of_the_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "shared_seed.py").write_text(
        "from moorage.seeding import seed\n@seed()\nasync def shared(session): ...\n"
    )
    other = "seeds_of_the_package.shared_seed"
    (package / "boats.py").write_text(function.format(other=other, order=3))
    (package / "boats.yaml").write_text("order: 2\ntables:\n  boats: []\n")
    (folder / "_left_out.py").write_text("raise RuntimeError")
    (folder / "crews.py").write_text(function.format(other=other, order=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_seeds([folder, "seeds_of_the_package"], Base.metadata)
    assert [one.name for one in found] == [
        "shared_seed.py: shared",
        "crews.py: first",
        "boats.yaml",
        "boats.py: first",
    ]
    assert found[1].environments == frozenset({"dev"})
    for place, message in (("no/such", "there are no seeds"), ("no_such_module", "imported")):
        with pytest.raises(SeedError, match=message):
            find_seeds([place])
    with pytest.raises(SeedError, match="is no coroutine function"):
        seed()(lambda session: session)  # type: ignore[arg-type]


async def test_the_command(
    tables: Database,
    tmp_path: Path,
    folder: Path,
    fresh_database: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`moorage db seed` says what it did, and finds models and seeds where the project has them."""
    for name, value in fresh_database.items():
        monkeypatch.setenv(f"ARCHIVE_DB_{name.upper()}", str(value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "boats.yaml").write_text(BOATS)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations/env.py").write_text(
        "from moorage.migrations import run\nfrom tests.matrix.every_type import Base\n"
        "run(Base.metadata)\n"
    )
    (tmp_path / "alembic.ini").write_text(
        "[archive]\nscript_location = %(here)s/migrations\npath_separator = os\n"
        "settings_prefix = ARCHIVE_DB_\n"
    )

    def command(*arguments: str) -> Any:
        return CliRunner().invoke(make_app(), ["db", "seed", *arguments], catch_exceptions=False)

    done = await asyncio.to_thread(command, "-d", "archive", "--env", "dev", "--dry-run")
    assert (done.exit_code, done.stdout.strip()) == (
        0,
        "1 of 1 seeds run; rows: 4 inserted; nothing of it stays",
    )
    assert done.stderr.splitlines() == [
        "boats.yaml: running (1 of 1)",
        "boats.yaml: 4 inserted, rolled back",
    ]
    done = await asyncio.to_thread(command, "-d", "archive", "--env", "dev", "--json")
    (result,) = json.loads(done.stdout)
    assert (done.exit_code, result["state"], result["inserted"]) == (0, "committed", 4)
    done = await asyncio.to_thread(command, "-d", "archive", "--env", "production")
    assert (done.exit_code, "none of 1 seeds names 'production'" in done.stderr) == (1, True)
    assert (await asyncio.to_thread(command)).exit_code == 2  # the environment has no default
    async with tables.read_session() as session:
        assert await session.scalar(select(func.count()).select_from(Boat)) == 2
