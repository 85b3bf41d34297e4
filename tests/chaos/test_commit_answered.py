"""
A link that fails behind the answer to COMMIT, where the session is set back to what it was.

What a unit of work asked of its session for itself (limits, an isolation level) is a transaction's
own on PostgreSQL, and the session's on MySQL and MariaDB, which are told to forget it before the
next user comes.
"""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import ConnectionLostError, Database
from tests.chaos.proxy import Fault, Proxy
from tests.fix_backend import chosen_backends
from tests.fix_database import DatabaseFactory
from tests.matrix.schema import Account, count_accounts, create_tables

pytestmark = [
    pytest.mark.parametrize("backend", ["mysql"]),
    pytest.mark.skipif("mysql" not in chosen_backends(), reason="others have nothing to set back"),
]
# What sets it back may take longer than the COMMIT, whose deadline is over first.
LIMITS: dict[str, Any] = {"statement_timeout_seconds": 60, "commit_timeout_seconds": 0.5}
ASKED: dict[str, Any] = {
    "limits": {"lock_timeout_seconds": 5},
    "isolation": {"isolation_level": "SERIALIZABLE"},
}


@pytest.fixture
async def watcher(make_database: DatabaseFactory) -> Database:
    """Return a database beside the proxy, with the tables."""
    watcher = make_database()
    await create_tables(watcher)
    return watcher


async def write(session: AsyncSession, proxy: Proxy, fault: Fault) -> None:
    """Write a row, and let the link fail where the session is set back."""
    session.add(Account(owner="ada"))
    await session.flush()
    proxy.arm(b"SET SESSION", fault)


@pytest.mark.scaled(small=["limits-stall-mysql", "isolation-cut before-mysql"])
@pytest.mark.parametrize("fault", ["black hole", "stall", "cut before"])
@pytest.mark.parametrize("asked", ASKED)
async def test_a_commit_that_was_answered_is_told(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory, asked: str, fault: Fault
) -> None:
    """The unit is committed, and its connection, in a session nobody knows, is not used again."""
    database = through_proxy(**LIMITS)
    unit = database.unit_of_work(**ASKED[asked])
    async with asyncio.timeout(60), unit as session:
        await write(session, proxy, fault)
    assert proxy.happened == 1
    assert unit.outcome == "committed"
    pool = database.pool_statistics()
    assert (pool.in_use, pool.idle) == (0, 0)
    proxy.is_black_hole = False
    await database.ping()
    assert await count_accounts(watcher) == 1


@pytest.mark.scaled(small=["stall-mysql"])
@pytest.mark.parametrize("fault", ["black hole", "stall", "cut before"])
async def test_a_level_that_cannot_be_set_is_an_error_of_ours(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory, fault: Fault
) -> None:
    """A link that fails while a unit's isolation level is set ends the wait, and is a lost one."""
    database = through_proxy(statement_timeout_seconds=0.5, answer_grace_seconds=0.2)
    await database.ping()
    proxy.arm(b"SET SESSION TRANSACTION", fault)
    unit = database.unit_of_work(**ASKED["isolation"])
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionLostError):
            await unit.begin()
    assert proxy.happened == 1
    assert unit.outcome == "rolled_back"
    proxy.is_black_hole = False
    assert database.pool_statistics().in_use == 0
    await database.ping()


async def test_who_limits_the_time_of_a_commit_is_told_nothing(
    watcher: Database, proxy: Proxy, through_proxy: DatabaseFactory
) -> None:
    """Negative control: a deadline around COMMIT alone calls work that is stored a failure."""
    session = through_proxy(**LIMITS).session()
    await session.connection(execution_options=ASKED["isolation"])
    await write(session, proxy, "stall")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMITS["commit_timeout_seconds"]):
            await session.commit()
    assert await count_accounts(watcher) == 1
