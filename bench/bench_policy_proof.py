"""What proving costs: every combination of nodes, classes, purposes and actions, both keys.

    python -m bench.bench_policy_proof [--quick] [--json FILE]

The mesh is that of bench_placement: four authorities with 20 policies each, 1,000 nodes in 20 distinct
sets of facts. Every sender's requests are asked about: 5 classes x 20 purposes (half of them named by some
policy) x 6 actions, release at each of its four levels. Every node is controlled from the US, each policy
set forbids that at its end, and the query is that nothing ever reaches such a node: nothing may be left
out, and there is no witness at which to stop. Time is wall time of one thread, nothing remembered.

The naive way asks Cedar once for each combination and key; it is measured on a sample that is drawn at
random, and extrapolated.
"""

from __future__ import annotations

import datetime
import random
import sys
import time
from dataclasses import replace

from bench.bench_placement import COUNTRIES, policies_of
from bench.report import Row, command
from mesh.core.policy import Disclosure, PolicyEngine
from mesh.core.policy_diff import compare
from mesh.core.policy_flows import LEVELS, Scope, World
from mesh.core.policy_proof import Query, prove
from mesh.core.policy_view import Subject
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass, Principal, RequestContext, SpiffeId
from tests.support.snapshots import document, example_policies, node

ON = datetime.date(2026, 3, 1)
NODES, PURPOSES, SETS = 1_000, 20, 5
UNDER_US_CONTROL = 'resource.controller == Jurisdiction::"US"'
FORBIDDEN = f'@id("never") forbid (principal, action, resource) when {{ {UNDER_US_CONTROL} }};'
DE = "de.mesh.example"


def mesh() -> World:
    """1,000 nodes of four authorities in 20 sets of facts."""
    authorities = [f"{country}.mesh.example" for country in COUNTRIES]
    nodes = [
        node(
            authorities[i % len(authorities)],
            f"n{i}",
            controller="US",
            assurances=[f"A{i // len(authorities) % SETS}"],
        )
        for i in range(NODES)
    ]
    policies = {
        authority: document(policies_of(country) + FORBIDDEN)
        for country, authority in zip(COUNTRIES, authorities, strict=True)
    }
    snapshot = Snapshot(version=1, trust_domain=authorities[0], policies=policies)
    return World(snapshot, ON, tuple(Subject(n.id, n.facts) for n in nodes), trusting=False)


def scope() -> Scope:
    """Everything, for 20 purposes."""
    named = [f"never/{i}" for i in range(PURPOSES // 2)]
    return Scope(purposes=(*named, *(f"work/{i}" for i in range(PURPOSES - len(named)))))


def naive(world: World, rounds: int) -> float:
    """Seconds for all combinations, one Cedar call each and for each key, from a random sample."""
    pick = random.Random(1)
    assert world.nodes is not None
    engine = PolicyEngine()
    caller = Principal(SpiffeId(DE, "/client/firm/a"))
    for authority in world.known:  # what is measured is asking, not reading the policies
        engine.names_nodes(world.snapshot, authority)
    began = time.perf_counter()
    for _ in range(rounds):
        subject, action = pick.choice(world.nodes), pick.choice(list(Action))
        context = RequestContext.of([pick.choice(list(DataClass))], pick.choice(scope().purposes))
        sender = pick.choice(world.known)
        release = None
        if action is Action.RELEASE:
            release = Disclosure(context.judged_classes, pick.choice(LEVELS).word, "", "papers")
        for authority in {sender, subject.node.trust_domain}:
            engine.judge_each(world.snapshot, authority, caller, [(action, context, release)], [subject], ON)
    each = (time.perf_counter() - began) / rounds
    requests = len(DataClass) * PURPOSES * (len(Action) - 1 + len(LEVELS))
    return each * requests * NODES * len(world.known)


def measure(quick: bool) -> list[Row]:
    """All rows; a minute, or seconds if quick."""
    world = mesh()
    began = time.perf_counter()
    proof = prove(PolicyEngine(), world, Query(UNDER_US_CONTROL, scope()))
    proving = time.perf_counter() - began
    assert proof.holds
    asking = naive(world, 20 if quick else 300)
    changed = document(world.snapshot.policies[DE].cedar.replace('"public"', '"internal"'))
    began = time.perf_counter()
    compare(PolicyEngine(), world, DE, world.snapshot.policies[DE], changed, scope())
    comparing = time.perf_counter() - began
    examples = {td: document(text) for td, text in example_policies().items()}
    anywhere = replace(
        world, snapshot=Snapshot(version=1, trust_domain=DE, policies=examples), nodes=None, trusting=True
    )
    special = Scope(classes=frozenset({DataClass.SPECIAL_CATEGORY}), senders=(DE,))
    began = time.perf_counter()
    assert prove(PolicyEngine(), anywhere, Query(UNDER_US_CONTROL, special)).holds
    over_any = time.perf_counter() - began
    shape = f"{NODES:,} nodes x 5 classes x {PURPOSES} purposes x 6 actions"
    return [
        Row(f"prove: {shape}, from 4 authorities", proving, "s", reach=10.0),
        Row("of it: combinations judged", proof.combinations / 1e6, "million"),
        Row("of it: distinct questions to Cedar", proof.questions / 1e3, "thousand"),
        Row("times faster than a call each (a sample, extrapolated)", asking / proving, "x"),
        Row("diff: the same space, one authority's change", comparing, "s"),
        Row("prove: the examples, over any node that could exist", over_any, "s"),
    ]


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
