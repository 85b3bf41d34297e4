"""The pool's figures reach OpenTelemetry under the names of its conventions."""

import asyncio
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.metrics import db_metrics
from sqlalchemy import URL

from moorage import Database, DatabaseSettings, DBConnector, MissingExtraError
from moorage.metrics import observe_pool


class DuckConnector(DBConnector):
    """A connector whose driver is not there."""

    name = "duck"
    default_port = 4711

    def get_url(self) -> URL:
        """Return a URL of a dialect that every SQLAlchemy has."""
        return self.build_url("sqlite+aiosqlite", host=None, port=None, username=None)


class Counted:
    """A pool that says what it is told to say."""

    figures: dict[str, int]

    def __init__(self, **figures: int) -> None:
        self.figures = figures

    def __getattr__(self, name: str) -> Any:
        return lambda: self.figures[name]


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, str], int]:
    """Return the figures by name and state."""
    found: dict[tuple[str, str], int] = {}
    data: Any = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    assert point.attributes["db.client.connection.pool.name"] == "h:4711/app"
                    state = point.attributes.get("db.client.connection.state", "")
                    found[metric.name, state] = point.value
    return found


def test_figures_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool counts is told under the conventions' names, until it is disposed."""
    reader = InMemoryMetricReader()
    database = Database(
        connector=DuckConnector(DatabaseSettings(host="h", ssl_mode="disable", _env_file=None))
    )
    observe_pool(database, meter_provider=MeterProvider([reader]))
    assert collected(reader) == {}
    pool = Counted(capacity=30, size=10, checkedout=2, checkedin=3, waiting=1, timeouts=4)
    monkeypatch.setattr(database, "_pools", lambda: [pool])
    monkeypatch.setattr(database, "_engine", object())
    assert collected(reader) == {
        ("db.client.connection.count", "used"): 2,
        ("db.client.connection.count", "idle"): 3,
        ("db.client.connection.idle.max", ""): 10,
        ("db.client.connection.idle.min", ""): 0,
        ("db.client.connection.max", ""): 30,
        ("db.client.connection.pending_requests", ""): 1,
        ("db.client.connection.timeouts", ""): 4,
    }
    monkeypatch.setattr(database, "_engine", None)
    asyncio.run(database.dispose())
    assert collected(reader) == {}


async def test_times_of_a_pool() -> None:
    """How long opening, getting and using connections took is measured each time, in seconds."""
    reader = InMemoryMetricReader()
    settings = DatabaseSettings(host="h", name=":memory:", ssl_mode="disable", _env_file=None)
    database = Database(connector=DuckConnector(settings))
    observe_pool(database, meter_provider=MeterProvider([reader]))
    async with database:
        for _ in range(3):
            await database.ping()
        async with database.engine.connect(), database.engine.connect():
            pass
    data: Any = reader.get_metrics_data()
    points = {
        metric.name: (metric.unit, metric.data.data_points[0])
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    counts = {name.rpartition(".")[2]: point.count for name, (_, point) in points.items()}
    assert counts == {"create_time": 2, "wait_time": 5, "use_time": 5}
    assert {unit for unit, _ in points.values()} == {"s"}


def shapes(reader: InMemoryMetricReader) -> dict[str, tuple[str, str, bool | None]]:
    """Return the unit and the kind of each metric by its name."""
    data: Any = reader.get_metrics_data()
    return {
        metric.name: (
            metric.unit,
            type(metric.data).__name__,
            getattr(metric.data, "is_monotonic", None),
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_names_units_and_kinds_are_those_of_the_conventions() -> None:
    """What is reported is what OpenTelemetry's own package of conventions would make."""
    theirs = InMemoryMetricReader()
    meter = MeterProvider([theirs]).get_meter("conventions")
    for name in dir(db_metrics):
        if name.startswith("create_db_client_connection_"):
            instrument = getattr(db_metrics, name)(meter)
            (instrument.record if hasattr(instrument, "record") else instrument.add)(1)
    ours = InMemoryMetricReader()
    settings = DatabaseSettings(host="h", name=":memory:", ssl_mode="disable", _env_file=None)
    database = Database(connector=DuckConnector(settings))
    observe_pool(database, meter_provider=MeterProvider([ours]))
    async with database:
        await database.ping()
        reported = shapes(ours)
    assert reported == shapes(theirs)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry the error has the line that installs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    database = Database(connector=DuckConnector(DatabaseSettings(_env_file=None)))
    with pytest.raises(MissingExtraError, match=r"pip install 'moorage\[otel\]'"):
        observe_pool(database)
