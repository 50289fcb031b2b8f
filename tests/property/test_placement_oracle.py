"""Placement against an oracle that filters everything and sorts everything (I1 to I4)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import Reason
from mesh.core.jurisdictions import Groups
from mesh.core.placement import Decision, Placer
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate, Heads, Revocations, Snapshot
from mesh.core.types import Action, NodeStatus, Principal, RequestContext, SpiffeId
from tests.property import generated as gen
from tests.property.reference_policy import Policy, Request, permits
from tests.support.snapshots import document

DAY_START = datetime.datetime.combine(gen.DAYS[1], datetime.time(), datetime.UTC).timestamp()
NOW = DAY_START + 3600.0
MAX_AGE_S = 60.0


@dataclass(frozen=True)
class World:
    """A snapshot, the policies behind its text, and what nodes last said."""

    snapshot: Snapshot
    policies: Mapping[str, tuple[Policy, ...]]
    groups: Groups
    statuses: Mapping[SpiffeId, NodeStatus]


@dataclass(frozen=True)
class Asked:
    """One placement."""

    principal: Principal
    action: Action
    context: RequestContext
    model: str
    excluded: frozenset[SpiffeId]
    placer: SpiffeId
    spec: CollectionSpec | None = None


statuses = st.builds(
    NodeStatus,
    ready=st.sampled_from([True, True, True, False]),
    in_flight=st.integers(0, 9),
    queued=st.integers(0, 3),
    capacity=st.integers(0, 8),
    draining=st.sampled_from([False, False, False, True]),
    reported_at=st.sampled_from([NOW, NOW - MAX_AGE_S, NOW - MAX_AGE_S - 1]),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes = draw(gen.candidates())
    policies = {
        td: draw(gen.policy_sets()) for td in draw(st.sets(st.sampled_from(gen.TRUST_DOMAINS), min_size=2))
    }
    groups = draw(gen.groups())
    heads = {
        td: Heads(
            draw(st.sampled_from([NOW, NOW, NOW - MAX_AGE_S - 1, NOW + 31])),
            MAX_AGE_S,
            draw(st.sampled_from([{}, {}, {"k": 1}])),
        )
        for td in gen.TRUST_DOMAINS
    }
    snapshot = Snapshot(
        version=1,
        trust_domain=gen.TRUST_DOMAINS[0],
        policies={td: document("\n".join(p.cedar() for p in ps)) for td, ps in policies.items()},
        candidates={n.id: n for n in nodes},
        revocations={n.id.trust_domain: Revocations(ids=frozenset({n.id})) for n in nodes if draw(_seldom)},
        heads=heads,
        groups={td: groups for td in gen.TRUST_DOMAINS},
    )
    return World(snapshot, policies, groups, {n.id: draw(statuses) for n in nodes if not draw(_seldom)})


_seldom = st.sampled_from([False] * 7 + [True])
PARTS: dict[str, st.SearchStrategy[object]] = {
    "principal": gen.clients,
    "action": gen.actions,
    "context": gen.contexts,
    "model": st.sampled_from(["", "small", "large", "none"]),
    "excluded": st.frozensets(st.sampled_from(gen.NODES), max_size=2),
    "placer": st.sampled_from(
        [SpiffeId(td, p) for td in gen.TRUST_DOMAINS[:2] for p in ("/node/n0", "/control/main")]
    ),
}
asked = st.builds(Asked, **PARTS)  # type: ignore[arg-type]


@st.composite
def related(draw: st.DrawFn) -> list[Asked]:
    """One placement, and others that differ from it in one part each."""
    first = draw(asked)
    changed = draw(st.lists(st.sampled_from(sorted(PARTS)), max_size=5))
    return [first, *(replace(first, **{part: draw(PARTS[part])}) for part in changed)]


def oracle(world: World, ask: Asked) -> tuple[list[tuple[float, SpiffeId]], dict[SpiffeId, Reason]]:
    """Every permitted node with its score, best first; and why each other one that is considered is refused.

    For a search these are the nodes that could ask on the caller's behalf, all of its own trust domain;
    for a fan-out those that hold the collection.
    """
    ranked: list[tuple[float, SpiffeId]] = []
    refused: dict[SpiffeId, Reason] = {}
    for node in world.snapshot.candidates.values():
        holds = [held.name for held in node.record.collections]
        if ask.spec and ask.spec.name not in holds:
            continue
        if (
            ask.action is Action.SEARCH
            and not ask.spec
            and node.id.trust_domain != ask.principal.id.trust_domain
        ):
            continue
        reason = first_problem(world, ask, node)
        if reason is None:
            status = world.statuses.get(node.id, NodeStatus(True, 0, 0, 1))
            ranked.append(((status.in_flight + status.queued) / max(1, status.capacity), node.id))
        else:
            refused[node.id] = reason
    return sorted(ranked, key=lambda entry: (entry[0], str(entry[1]))), refused


def first_problem(world: World, ask: Asked, node: Candidate) -> Reason | None:
    sender, receiver = ask.principal.id.trust_domain, node.id.trust_domain
    narrowing = ask.context.narrowing
    models = [m.name for m in node.record.models]
    anywhere = [m.name for c in world.snapshot.candidates.values() for m in c.record.models]
    if ask.placer.trust_domain not in (sender, receiver):
        return Reason.PLACER_NOT_ENTITLED
    if any(node.id in r.ids for r in world.snapshot.revocations.values()):
        return Reason.IDENTITY_REVOKED
    by_model = ask.model and ask.action is not Action.SEARCH
    if by_model and ask.model not in anywhere:
        return Reason.MODEL_NOT_SERVED
    if narrowing.allowed_jurisdictions and node.facts.location not in narrowing.allowed_jurisdictions:
        return Reason.NARROWED_JURISDICTION
    if not narrowing.required_assurances <= node.facts.assurances:
        return Reason.NARROWED_ASSURANCE
    question = Request(
        ask.principal.id, str(ask.action), node.id, node.facts, ask.context, world.groups, gen.DAYS[1]
    )
    for authority, denies in (
        (sender, Reason.POLICY_SENDER_DENIES),
        (receiver, Reason.POLICY_RECEIVER_DENIES),
    ):
        if authority not in world.policies:
            return Reason.POLICY_MISSING
        if not permits(world.policies[authority], question)[0]:
            return denies
    if node.facts.cordoned:
        return Reason.NODE_CORDONED
    if by_model and ask.model not in models:
        return Reason.MODEL_NOT_SERVED
    if ask.spec and ask.spec.digest not in [held.digest for held in node.record.collections]:
        return Reason.COLLECTION_MISMATCH
    if node.id in ask.excluded:
        return Reason.NODE_EXCLUDED
    crosses = sender != receiver
    if crosses and not (fresh(world, sender) and fresh(world, receiver)):
        return Reason.RECORDS_STALE
    status = world.statuses.get(node.id)
    if status is None:
        # Whoever fans out knows that it is there itself.
        return None if ask.spec and node.id == ask.placer else Reason.NODE_NOT_READY
    if status.draining or not (status.ready or ask.action is Action.SEARCH):
        return Reason.NODE_NOT_READY
    if crosses and NOW - status.reported_at > MAX_AGE_S:
        return Reason.RECORDS_STALE
    return None


def fresh(world: World, trust_domain: str) -> bool:
    heads = world.snapshot.heads[trust_domain]
    return heads.signed_at - 30 <= NOW <= heads.signed_at + MAX_AGE_S and not heads.generations


def place(placer: Placer, world: World, ask: Asked, *, explain: bool) -> Decision:
    return placer.place(
        world.snapshot,
        world.statuses,
        principal=ask.principal,
        action=ask.action,
        context=ask.context,
        model=ask.model,
        excluded=ask.excluded,
        placer=ask.placer,
        now=NOW,
        decision_id="d",
        explain=explain,
    )


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=150)
@given(st.lists(worlds(), min_size=1, max_size=2), related())
def test_agrees_with_the_oracle(several: list[World], asks: list[Asked]) -> None:
    """One placer goes through worlds and questions, to and fro: its memory must not show."""
    placer = Placer()
    for world in several + several:
        for ask in asks:
            ranked, refused = oracle(world, ask)
            explained = place(placer, world, ask, explain=True)
            assert [(r.score, r.node) for r in explained.ranked] == ranked
            assert {r.node: r.reason for r in explained.refused} == refused
            assert explained.refused_total == len(refused)
            decision = place(placer, world, ask, explain=False)
            assert decision.chosen == (ranked[0][1] if ranked else None)
            assert decision.permitted is bool(ranked)
            if not ranked:
                assert {r.node: r.reason for r in decision.refused} == refused


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=100)
@given(worlds(), asked)
def test_a_small_window_permits_nothing_more_and_finds_what_there_is(world: World, ask: Asked) -> None:
    placer = Placer(window=2)
    ranked, refused = oracle(world, ask)
    seen: set[SpiffeId] = set()
    for _ in range(len(ranked) + 1):
        decision = place(placer, world, ask, explain=False)
        nodes = [r.node for r in decision.ranked]
        assert set(nodes) <= {node for _, node in ranked}
        assert [(r.score, str(r.node)) for r in decision.ranked] == sorted(
            (r.score, str(r.node)) for r in decision.ranked
        )
        assert {r.node for r in decision.refused} <= set(refused)
        assert decision.permitted is bool(ranked)
        seen.update(nodes)
    assert seen == {node for _, node in ranked}


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=150)
@given(worlds(), asked)
def test_i2_the_receiver_refuses_at_least_what_the_placer_refuses_by_record(world: World, ask: Asked) -> None:
    """What the receiving node decides by itself is what the placer decided, readiness aside."""
    entitled = replace(ask, placer=SpiffeId(ask.principal.id.trust_domain, "/control/main"))
    everybody_ready = replace(
        world, statuses={n: NodeStatus(True, 0, 0, 1, reported_at=NOW) for n in world.snapshot.candidates}
    )
    for candidate in world.snapshot.candidates.values():
        node = candidate.id
        # A receiver knows its own models, not whether a model is served anywhere.
        reason = first_problem(everybody_ready, replace(entitled, excluded=frozenset()), candidate)
        decision = Placer().judge_here(
            world.snapshot,
            node,
            principal=ask.principal,
            action=ask.action,
            context=ask.context,
            model=ask.model,
            now=NOW,
            decision_id="d",
        )
        assert decision.permitted is (reason is None)


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=150)
@given(st.lists(worlds(), min_size=1, max_size=2), related(), st.sampled_from([gen.PAPERS, gen.LIKE_PAPERS]))
def test_i1_a_fan_out_asks_all_that_are_permitted_and_nobody_else(
    several: list[World], asks: list[Asked], spec: CollectionSpec
) -> None:
    placer = Placer(window=2)
    for world in several + several:
        for ask in asks:
            searched = replace(ask, action=Action.SEARCH, model=spec.name, excluded=frozenset(), spec=spec)
            ranked, refused = oracle(world, searched)
            decision = placer.fan_out(
                world.snapshot,
                world.statuses,
                principal=ask.principal,
                context=ask.context,
                spec=spec,
                placer=ask.placer,
                now=NOW,
                decision_id="d",
            )
            assert [(r.score, r.node) for r in decision.ranked] == ranked
            assert {r.node: r.reason for r in decision.refused} == refused
            assert decision.permitted is bool(ranked)
            assert decision.considered == len(ranked) + len(refused)
            place(placer, world, ask, explain=False)  # must not disturb what is remembered for the other
