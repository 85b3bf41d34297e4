"""What Prometheus is told about the pools."""

import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from moorage import Database, MissingExtraError
from moorage_fastapi import register_pool_metrics
from tests.fix_database import DatabaseFactory


async def test_pools_are_shown(make_database: DatabaseFactory) -> None:
    """The figures are those of the moment, by database; one that was not started has none."""
    first, second = make_database(pool_size=4, max_overflow=2), make_database()
    registry = CollectorRegistry()
    register_pool_metrics(first, databases={"analytics": second}, registry=registry)
    async with first.engine.connect():
        shown = generate_latest(registry).decode()
    for line in ("capacity", "in_use", "idle", "waiting"):
        assert f"# TYPE moorage_pool_{line} gauge" in shown
    assert 'moorage_pool_capacity{database="default"} 6.0' in shown
    assert 'moorage_pool_in_use{database="default"} 1.0' in shown
    assert 'moorage_pool_timeouts_total{database="default"} 0.0' in shown
    assert "analytics" not in shown
    await second.ping()
    assert 'idle{database="analytics"} 1.0' in generate_latest(registry).decode()


def test_the_process_may_have_no_database() -> None:
    """Without usable settings there are no figures, and the rest of the metrics is shown."""
    registry = CollectorRegistry()
    register_pool_metrics(registry=registry)
    assert b"moorage_pool_in_use{" not in generate_latest(registry)


def test_the_default_follows_the_process(accounts: Database) -> None:
    """Without an argument the figures are those of the database of the process."""
    registry = CollectorRegistry()
    register_pool_metrics(registry=registry)
    assert b'moorage_pool_idle{database="default"} 1.0' in generate_latest(registry)


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the extra is told how to install it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError) as caught:
        register_pool_metrics()
    assert "moorage-fastapi[prometheus]" in caught.value.hint
