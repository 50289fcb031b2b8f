"""What the decision log says of what leaves an index: how many chunks at which level, of which data classes,
to whom, from where and for what. Never which (I1, I7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import DataClass, RequestContext, SpiffeId
from mesh.evidence import context_entry
from node.gate import Entry, Gate


def release_entry(
    gate: Gate,
    served: Entry,
    caller: SpiffeId,
    requester: SpiffeId,
    collection: str,
    levels: Iterable[ReleaseLevel],
    charged: int,
    classes: Iterable[DataClass],
    context: RequestContext,
    asked: str,
) -> Entry:
    """An entry of kind "release", under the id of the one that `served` the question.

    `classes` are those of the documents it is of, all together; `context` is the question's, and `asked` the
    decision by which it came: the id of the asker's own entry.
    """
    released = Counter(level.word for level in levels)
    here = gate.snapshot.candidates.get(gate.node)
    return {
        "kind": "release",
        "id": served["id"],
        "at": gate.clock(),
        "node": str(gate.node),
        "caller": str(caller),
        "requester": str(requester),
        "model": collection,
        "released": dict(sorted(released.items())),
        "released_classes": sorted(classes),
        "charged": charged,
        "context": context_entry(context),
        "location": here.facts.location if here is not None else "",
        "asked": asked,
    }
