"""No update is lost on SQLite, whoever writes at the same time."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from moorage import (
    Database,
    DatabaseSettings,
    LockTimeoutError,
    SerializationError,
)
from tests.fix_scale import Scale

INCREMENT = text("UPDATE counter SET value = :value")
READ = text("SELECT value FROM counter")


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Return a database in a file and one in memory, each with a counter at 0."""
    name = ":memory:" if request.param == "memory" else str(tmp_path / "app.db")
    async with Database(DatabaseSettings(type="sqlite", name=name, _env_file=None)) as database:
        await create_counter(database.engine)
        yield database
        assert database.pool_statistics().in_use == 0


async def create_counter(engine: AsyncEngine) -> None:
    """Create the table with its one row."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(text("INSERT INTO counter VALUES (0)"))


async def increment(session: AsyncSession) -> None:
    """Read, pause, and write what was read plus one."""
    value = (await session.execute(READ)).scalar_one()
    await asyncio.sleep(0)
    await session.execute(INCREMENT, {"value": value + 1})


async def counter(database: Database) -> int:
    """Return what is stored."""
    async with database.session() as session:
        value: int = (await session.execute(READ)).scalar_one()
        return value


async def outcomes(work: Callable[[], Awaitable[None]], times: int) -> Counter[str]:
    """Run work concurrently and count how it ended."""
    results = await asyncio.gather(*(work() for _ in range(times)), return_exceptions=True)
    return Counter("ok" if r is None else type(r).__name__ for r in results)


@pytest.mark.scaled
async def test_units_lose_no_update(database: Database, scale: Scale) -> None:
    """Concurrent read-modify-write units all succeed and all count, with readers beside them."""
    times = scale(small=8, full=800)

    async def unit() -> None:
        async with database.unit_of_work() as session:
            await increment(session)

    async def read() -> None:
        async with database.read_session() as session:
            await session.execute(READ)

    ended = await asyncio.gather(outcomes(unit, times), outcomes(read, times))
    assert ended == [{"ok": times}, {"ok": times}]
    assert await counter(database) == times


async def test_plain_sessions_lose_no_update(database: Database) -> None:
    """Of plain sessions that read and then write, every success counts; the others are told."""

    async def plain() -> None:
        async with database.session() as session:
            await increment(session)
            await session.commit()

    ended = await outcomes(plain, 20)
    assert set(ended) <= {"ok", "SerializationError"}
    assert ended["ok"] >= 1
    assert await counter(database) == ended["ok"]


async def test_plain_sessions_that_only_write_never_collide(database: Database) -> None:
    """A plain session whose first statement writes waits for its turn."""

    async def write() -> None:
        async with database.session() as session:
            await session.execute(text("UPDATE counter SET value = value + 1"))
            await session.commit()

    assert await outcomes(write, 20) == {"ok": 20}
    assert await counter(database) == 20


async def test_late_writer_is_told_to_use_a_unit(database: Database) -> None:
    """A plain session that read before somebody else wrote gets a transient error with advice."""
    async with database.session() as late:
        await late.execute(READ)
        if database.settings.name != ":memory:":  # in memory, readers hold writers up
            async with database.unit_of_work() as session:
                await increment(session)
        else:
            await _hold_the_write_lock(database, late)
            return
        with pytest.raises(SerializationError, match="another transaction wrote") as caught:
            await late.execute(INCREMENT, {"value": 9})
    assert caught.value.is_transient
    assert "unit of work" in caught.value.hint
    assert caught.value.backend_code == "SQLITE_BUSY_SNAPSHOT"
    assert isinstance(caught.value, sa_exc.OperationalError)
    assert await counter(database) == 1


async def _hold_the_write_lock(database: Database, late: AsyncSession) -> None:
    async with database.session() as holder:
        await holder.execute(INCREMENT, {"value": 5})
        with pytest.raises(SerializationError):
            await late.execute(INCREMENT, {"value": 9})
        await late.rollback()
        await holder.commit()
    assert await counter(database) == 5


async def test_writers_of_a_process_are_served_in_order(database: Database) -> None:
    """Units get the write lock in the order in which they asked for it."""
    order: list[int] = []

    async def unit(number: int) -> None:
        async with database.unit_of_work() as session:
            await session.execute(READ)
            order.append(number)

    async with database.unit_of_work() as session:
        await session.execute(READ)
        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(unit(number)))
            queue = database.connector._write_queue  # type: ignore[attr-defined]
            while len(queue._waiters) <= number:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == list(range(8))


async def test_write_lock_that_stays_taken_is_an_error(tmp_path: Path) -> None:
    """A unit that does not get the write lock within the deadline is told which setting it was."""
    settings = DatabaseSettings(
        type="sqlite", name=str(tmp_path / "a.db"), lock_timeout_seconds=0.05, _env_file=None
    )
    async with Database(settings) as database:
        await create_counter(database.engine)
        async with database.unit_of_work() as holder:
            await holder.execute(READ)
            with pytest.raises(LockTimeoutError, match="DB_LOCK_TIMEOUT_SECONDS") as caught:
                async with database.unit_of_work() as session:
                    await session.execute(READ)
        assert caught.value.is_transient
        async with database.unit_of_work() as session:
            await increment(session)
        assert await counter(database) == 1


async def test_cancelled_waiter_leaves_the_queue(database: Database) -> None:
    """A unit that is cancelled while it waits for the lock does not hold up those behind it."""
    queue = database.connector._write_queue  # type: ignore[attr-defined]

    async def unit() -> None:
        async with database.unit_of_work() as session:
            await increment(session)

    async with database.unit_of_work() as session:
        await session.execute(READ)
        first, second = asyncio.create_task(unit()), asyncio.create_task(unit())
        while len(queue._waiters) < 2:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
    await second
    assert first.cancelled()
    assert await counter(database) == 1


async def test_autocommit_opens_no_transaction(database: Database) -> None:
    """With isolation level AUTOCOMMIT a statement takes effect at once, and nothing stays open."""
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(INCREMENT, {"value": 7})
        assert await counter(database) == 7
    async with database.unit_of_work() as session:
        await increment(session)
    assert await counter(database) == 8


async def test_commit_that_fails_is_rolled_back(database: Database) -> None:
    """After a COMMIT that fails, its connection and the write lock are free for the next unit."""
    async with database.unit_of_work() as session:
        await session.execute(text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        await session.execute(
            text(
                "CREATE TABLE child (parent_id INTEGER REFERENCES parent (id)"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    for _ in range(3):
        with pytest.raises(sa_exc.IntegrityError):
            async with database.unit_of_work() as session:
                await session.execute(text("INSERT INTO child VALUES (1)"))
    async with database.unit_of_work() as session:
        assert (await session.execute(text("SELECT count(*) FROM child"))).scalar_one() == 0


async def test_ddl_is_undone_by_a_rollback(database: Database) -> None:
    """CREATE TABLE in a unit that fails leaves no table."""
    with pytest.raises(LookupError):
        async with database.unit_of_work() as session:
            await session.execute(text("CREATE TABLE other (id INTEGER)"))
            raise LookupError
    async with database.session() as session:
        with pytest.raises(sa_exc.OperationalError, match="no such table"):
            await session.execute(text("SELECT * FROM other"))


async def test_transaction_ended_by_sql_is_noticed(database: Database) -> None:
    """After a COMMIT sent as SQL, the next statement is refused rather than run outside."""
    async with database.session() as session:
        await session.execute(INCREMENT, {"value": 3})
        await session.execute(text("COMMIT"))
        with pytest.raises(sa_exc.InvalidRequestError, match="ended this transaction by itself"):
            await session.execute(INCREMENT, {"value": 4})
    assert await counter(database) == 3


@pytest.mark.scaled
async def test_processes_lose_no_update(tmp_path: Path, scale: Scale) -> None:
    """Units of several processes on one file all succeed and all count."""
    times, processes = scale(small=5, full=200), scale(small=2, full=4)
    name = str(tmp_path / "shared.db")
    settings = DatabaseSettings(type="sqlite", name=name, _env_file=None)
    async with Database(settings) as database:
        await create_counter(database.engine)
        program = [sys.executable, str(Path(__file__).with_name("increments.py")), name, str(times)]
        workers = [subprocess.Popen(program, stderr=subprocess.PIPE) for _ in range(processes)]
        endings = [await asyncio.to_thread(worker.communicate) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * processes, endings
        assert await counter(database) == processes * times


class TestPlainEngine:
    """Negative control: what everybody writes loses updates, and says nothing."""

    @pytest.fixture
    async def plain(self, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
        """Return SQLAlchemy's own engine on a file."""
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/plain.db")
        await create_counter(engine)
        yield engine
        await engine.dispose()

    async def test_updates_are_lost(self, plain: AsyncEngine) -> None:
        """Eight acknowledged increments of the plain engine do not make eight."""
        ready = asyncio.Barrier(8)

        async def naive() -> None:
            async with AsyncSession(plain) as session:
                value = (await session.execute(READ)).scalar_one()
                await ready.wait()
                await session.execute(INCREMENT, {"value": value + 1})
                await session.commit()

        assert await outcomes(naive, 8) == {"ok": 8}
        async with AsyncSession(plain) as session:
            assert (await session.execute(READ)).scalar_one() < 8
