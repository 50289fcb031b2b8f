"""Keeps what this node did in the last minute, from the counters that it shows to Prometheus, too.

What is a failure and what a refusal is decided here, by gRPC's codes; the arithmetic is in
mesh/core/last_minute.py. Only totals are read: of no single call, and of nobody's (I1).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from mesh.core.last_minute import Counts, LastMinute, Minute
from mesh.telemetry.metrics import ENGINE_TOKENS, RPC_DURATION, RPC_HANDLED

READ_EVERY_S = 5.0

# What clients ask a node for; looking at it, witnessing and placing are not work of this kind.
WORK = frozenset(f"sovereign.mesh.v1.{name}" for name in ("Inference", "Retrieval", "Shard", "Index"))
# Faults of the mesh, or no room. CANCELLED is nobody's, and every other code is a refusal.
FAILURES = frozenset(
    {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "DATA_LOSS"}
)
_NO_REFUSAL = FAILURES | {"OK", "CANCELLED"}


class Registry(Protocol):
    """Where the values are; mesh/telemetry/instruments.py has one."""

    def collect(self) -> Iterable[Metric]:
        """All metrics as they are now."""
        ...


def counts_of(families: Iterable[Metric]) -> Counts:
    """The totals in these metrics; others are passed over."""
    requests = failed = refused = 0.0
    tokens = {"prompt": 0.0, "completion": 0.0}
    durations: dict[float, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels, value = sample.labels, sample.value
        if sample.name == ENGINE_TOKENS.name:
            tokens[labels["kind"]] += value
        elif labels.get("service") not in WORK:
            continue
        elif sample.name == RPC_HANDLED.name:
            requests += value
            failed += value if labels["code"] in FAILURES else 0.0
            refused += value if labels["code"] not in _NO_REFUSAL else 0.0
        elif sample.name == f"{RPC_DURATION.name}_bucket":
            bound = math.inf if labels["le"] == "+Inf" else float(labels["le"])
            durations[bound] = durations.get(bound, 0.0) + value
    return Counts(
        requests, failed, refused, tokens["prompt"], tokens["completion"], tuple(sorted(durations.items()))
    )


def counters_of(registry: CollectorRegistry) -> Registry:
    """The part of it that is looked at: reading all of it would read every gauge, too."""
    names = [ENGINE_TOKENS.name, RPC_HANDLED.name, f"{RPC_DURATION.name}_bucket"]
    return registry.restricted_registry(names)


class LastMinuteKeeper:
    """Reads the registry every few seconds. `monotonic` gives seconds."""

    def __init__(
        self, registry: Registry, monotonic: Callable[[], float], read_every_s: float = READ_EVERY_S
    ) -> None:
        self._registry = registry
        self._monotonic = monotonic
        self._read_every_s = read_every_s
        self._held = LastMinute()
        self.read()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._read_every_s)
            self.read()

    def now(self) -> Minute | None:
        """The minute up to the newest reading; None if there is but one."""
        return self._held.minute()

    def read(self) -> None:
        """Reads the counters now. `run` does this by itself."""
        self._held.add(self._monotonic(), counts_of(self._registry.collect()))
