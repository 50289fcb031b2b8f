"""The catalogue keeps Prometheus' conventions and the mesh's own rule: what may stand in a label."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from mesh.telemetry import metrics
from mesh.telemetry.instruments import Instruments, Reading
from mesh.telemetry.metrics import CATALOGUE, CONTROL, NODE, Kind, Metric
from tests.support.scraping import page_of

ROOT = Path(__file__).resolve().parents[3]
# Everything that may be a label. A tenant, a client, a purpose, a document, a query never is one (I1).
LABELS = {
    "service", "method", "code", "reason", "action", "outcome", "from", "to", "class", "state", "kind",
    "model", "digest", "trust_domain", "type", "collection", "version",
}  # fmt: skip


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda m: m.name)
def test_names_and_labels(metric: Metric):
    assert re.fullmatch(r"sovereign_mesh_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert set(metric.labels) <= LABELS
    assert all(metric.labels.values())
    assert metric.help.endswith(".")
    assert metric.daemons


@pytest.mark.slow
def test_each_is_there_once_and_somebody_counts_it():
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names) > 30
    source = "\n".join(
        path.read_text()
        for folder in ("mesh", "node", "control")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "metrics.py"
    )
    unused = [
        name
        for name, value in vars(metrics).items()
        if isinstance(value, Metric) and not re.search(rf"\b{name}\b", source)
    ]
    assert not unused


@pytest.mark.parametrize("daemon", [NODE, CONTROL])
def test_a_daemon_shows_its_own_and_nothing_is_shared(daemon: str):
    before = set(REGISTRY._names_to_collectors)
    one, other = Instruments(daemon), Instruments(daemon)
    for metric in CATALOGUE:
        if daemon not in metric.daemons:
            continue
        if metric.kind is Kind.COUNTER:
            family = one.counter(metric)
            (family.labels(*["x"] * len(metric.labels)) if metric.labels else family).inc()
    assert one.registry is not other.registry
    assert page_of(other.registry).value("sovereign_mesh_rpc_started_total") == 0
    assert page_of(one.registry).value("sovereign_mesh_rpc_started_total") == 1
    assert set(REGISTRY._names_to_collectors) == before
    shown = {family for family, _ in page_of(one.registry).series}
    assert "process_resident_memory_bytes" in shown
    assert not [name for name in shown if name.endswith("_created")]


def test_a_gauge_that_cannot_be_read_takes_no_other_with_it():
    made = Instruments(NODE)

    def broken():
        yield metrics.DRAINING, Reading(1)
        raise ValueError("photophobia")

    made.read(broken)
    made.read(lambda: [(metrics.ENGINE_CAPACITY, Reading(4))])
    page = page_of(made.registry)
    assert page.value("sovereign_mesh_engine_capacity") == 4
    assert page.value("sovereign_mesh_draining") == 1
    assert "photophobia" not in page.text
    assert page_of(made.registry).value("sovereign_mesh_scrape_failures_total") >= 1
