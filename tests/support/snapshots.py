"""Snapshots without signatures, for tests of what decides: nodes, policies and statuses from few words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mesh.core.snapshot import Candidate, Heads, PolicyDocument, Snapshot
from mesh.core.types import (
    Model,
    NodeFacts,
    NodeRecord,
    NodeStatus,
    Principal,
    SpiffeId,
    Task,
    jurisdiction_of,
)

NOW = 1_780_000_000.0  # 2026-05-28
MAX_AGE_S = 60.0
MODEL = Model("tiny", "sha256:00", 2048, frozenset({Task.GENERATE, Task.EMBED}))
EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"

DE, FR, US = "de.mesh.example", "fr.mesh.example", "us.mesh.example"
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


def client(name: str = "clinic-a", trust_domain: str = DE) -> Principal:
    """A client of a tenant of the same name."""
    return Principal(SpiffeId(trust_domain, f"/client/{name}"))


def node(
    trust_domain: str,
    name: str,
    *,
    location: str = "",
    controller: str = "",
    admin_access: Iterable[str] = (),
    assurances: Iterable[str] = (),
    cordoned: bool = False,
    models: tuple[Model, ...] = (MODEL,),
) -> Candidate:
    """A node that is at home in its authority's country unless said otherwise."""
    home = jurisdiction_of(trust_domain)
    facts = NodeFacts(
        location=location or home,
        operator_domicile=home,
        controller=controller or home,
        admin_access=frozenset(admin_access) or frozenset({home}),
        assurances=frozenset(assurances),
        cordoned=cordoned,
        dns_name=f"{name}.node.{trust_domain}",
    )
    return Candidate(
        SpiffeId(trust_domain, f"/node/{name}"), facts, NodeRecord((f"{name}.example:443",), models)
    )


def document(cedar: str) -> PolicyDocument:
    """A policy document with the digest of its text."""
    return PolicyDocument(cedar, "sha256:" + hashlib.sha256(cedar.encode()).hexdigest(), 1)


def snapshot_of(
    nodes: Iterable[Candidate], policies: Mapping[str, str] | None = None, *, signed_at: float = NOW
) -> Snapshot:
    """A snapshot with fresh heads for every authority in it."""
    candidates = {n.id: n for n in nodes}
    texts = {DE: PERMIT_ALL, FR: PERMIT_ALL, US: PERMIT_ALL} if policies is None else policies
    authorities = {DE, FR, US, *texts, *(n.trust_domain for n in candidates)}
    return Snapshot(
        version=1,
        trust_domain=DE,
        policies={trust_domain: document(cedar) for trust_domain, cedar in texts.items()},
        candidates=candidates,
        heads={trust_domain: Heads(signed_at, MAX_AGE_S, {}) for trust_domain in authorities},
    )


def example_policies() -> dict[str, str]:
    """The policies in examples/policies, by trust domain."""
    return {f"{c}.mesh.example": (EXAMPLES / f"{c}.cedar").read_text() for c in ("de", "fr", "us")}


def idle(
    nodes: Iterable[Candidate], *, reported_at: float = NOW, **changes: object
) -> dict[SpiffeId, NodeStatus]:
    """Statuses of nodes that are ready and have nothing to do; `changes` apply to all."""
    status = NodeStatus(ready=True, in_flight=0, queued=0, capacity=8, reported_at=reported_at)
    return {n.id: replace(status, **changes) for n in nodes}  # type: ignore[arg-type]
