"""The figures of the pool for Prometheus (extra ``prometheus``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moorage import Database, MissingExtraError, MoorageError, PoolStatistics, get_database

__all__ = ["PoolCollector", "register_pool_metrics"]

_GAUGES: Mapping[str, str] = {
    "capacity": "Connections that one event loop may have open.",
    "in_use": "Connections handed out.",
    "idle": "Open connections that wait for work.",
    "waiting": "Tasks that wait for a connection.",
}


class PoolCollector:
    """
    Reads the pools when Prometheus asks, and never talks to a database.

    A collector of ``prometheus_client``: the figures of :meth:`moorage.Database.pool_statistics`,
    named ``moorage_pool_…``, with the label ``database``. The default is looked up each time, so
    that an application that starts again shows its new pool.
    """

    def __init__(
        self, database: Database | None = None, databases: Mapping[str, Database] | None = None
    ) -> None:
        self._default = database
        self._named = dict(databases or {})

    def describe(self) -> Iterable[Any]:
        """Return no metrics: registering asks no database of its settings."""
        return ()

    def collect(self) -> Iterable[Any]:
        """Yield the gauges; a database that was not started, or is closed, has none."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = dict(self._figures())
        for name, meaning in _GAUGES.items():
            family = GaugeMetricFamily(f"moorage_pool_{name}", meaning, labels=["database"])
            for label, statistics in figures.items():
                family.add_metric([label], getattr(statistics, name))
            yield family
        waits = CounterMetricFamily(
            "moorage_pool_timeouts",
            "Waits for a connection that were in vain.",
            labels=["database"],
        )
        for label, statistics in figures.items():
            waits.add_metric([label], statistics.timeouts)
        yield waits

    def _figures(self) -> Iterable[tuple[str, PoolStatistics]]:
        try:
            default = self._default if self._default is not None else get_database()
        except MoorageError:  # its settings are wrong, as the application's start has said
            default = None
        for label, database in {"default": default, **self._named}.items():
            if database is not None and database.state == "started":
                yield label, database.pool_statistics()


def register_pool_metrics(
    database: Database | None = None,
    *,
    databases: Mapping[str, Database] | None = None,
    registry: Any = None,
) -> PoolCollector:
    """
    Show the pools among the process's metrics; called once, when the application is made.

    Args:
        database: The application's database; the process-wide one if left out.
        databases: Further ones by name.
        registry: A ``CollectorRegistry``; the client's default one if left out.

    Raises:
        MissingExtraError: ``prometheus_client`` is not installed.
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise MissingExtraError(
            "metrics for Prometheus need prometheus_client, which is not installed",
            hint="pip install 'moorage-fastapi[prometheus]'",
        ) from error
    collector = PoolCollector(database, databases)
    used = prometheus_client.REGISTRY if registry is None else registry
    used.register(collector)
    return collector
