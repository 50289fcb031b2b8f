"""What a placement costs: decisions a core can take, by size of the mesh.

    python -m bench.bench_placement [--quick] [--json FILE]

Four authorities with 20 policies each, nodes in 20 distinct sets of facts, everybody ready. Decisions in
the small and in the large mesh alternate, so that both see the same machine. Each is given a request
context of its own, equal to one seen before but digested anew, as it would be from the wire; statuses and
reservations are those of a busy mesh. Time is wall time of one thread; garbage collection is on.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from bench.report import Row, command, percentile
from mesh.core.placement import Placer, Reservations
from mesh.core.policy import validate_policy
from mesh.core.snapshot import Candidate, Heads, Snapshot
from mesh.core.types import Action, NodeStatus, Principal, RequestContext, SpiffeId
from tests.support.snapshots import NOW, client, document, example_policies, node

COUNTRIES = ("de", "fr", "us", "nl")
POLICIES = 20
ATTRIBUTE_SETS = 20
SMALL, LARGE = 1_000, 10_000


def policies_of(country: str) -> str:
    """20 policies: the example of that country (Germany's where there is none), and forbids to fill up."""
    examples = example_policies()
    text = examples.get(f"{country}.mesh.example") or examples["fr.mesh.example"].replace(
        '"FR"', f'"{country.upper()}"'
    )
    for i in range(POLICIES - len(validate_policy(text))):
        text += f"""
@id("filler-{i}")
forbid (principal, action, resource)
when {{ context.purpose == "never/{i}" && !resource.assurances.contains("A{i}") }};
"""
    return text


class Mesh:
    """A mesh of `size` nodes and one placer in it."""

    def __init__(self, size: int) -> None:
        trust_domains = [f"{c}.mesh.example" for c in COUNTRIES]
        nodes: list[Candidate] = [
            node(
                trust_domains[i % len(trust_domains)],
                f"n{i}",
                assurances=[f"A{i % ATTRIBUTE_SETS // len(trust_domains)}"],
            )
            for i in range(size)
        ]
        assert len({(n.id.trust_domain, n.facts.attributes) for n in nodes}) == ATTRIBUTE_SETS
        keys = {td: {f"/sovereign/v1/{td}/facts/{n.id.name}": 1 for n in nodes} for td in trust_domains}
        self.snapshot = Snapshot(
            version=1,
            trust_domain=trust_domains[0],
            policies={td: document(policies_of(c)) for c, td in zip(COUNTRIES, trust_domains, strict=True)},
            candidates={n.id: n for n in nodes},
            heads={td: Heads(NOW, 3600.0, keys[td]) for td in trust_domains},
            generations={key: (1, "") for known in keys.values() for key in known},
        )
        self.statuses = {
            SpiffeId.parse(str(n.id)): NodeStatus(True, i % 7, i % 3, 8, reported_at=NOW)
            for i, n in enumerate(nodes)
        }
        self.reservations = Reservations()
        self.placer = Placer()
        self.decisions = 0

    def place(self, context: RequestContext, placer: Placer | None = None) -> float:
        """Takes one decision; returns seconds."""
        self.decisions += 1
        decision_id = str(self.decisions)
        # Another client of the same tenant each time, from another verified certificate.
        principal = Principal(SpiffeId("de.mesh.example", f"/client/firm-b/c{self.decisions % 50}"))
        placing = placer or self.placer
        start = time.perf_counter()
        decision = placing.place(
            self.snapshot,
            self.statuses,
            principal=principal,
            action=Action.INFER,
            context=context,
            model="tiny",
            placer=GATEWAY,
            now=NOW + self.decisions / 10_000,
            decision_id=decision_id,
            reservations=self.reservations,
        )
        elapsed = time.perf_counter() - start
        assert decision.permitted
        return elapsed

    def judge(self, context: RequestContext) -> float:
        """What the receiving node does once more; returns seconds."""
        start = time.perf_counter()
        decision = self.placer.judge_here(
            self.snapshot,
            GATEWAY,
            principal=client("firm-b"),
            action=Action.INFER,
            context=context,
            model="tiny",
            now=NOW,
            decision_id="d",
        )
        elapsed = time.perf_counter() - start
        assert decision.permitted
        return elapsed


GATEWAY = SpiffeId("de.mesh.example", "/node/n0")


def confidential(purpose: str = "drafting") -> RequestContext:
    """A request that two of the four jurisdictions may serve."""
    return RequestContext.of(["confidential"], purpose, transfer_basis="adequacy")


def interleaved(measured: list[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Runs each in turn, `rounds` times."""
    taken: list[list[float]] = [[] for _ in measured]
    for _ in range(rounds):
        for times, measure in zip(taken, measured, strict=True):
            times.append(measure())
    return taken


def measure(quick: bool) -> list[Row]:
    """All rows; a minute, or seconds if quick."""
    rounds = 2_000 if quick else 30_000
    small, large = Mesh(SMALL), Mesh(LARGE)
    for mesh in (small, large):
        mesh.place(confidential())
        mesh.judge(confidential())
    seen_small, seen_large, judged = interleaved(
        [
            lambda: small.place(confidential()),
            lambda: large.place(confidential()),
            lambda: small.judge(confidential()),
        ],
        rounds,
    )
    new = [small.place(confidential(f"new/{i}")) for i in range(10 if quick else 100)]
    cold = [small.place(confidential(), Placer()) for _ in range(3 if quick else 20)]
    resigned = []
    for i in range(10 if quick else 100):
        heads = {td: replace(h, signed_at=NOW + i + 1) for td, h in small.snapshot.heads.items()}
        small.snapshot = replace(small.snapshot, heads=heads)
        resigned.append(small.place(confidential()))
    return [
        Row(f"{SMALL} nodes, seen before, p50", percentile(seen_small, 0.5) * 1e6, "us", 50),
        Row(f"{SMALL} nodes, seen before, p99", percentile(seen_small, 0.99) * 1e6, "us", 250),
        Row(f"{LARGE} nodes, seen before, p50", percentile(seen_large, 0.5) * 1e6, "us"),
        Row(f"{LARGE} nodes, seen before, p99", percentile(seen_large, 0.99) * 1e6, "us"),
        Row(
            f"{LARGE} over {SMALL} nodes, p50",
            percentile(seen_large, 0.5) / percentile(seen_small, 0.5),
            "x",
            2,
        ),
        Row(
            f"{LARGE} over {SMALL} nodes, p99",
            percentile(seen_large, 0.99) / percentile(seen_small, 0.99),
            "x",
            2,
        ),
        Row(f"{SMALL} nodes, first decision of a context, p50", statistics.median(new) * 1e3, "ms", 20),
        Row(f"{SMALL} nodes, first decision of a context, worst", max(new) * 1e3, "ms", 20),
        Row(f"{SMALL} nodes, first decision of a new process, p50", statistics.median(cold) * 1e3, "ms"),
        Row(f"{SMALL} nodes, after heads were signed anew, p50", statistics.median(resigned) * 1e3, "ms"),
        Row("the receiving node's own decision, p50", percentile(judged, 0.5) * 1e6, "us"),
    ]


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
