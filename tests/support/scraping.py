"""Reading a daemon's metrics and probes as Prometheus and a kubelet do.

page = await scrape(port)
assert page.value("sovereign_mesh_rpc_handled_total", code="OK") == 1
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Page:
    """A page of metrics, parsed by the Prometheus library's own strict parser."""

    text: str

    def __iter__(self) -> Iterator[Sample]:
        for family in text_string_to_metric_families(self.text):
            yield from family.samples

    def all(self, name: str, **labels: str) -> list[Sample]:
        """The samples of this name that have at least these labels."""
        return [each for each in self if each.name == name and labels.items() <= each.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The sum of these samples; 0 for none."""
        return float(sum(each.value for each in self.all(name, **labels)))

    @property
    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """Every series, by name and labels."""
        return {(each.name, tuple(sorted(each.labels.items()))) for each in self}


def page_of(registry: CollectorRegistry) -> Page:
    """What a scrape would show, without HTTP."""
    return Page(generate_latest(registry).decode())  # type: ignore[no-untyped-call]


def fetch(
    port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and body. Blocking."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    status, _, body = await asyncio.to_thread(fetch, port, path)
    return status, body.decode()


async def scrape(port: int) -> Page:
    """The page of metrics as OpenMetrics."""
    status, headers, body = await asyncio.to_thread(fetch, port, "/metrics", OPENMETRICS)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    return Page(body.decode())
