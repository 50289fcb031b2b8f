"""What the gauges of a control plane read, beyond those of every daemon: how old its own word is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mesh.telemetry import metrics
from mesh.telemetry.instruments import Read, Reading
from mesh.telemetry.metrics import Metric
from mesh.telemetry.readings import BoardSeen


def of_heads(board: BoardSeen, clock: Callable[[], float]) -> Read:
    """The age of the authority's newest heads that are in force, in seconds; nothing before the first."""

    def read() -> Iterator[tuple[Metric, Reading]]:
        snapshot = board.snapshot
        heads = snapshot.heads.get(snapshot.trust_domain)
        if heads is not None:
            yield metrics.HEADS_AGE, Reading(max(0.0, clock() - heads.signed_at))

    return read
