"""Entries as the writers write them, for whoever reads logs: small, and the same every time.

    log = [place("d1", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"}),
           serve("s1", "fr", "de", cites="d1")]
    leaves = leaves_of("fra-1", log)

`tests/integration/test_federated_search.py` holds what real nodes write against the same readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mesh.core.audit_entries import Leaf
from mesh.core.audit_filter import Period
from mesh.core.audit_report import AuditReport

AT = 1_772_366_400.0  # 2026-03-01T12:00:00Z
DIGEST = "sha256:" + "ab" * 32

Entry = dict[str, Any]


def node(country: str, name: str = "one") -> str:
    return f"spiffe://{country}.mesh.example/node/{name}"


def client(country: str, name: str = "clinic/app") -> str:
    return f"spiffe://{country}.mesh.example/client/{name}"


def context(classes: Sequence[str] = ("personal",), purpose: str = "care/triage", basis: str = "") -> Entry:
    return {
        "data_classes": sorted(classes),
        "purpose": purpose,
        "transfer_basis": basis,
        "tenant": "",
        "allowed_jurisdictions": [],
        "required_assurances": [],
        "digest": "00",
    }


def decision(
    id: str, ranked: Iterable[str] = (), refused: Mapping[str, str] | None = None, caller: str = "de"
) -> Entry:
    """`ranked` and `refused` by country, of the node that stands there."""
    permitted, denied = list(ranked), dict(refused or {})
    return {
        "id": id,
        "decided_by": node(caller),
        "at": AT,
        "permitted": bool(permitted),
        "ranked": [
            {"node": node(c), "location": c.upper(), "score": 0.0, "permitted_by": [f"{c}-in"]}
            for c in permitted
        ],
        "refused": [
            {"node": node(c), "location": c.upper(), "reason": why, "policies": [f"{caller}-keeps"]}
            for c, why in denied.items()
        ],
        "refused_total": len(denied),
        "considered": len(permitted) + len(denied),
        "policies": {f"{c}.mesh.example": DIGEST for c in sorted({caller, *permitted, *denied})},
        "snapshot": 7,
    }


def place(
    id: str, caller: str, ranked: Iterable[str] = (), *, refused: Mapping[str, str] | None = None, **more: Any
) -> Entry:
    return {
        "kind": "place", "at": AT, "caller": client(caller), "serial": "01", "action": "infer",
        "model": "tiny", "excluded": [], "context": context(),
        "decision": decision(id, ranked, refused, caller), **more,
    }  # fmt: skip


def serve(id: str, there: str, caller: str, *, cites: str = "", refused: str = "", **more: Any) -> Entry:
    """A request at the node of country `there`; `refused` is the reason, if it is."""
    here = decision(id, caller=caller, **({"refused": {there: refused}} if refused else {"ranked": [there]}))
    return {
        "kind": "serve", "id": id, "at": AT, "node": node(there), "caller": client(caller), "serial": "01",
        "action": "infer", "model": "tiny", "context": context(), "decision": here,
        "permit": {"id": "p", "decision": cites or f"d-{id}", "signer": node(caller), "digest": DIGEST},
        "permit_outcome": "accepted", "outcome": "refused" if refused else "served",
        **({"reason": refused} if refused else {}), **more,
    }  # fmt: skip


def search(
    id: str, asker: str, asked: Iterable[str], *, refused: Mapping[str, str] | None = None, **more: Any
) -> Entry:
    """A client's question at its asker, who may ask the nodes of these countries."""
    return {
        **serve(id, asker, asker), "kind": "search", "action": "search", "model": "handbook",
        "asks": decision(id, asked, refused, asker), **more,
    }  # fmt: skip


def covered(id: str, outcomes: Mapping[str, str], **more: Any) -> Entry:
    nodes = [
        {"node": node(c), "outcome": what, "reason": "" if what == "answered" else "NODE_LOST", "charged": 0}
        for c, what in outcomes.items()
    ]
    return {"kind": "covered", "id": id, "at": AT, "nodes": nodes, **more}


def shard(id: str, holder: str, asker: str, *, cites: str, refused: str = "", **more: Any) -> Entry:
    """A question at the node that holds documents, from the asker of another country."""
    return {
        **serve(id, holder, asker, cites=cites, refused=refused), "kind": "shard", "rpc": "search",
        "caller": node(asker), "caller_location": asker.upper(), "requester": client(asker),
        "action": "search", "model": "handbook", **more,
    }  # fmt: skip


def release(
    id: str, holder: str, to: str, released: Mapping[str, int], *, asked: str = "", **more: Any
) -> Entry:
    return {
        "kind": "release", "id": id, "at": AT, "node": node(holder), "caller": node(to),
        "requester": client(to), "model": "handbook", "released": dict(released),
        "released_classes": ["personal"], "charged": 0, "context": context(),
        "location": holder.upper(), "asked": asked, **more,
    }  # fmt: skip


def cut(id: str, **more: Any) -> Entry:
    return {"kind": "cut", "id": id, "at": AT, "reason": "IDENTITY_REVOKED", **more}


def action(id: str, what: str, state: str, **more: Any) -> Entry:
    by = "spiffe://de.mesh.example/admin/anna"
    return {
        "kind": "action",
        "id": id,
        "action": what,
        "at": AT,
        "by": by,
        "serial": "02",
        "state": state,
        **more,
    }


def encoded(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()


def leaves_of(origin: str, entries: Iterable[Mapping[str, Any]]) -> list[Leaf]:
    return [Leaf(origin, index, encoded(entry)) for index, entry in enumerate(entries)]


def lines_of(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """A file of them."""
    return b"".join(encoded(entry) + b"\n" for entry in entries)


def report_of(logs: Mapping[str, Iterable[Mapping[str, Any]]]) -> Entry:
    """The report's document of several logs, by their names."""
    report = AuditReport(Period())
    for origin, entries in logs.items():
        for leaf in leaves_of(origin, entries):
            report.add(leaf)
    return report.document(made_at=AT)


def between(document: Entry) -> dict[tuple[str, str, str], int]:
    """What went between which countries: (from, to, what) -> how often."""
    return {(row["from"], row["to"], row["what"]): row["count"] for row in document["between"]["rows"]}
