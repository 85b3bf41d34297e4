"""Several databases of one process, each with its own connector."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from moorage import Database, DatabaseSettings, UnitOfWork
from tests.fix_backend import Servers


@pytest.fixture(params=["postgres", "mysql"])
def analytics(
    request: pytest.FixtureRequest,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[str]:
    """Describe two databases in the environment, under two prefixes; return the second's type."""
    server = servers.get(request.param)
    address = server.address
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_TYPE", "sqlite")
    monkeypatch.setenv("DB_NAME", str(tmp_path / "orders.db"))
    for name in ("host", "port", "user", "password"):
        monkeypatch.setenv(f"ANALYTICS_DB_{name.upper()}", str(getattr(address, name)))
    monkeypatch.setenv("ANALYTICS_DB_TYPE", request.param)
    monkeypatch.setenv("ANALYTICS_DB_NAME", "side_by_side")
    monkeypatch.setenv("ANALYTICS_DB_POOL_SIZE", "1")
    server.create_database("side_by_side")
    yield request.param
    server.drop_database("side_by_side")


async def test_two_backends_side_by_side(analytics: str) -> None:
    """Units of work on two backends run in one task, and one database ends without the other."""
    orders = Database(DatabaseSettings.from_env("DB_"))
    other = Database(DatabaseSettings.from_env("ANALYTICS_DB_"))
    assert (orders.connector.name, other.connector.name) == ("sqlite", analytics)
    assert (orders.pool_statistics().size, other.pool_statistics().size) == (10, 1)
    for database in (orders, other):
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE boat (name VARCHAR(20))"))
    async with UnitOfWork(orders.sessionmaker) as one, UnitOfWork(other.sessionmaker) as two:
        for session in (one, two):
            await session.execute(text("INSERT INTO boat VALUES ('Fram')"))
    await asyncio.gather(orders.ping(), other.ping())
    await orders.dispose()
    async with other.session() as session:
        assert (await session.execute(text("SELECT name FROM boat"))).scalars().all() == ["Fram"]
    await other.dispose()
