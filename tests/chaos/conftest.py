"""What every test of this folder has to leave behind: nothing."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from moorage import Database
from tests.chaos.proxy import Proxy
from tests.fix_database import DatabaseFactory

_OPEN_TRANSACTIONS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND (state <> 'idle' OR xact_start IS NOT NULL)",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx t"
    " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
    " WHERE p.db = database() AND p.id <> connection_id()",
}


@pytest.fixture(autouse=True)
def no_forgotten_exception(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Count "exception was never retrieved" and its kind as failures."""
    yield
    gc.collect()
    complaints = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert complaints == []


@pytest.fixture
async def proxy(backend: str, fresh_database: dict[str, Any]) -> AsyncIterator[Proxy]:
    """Return a proxy in front of the server of the test's database."""
    host, port = str(fresh_database["host"]), int(fresh_database["port"])
    async with Proxy(backend, host, port) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(proxy: Proxy, make_database: DatabaseFactory) -> DatabaseFactory:
    """Return a function like ``make_database`` for a database that is reached by the proxy."""

    def make(**overrides: Any) -> Database:
        return make_database(host="127.0.0.1", port=proxy.port, ssl_mode="disable", **overrides)

    return make


async def no_open_transaction(watcher: Database) -> None:
    """
    Return when the server has no open transaction in this database, as it sees it itself.

    A server needs a moment to notice that a client is gone; it does not get more than 10 s.
    """
    question = _OPEN_TRANSACTIONS.get(watcher.engine.dialect.name)
    if question is None:
        # SQLite: whoever gets the write lock knows that nobody else has it.
        async with watcher.unit_of_work(lock_timeout_seconds=1) as session:
            await session.execute(text("SELECT 1"))
        return
    async with asyncio.timeout(10):
        while True:
            async with watcher.session() as session:
                if not (await session.execute(text(question))).scalar_one():
                    return
