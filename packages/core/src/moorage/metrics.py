"""
The figures of a pool as OpenTelemetry metrics, under the names of its semantic conventions.

Needs the extra ``otel``. How many connections there are is asked when the exporter collects; how
long it took to open, to get and to use one is measured each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from moorage.database import Database, PoolStatistics
from moorage.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

__all__ = ["observe_pool"]

_Figures = Callable[[PoolStatistics], dict[str | None, int]]

# Name, unit, description, and the figures by state of the connections.
_CONNECTIONS: tuple[tuple[str, str, str, _Figures], ...] = (
    (
        "db.client.connection.count",
        "{connection}",
        "The number of connections that are currently in the state of the attribute.",
        lambda pool: {"idle": pool.idle, "used": pool.in_use},
    ),
    (
        "db.client.connection.idle.max",
        "{connection}",
        "The number of idle connections that each event loop keeps.",
        lambda pool: {None: pool.size},
    ),
    (
        "db.client.connection.idle.min",
        "{connection}",
        "The number of idle connections that each event loop opens in advance.",
        lambda pool: {None: 0},
    ),
    (
        "db.client.connection.max",
        "{connection}",
        "The maximum number of open connections of each event loop.",
        lambda pool: {None: pool.capacity},
    ),
    (
        "db.client.connection.pending_requests",
        "{request}",
        "The number of tasks that wait for a connection.",
        lambda pool: {None: pool.waiting},
    ),
)

# In seconds, from a connection that is at hand to a pool that has run dry.
_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
_TIMES = {
    "create": "The time it took to open a new connection.",
    "wait": "The time it took to get an open connection from the pool.",
    "use": "The time between taking a connection and giving it back.",
}


def observe_pool(
    database: Database, *, name: str | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """
    Report the pool of a database to OpenTelemetry from now on, until it is disposed.

    Args:
        database: Called once for each; it need not have been used.
        name: The ``db.client.connection.pool.name``; ``host:port/database`` if left out.
        meter_provider: The global one if left out.

    Raises:
        MissingExtraError: OpenTelemetry's API is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise MissingExtraError(
            "metrics of the pool need OpenTelemetry's API, which is not installed",
            hint="pip install 'moorage[otel]'",
        ) from error
    meter = metrics.get_meter("moorage", meter_provider=meter_provider)
    pool_name = {"db.client.connection.pool.name": name or _name(database)}

    def observations(figures: _Figures) -> Callable[[Any], Iterable[metrics.Observation]]:
        def observe(options: Any) -> Iterable[metrics.Observation]:
            if database.state in {"new", "disposed"}:
                return
            for state, value in figures(database.pool_statistics()).items():
                attributes = {"db.client.connection.state": state} if state else {}
                yield metrics.Observation(value, {**pool_name, **attributes})

        return observe

    create, wait, use = (
        meter.create_histogram(
            f"db.client.connection.{name}_time",
            unit="s",
            description=description,
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        for name, description in _TIMES.items()
    )
    database.observe_pool(_Times(create, wait, use, pool_name))
    for metric, unit, description, figures in _CONNECTIONS:
        meter.create_observable_up_down_counter(
            metric, [observations(figures)], unit=unit, description=description
        )
    meter.create_observable_counter(
        "db.client.connection.timeouts",
        [observations(lambda pool: {None: pool.timeouts})],
        unit="{timeout}",
        description="How often somebody waited for a connection in vain.",
    )


class _Times:
    def __init__(
        self, create: Histogram, wait: Histogram, use: Histogram, attributes: Mapping[str, str]
    ) -> None:
        self.created = partial(create.record, attributes=attributes)
        self.waited = partial(wait.record, attributes=attributes)
        self.used = partial(use.record, attributes=attributes)


def _name(database: Database) -> str:
    settings = database.settings
    if not database.connector.capabilities.networked:
        return settings.name
    place = settings.hosts[0]
    port = place.port or database.connector.default_port
    return f"{place.host}:{port}/{settings.name}"
