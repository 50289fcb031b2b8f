"""What goes into the log: decisions and requests as entries, and entries as bytes.

Entries hold metadata only: who asked, what kind of data for what purpose, which policies by digest said
what, who was refused and why, what was sent where. Never a payload, nor a permit's bytes.

Kinds of entry: "place" (where a request may go, or why nowhere), "serve" (whether this node lets it to its
engine; outcome "served" or "refused" with a reason), "search", "answer" and "fetch" (which nodes are asked
a client's question), "covered" (what became of each of them), "shard" (whether this node's index answers
another node, and how many release groups that sees at which level), "release" (how many chunks left an
index at which level, of which classes, to whom, on which decision), "cut" (a served request that may not go
on), "action" (what an administrator had the control plane do). "bytes" is the size of a whole request. Of a
question there is neither text nor terms, of a document not even its id.

As bytes they are JSON in one form only: keys sorted, nothing between the tokens, ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mesh.core.decision import Decision
from mesh.core.tiles import MAX_ENTRY_BYTES
from mesh.core.types import RequestContext
from mesh.evidence.base import Entry, unavailable

# Explained decisions can name every node of a large mesh; the log keeps as many as tell the story.
MAX_LOGGED_REFUSALS = 100
# Where an entry says how many of a list were left out for its size.
LEFT_OUT = "left_out"
_ENCODER = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def decision_entry(decision: Decision) -> dict[str, object]:
    """A decision as the log keeps it."""
    return {
        "id": decision.id,
        "decided_by": str(decision.decided_by),
        "at": decision.decided_at,
        "permitted": decision.permitted,
        "ranked": [
            {
                "node": str(r.node),
                "location": r.location,
                "score": round(r.score, 4),
                "permitted_by": r.permitted_by,
            }
            for r in decision.ranked
        ],
        "refused": [
            {"node": str(r.node), "location": r.location, "reason": r.reason.code, "policies": r.policies}
            for r in decision.refused[:MAX_LOGGED_REFUSALS]
        ],
        "refused_total": decision.refused_total,
        "considered": decision.considered,
        "policies": dict(decision.policy_digests),
        "snapshot": decision.snapshot_version,
    }


def context_entry(context: RequestContext) -> dict[str, object]:
    """A request's statement about itself as the log keeps it; metadata by definition (I2)."""
    return {
        "data_classes": sorted(context.data_classes),
        "purpose": context.purpose,
        "transfer_basis": context.transfer_basis,
        "tenant": context.tenant,
        "allowed_jurisdictions": sorted(context.narrowing.allowed_jurisdictions),
        "required_assurances": sorted(context.narrowing.required_assurances),
        "digest": context.digest.hex(),
    }


def encode(entry: Entry) -> bytes:
    """The entry's bytes, at most 65,535.

    Of one that is larger, lists are cut from their ends, those named "refused" first, then the longest; the
    bytes then say in `left_out` how many of which list are missing. EVIDENCE_UNAVAILABLE if no list is left
    to cut; TypeError and ValueError for what is no JSON.
    """
    data = _canonical(entry)
    if len(data) <= MAX_ENTRY_BYTES:
        return data
    copy: dict[str, Any] = json.loads(data)
    left_out: dict[str, int] = {}
    while len(data) > MAX_ENTRY_BYTES:
        path, items = max(
            _lists(copy, ""),
            key=lambda found: (found[0].endswith("refused"), len(_canonical(found[1]))),
            default=("", []),
        )
        if not items:
            raise unavailable()
        excess = len(data) - MAX_ENTRY_BYTES
        while items and excess > 0:
            excess -= len(_canonical(items.pop())) + 1
            left_out[path] = left_out.get(path, 0) + 1
        data = _canonical({**copy, LEFT_OUT: left_out})
    return data


def ids_of(entry: Entry) -> tuple[str, ...]:
    """The ids by which an entry is found: its own, that of its decision, that of the decision on whose permit
    it rests or by which it came. These tie what a node did to what another one decided."""
    found = [entry.get("id"), entry.get("asked")]
    for name, inner in (("decision", "id"), ("permit", "decision")):
        if isinstance(part := entry.get(name), Mapping):
            found.append(part.get(inner))
    return tuple(dict.fromkeys(str(each) for each in found if isinstance(each, str | int)))


def ids_in(data: bytes) -> tuple[str, ...]:
    """The same of an entry's bytes; none also if they are no JSON object."""
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    return ids_of(entry) if isinstance(entry, dict) else ()


def _canonical(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _lists(value: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """Every list that is not empty, with its path; of lists in lists, the outer one only."""
    if isinstance(value, list) and value:
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _lists(inner, f"{path}.{key}" if path else key)
