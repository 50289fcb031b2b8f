"""Release against an oracle that asks about every level of every group, one by one (I1, I3, I4)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.jurisdictions import Groups
from mesh.core.policy import PolicyEngine
from mesh.core.release import ReleasePolicy
from mesh.core.retrieval import ReleaseGroup, ReleaseLevel
from mesh.core.snapshot import Candidate, Heads, Snapshot
from mesh.core.types import DataClass, NodeFacts, NodeRecord, Principal, RequestContext, SpiffeId
from tests.property import generated as gen
from tests.property import reference_policy as ref
from tests.property.reference_policy import Policy, Request, permits
from tests.support.snapshots import document

NOW = datetime.datetime.combine(gen.DAYS[1], datetime.time(7), datetime.UTC).timestamp()
HOLDERS = [SpiffeId(td, "/node/n0") for td in gen.TRUST_DOMAINS[:2]]
LEVELS = ["count", "reference", "snippet", "passage"]
OWNERS = ["", "ward-1", "ward-2"]

# Chains of levels, so that permissive sets are common; odd ones too, since levels are steps.
levels = st.sampled_from([LEVELS[: i + 1] for i in range(4)] + [["passage"], ["count", "snippet", "passage"]])
about_documents = st.one_of(
    levels.map(lambda found: ref.level_is(*found)),
    st.sampled_from(OWNERS).map(ref.owner_is),
    st.sampled_from(["papers", "letters"]).map(ref.collection_is),
)


@st.composite
def policy_sets(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Policies about release, and some about every action."""
    return tuple(
        Policy(
            id=f"p{i}",
            effect=draw(st.sampled_from(["permit", "permit", "permit", "forbid"])),
            actions=("release",) if special else (),
            conditions=tuple(
                draw(
                    st.lists(st.one_of(about_documents, gen.simple_conditions), max_size=2)
                    if special
                    else st.lists(gen.simple_conditions, max_size=2)
                )
            ),
        )
        for i, special in enumerate(draw(st.lists(st.sampled_from([True, True, False]), max_size=6)))
    )


groups_of_documents = st.dictionaries(
    st.integers(0, 9),
    st.builds(
        ReleaseGroup,
        tenant=st.sampled_from(["", "", "t1", "t2"]),
        owner=st.sampled_from(OWNERS),
        classes=st.frozensets(st.sampled_from(list(DataClass)), max_size=2),
    ),
    max_size=6,
)


@dataclass(frozen=True)
class World:
    snapshot: Snapshot
    policies: Mapping[str, tuple[Policy, ...]]
    groups: Groups
    fresh: Mapping[str, bool]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    policies = {
        td: found for td in gen.TRUST_DOMAINS[:3] if (found := draw(policy_sets()))
    }  # no policies: none published
    groups = draw(gen.groups())
    fresh = {td: draw(st.sampled_from([True] * 7 + [False])) for td in gen.TRUST_DOMAINS}
    facts: list[NodeFacts] = [draw(gen.facts) for _ in HOLDERS]
    record = NodeRecord(("h:1",), ())
    snapshot = Snapshot(
        version=1,
        trust_domain=gen.TRUST_DOMAINS[0],
        policies={td: document("\n".join(p.cedar() for p in ps)) for td, ps in policies.items()},
        candidates={n: Candidate(n, f, record) for n, f in zip(HOLDERS, facts, strict=True)},
        heads={td: Heads(NOW if fresh[td] else NOW - 61, 60, {}) for td in gen.TRUST_DOMAINS},
        groups={td: groups for td in gen.TRUST_DOMAINS},
    )
    return World(snapshot, policies, groups, fresh)


@dataclass(frozen=True)
class Asked:
    holder: SpiffeId
    principal: Principal
    context: RequestContext
    collection: str


asked = st.builds(
    Asked,
    holder=st.sampled_from(HOLDERS),
    principal=gen.clients,
    context=gen.contexts,
    collection=st.sampled_from(["papers", "letters"]),
)


def oracle(world: World, ask: Asked, group: ReleaseGroup) -> ReleaseLevel:
    here, there = ask.holder.trust_domain, ask.principal.id.trust_domain
    if here != there and not (world.fresh[here] and world.fresh[there]):
        return ReleaseLevel.NOTHING
    if group.tenant and (here != there or ask.principal.tenant != group.tenant):
        return ReleaseLevel.NOTHING
    if not group.classes:
        return ReleaseLevel.NOTHING
    reached = ReleaseLevel.NOTHING
    for number, level in enumerate(LEVELS, 1):
        request = Request(
            ask.principal.id,
            "release",
            ask.holder,
            world.snapshot.candidates[ask.holder].facts,
            replace(ask.context, data_classes=group.classes),
            world.groups,
            gen.DAYS[1],
            level,
            group.owner,
            ask.collection,
        )
        if not all(td in world.policies and permits(world.policies[td], request)[0] for td in (here, there)):
            break
        reached = ReleaseLevel(number)
    return reached


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=200)
@given(
    st.lists(worlds(), min_size=1, max_size=2), st.lists(asked, min_size=1, max_size=4), groups_of_documents
)
def test_agrees_with_the_oracle(
    several: list[World], asks: Sequence[Asked], groups: dict[int, ReleaseGroup]
) -> None:
    """One policy memory goes through worlds and questions, to and fro: it must not show."""
    release = ReleasePolicy(PolicyEngine())
    for world in several + several:
        for ask in asks:
            found = release.levels(
                world.snapshot, ask.holder, ask.principal, ask.context, ask.collection, groups, NOW
            )
            assert found == {number: oracle(world, ask, group) for number, group in groups.items()}


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=100)
@given(worlds(), asked, groups_of_documents, st.sampled_from(list(ReleaseLevel)[1:]))
def test_an_explanation_says_what_the_level_says(
    world: World, ask: Asked, groups: dict[int, ReleaseGroup], level: ReleaseLevel
) -> None:
    release = ReleasePolicy(PolicyEngine())
    for group in groups.values():
        verdict = release.explain(
            world.snapshot, ask.holder, ask.principal, ask.context, ask.collection, group, level, NOW
        )
        assert verdict.allowed is (oracle(world, ask, group) >= level)
        assert bool(verdict.reason) is not verdict.allowed
