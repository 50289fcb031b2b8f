"""The catalogue's metrics as instruments of the Prometheus library, in a registry of their own.

One `Instruments` a daemon: several nodes run in one process in tests, and share nothing. Counters and
histograms are made when it is, and written to by mesh/telemetry/meters.py; gauges are read when somebody
scrapes, so that they cost nothing before, and by whoever registers `Readings` for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from mesh.telemetry.logs import describe
from mesh.telemetry.metrics import CATALOGUE, SCRAPE_FAILURES, Kind, Metric

_LOG = logging.getLogger(__name__)

# A series for when each series began would double them all, and nobody here asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Reading(NamedTuple):
    """What a gauge reads now, and the values of its labels in their order."""

    value: float
    labels: tuple[str, ...] = ()


# Called in the thread of whoever scrapes: it reads what may be read from there and returns soon.
Read = Callable[[], Iterable[tuple[Metric, Reading]]]


class Instruments:
    """All metrics of one daemon: "mesh-node" or "mesh-control"."""

    def __init__(self, daemon: str) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges = [m for m in CATALOGUE if daemon in m.daemons and m.kind is Kind.GAUGE]
        self._reads: list[Read] = []
        for metric in CATALOGUE:
            if daemon not in metric.daemons:
                continue
            labels = tuple(metric.labels)
            if metric.kind is Kind.COUNTER:
                self._counters[metric.name] = Counter(
                    metric.name, metric.help, labels, registry=self.registry
                )
            elif metric.kind is Kind.HISTOGRAM:
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.help, labels, registry=self.registry, buckets=metric.buckets
                )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def counter(self, metric: Metric) -> Counter:
        """The counter; KeyError if this daemon does not show it."""
        return self._counters[metric.name]

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram; KeyError if this daemon does not show it."""
        return self._histograms[metric.name]

    def read(self, read: Read) -> None:
        """Has gauges read at every scrape."""
        self._reads.append(read)

    def describe(self) -> Iterator[Family]:
        """Which names the gauges take, without reading one."""
        return (self._family(metric) for metric in self._gauges)

    def collect(self) -> Iterator[Family]:
        """Every gauge, as it reads now. One that cannot be read is left out, counted and logged."""
        families = {metric.name: self._family(metric) for metric in self._gauges}
        for read in tuple(self._reads):
            try:
                for metric, reading in read():
                    families[metric.name].add_metric(reading.labels, reading.value)
            except Exception as error:
                self.counter(SCRAPE_FAILURES).inc()
                _LOG.error("a gauge cannot be read: %s", describe(error))
        return (family for family in families.values() if family.samples)

    def _family(self, metric: Metric) -> GaugeMetricFamily:
        return GaugeMetricFamily(metric.name, metric.help, labels=tuple(metric.labels))
