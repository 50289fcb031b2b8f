"""What the decision log says of what leaves an index: how many chunks at which level, to whom. Never which
(I1, I7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import SpiffeId
from node.gate import Entry, Gate


def release_entry(
    gate: Gate,
    served: Entry,
    caller: SpiffeId,
    requester: SpiffeId,
    collection: str,
    levels: Iterable[ReleaseLevel],
    charged: int,
) -> Entry:
    """An entry of kind "release", under the id of the one that `served` the question."""
    released = Counter(level.word for level in levels)
    return {
        "kind": "release",
        "id": served["id"],
        "at": gate.clock(),
        "node": str(gate.node),
        "caller": str(caller),
        "requester": str(requester),
        "model": collection,
        "released": dict(sorted(released.items())),
        "charged": charged,
    }
