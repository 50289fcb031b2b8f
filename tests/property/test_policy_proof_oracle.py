"""A proof against brute force over a larger space, judged by the one-page reference (I3, I4).

Never does a proof say that something holds where brute force finds a flow; and every witness is one, by
the word of the reference and of the engine that judges requests.
"""

from __future__ import annotations

import datetime
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.policy import Disclosure, PolicyEngine
from mesh.core.policy_diff import compare
from mesh.core.policy_flows import LEVELS, Scope, World
from mesh.core.policy_proof import Query, prove
from mesh.core.policy_view import Asked, Subject
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import Action, DataClass, NodeFacts, Principal, RequestContext, SpiffeId, node_id
from tests.property import generated as gen
from tests.property import reference_policy as ref
from tests.property import seen_differently as seen
from tests.support.snapshots import snapshot_of

DE, FR, US = gen.TRUST_DOMAINS[:3]
EVERYWHERE = [*gen.COUNTRIES, "NL", "JP"]
AUTHORITIES = [DE, FR, US, "nl.mesh.example"]
TRIED = 600

careful = st.one_of(*(st.sampled_from(each) for each in (seen.OF_NODES, seen.OF_REQUESTS, seen.OF_CLASSES)))
conditions = st.one_of(
    gen.simple_conditions,
    careful,
    careful.map(ref.negated),
    st.tuples(gen.simple_conditions, careful).map(lambda two: ref.both(*two)),
    st.tuples(careful, careful).map(lambda two: ref.either(*two)),
)
# About the target, as a query states it; any words but those about the single class.
targets = st.one_of(
    st.sampled_from([*seen.OF_NODES, *seen.OF_REQUESTS]),
    gen.countries.map(ref.controlled_from),
    gen.countries.map(ref.stands_in).map(ref.negated),
    gen.groups_names.map(ref.stands_in_group),
    gen.groups_names.map(ref.administered_within).map(ref.negated),
    st.sampled_from(gen.NODES).map(ref.node_is),
    st.sampled_from(gen.CLIENTS).map(ref.client_is),
)


@st.composite
def policy_sets(draw: st.DrawFn) -> tuple[ref.Policy, ...]:
    return tuple(
        ref.Policy(
            f"p{i}",
            draw(st.sampled_from(["permit", "permit", "forbid"])),
            tuple(draw(st.lists(gen.actions.map(str), max_size=1))),
            tuple(draw(st.lists(conditions, max_size=2))),
        )
        for i in range(draw(st.integers(1, 4)))
    )


@dataclass(frozen=True)
class Mesh:
    """Policies and groups of DE and FR, and what others are taken to do."""

    policies: dict[str, tuple[ref.Policy, ...]]
    groups: dict[str, Groups]
    on: datetime.date
    trusting: bool

    def world(self, nodes: Sequence[Subject] | None = None) -> World:
        texts = {td: "\n".join(p.cedar() for p in each) for td, each in self.policies.items()}
        snapshot = replace(snapshot_of([], texts), groups=self.groups)
        return World(snapshot, self.on, tuple(nodes) if nodes is not None else None, self.trusting)

    def request(self, asked: Asked, subject: Subject, authority: str) -> ref.Request:
        release = asked.release
        words = (release.level, release.owner, release.collection) if release else ()
        return ref.Request(
            asked.principal.id, str(asked.action), subject.node, subject.facts, asked.context,
            self.groups[authority], self.on, *words,
        )  # fmt: skip

    def permits(self, asked: Asked, subject: Subject) -> bool:
        """Both keys, by the reference alone."""
        authorities = {asked.principal.id.trust_domain, subject.node.trust_domain}
        if authorities.isdisjoint(self.policies):
            return False  # nobody's business here
        return all(
            ref.permits(self.policies[each], self.request(asked, subject, each))[0]
            if each in self.policies
            else self.trusting
            for each in authorities
        )


meshes = st.builds(
    lambda de, fr, groups, on, trusting: Mesh({DE: de, FR: fr}, {DE: groups[0], FR: groups[1]}, on, trusting),
    policy_sets(), policy_sets(), st.tuples(gen.groups(), gen.groups()), gen.days, st.booleans(),
)  # fmt: skip


def some_subject(pick: random.Random) -> Subject:
    def country() -> str:
        return pick.choice(EVERYWHERE)

    facts = NodeFacts(
        country(), country(), country(),
        frozenset(pick.choices(EVERYWHERE, k=pick.randint(1, 3))),
        frozenset(a for a in ("C5", "EU-US-DPF", "made-up") if pick.random() < 0.4),
    )  # fmt: skip
    if pick.random() < 0.2:
        return Subject(pick.choice(gen.NODES), facts)
    return Subject(node_id(pick.choice(AUTHORITIES), f"n{pick.randint(5, 9)}"), facts)


def some_asked(pick: random.Random) -> Asked:
    client = pick.choice(gen.CLIENTS)
    if pick.random() < 0.5:
        path = pick.choice(["/client/t1/x", "/client/other", "/client/care/y", "/admin/a"])
        client = SpiffeId(pick.choice(AUTHORITIES), path)
    classes = frozenset(pick.choices(list(DataClass), k=pick.choice([1, 1, 2, 3])))
    purpose = pick.choice(["care", "research", "care/triage", "drafting", "other", "x", "public", "t1"])
    basis = pick.choice(["", "scc", "adequacy"])
    context = RequestContext(classes, purpose, basis, pick.choice(["", client.tenant]))
    return Asked(Principal(client), pick.choice([Action.INFER, Action.EMBED, Action.SEARCH]), context)


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=250)
@given(meshes, targets, st.frozensets(st.sampled_from(list(DataClass)), min_size=1), st.integers(0, 10_000))
def test_over_any_node_nothing_is_overlooked(
    mesh: Mesh, target: ref.Condition, classes: frozenset[DataClass], seed: int
) -> None:
    actions = (Action.INFER, Action.EMBED, Action.SEARCH)
    try:
        proof = prove(PolicyEngine(), mesh.world(), Query(target.cedar, Scope(classes, actions=actions)))
    except MeshError as error:
        assert error.reason is Reason.POLICY_UNDECIDED  # noqa: PT017 - any other is a failure
        return
    if proof.witness is not None:
        asked, subject = proof.witness.asked, proof.witness.subject
        assert mesh.permits(asked, subject)
        assert target.holds(mesh.request(asked, subject, DE), "")
        assert classes & set(asked.context.judged_classes)
        return
    pick = random.Random(seed)
    for _ in range(TRIED):
        asked, subject = some_asked(pick), some_subject(pick)
        if not mesh.trusting and asked.principal.id.trust_domain not in mesh.policies:
            continue
        flows = mesh.permits(asked, subject) and target.holds(mesh.request(asked, subject, DE), "")
        assert not (flows and classes & set(asked.context.judged_classes)), (asked, subject)


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=150)
@given(meshes, targets, st.integers(0, 10_000))
def test_over_the_nodes_that_there_are_it_is_what_each_of_them_says(
    mesh: Mesh, target: ref.Condition, seed: int
) -> None:
    pick = random.Random(seed)
    subjects = list({s.node: s for s in (some_subject(pick) for _ in range(6))}.values())
    scope = Scope(actions=(Action.INFER,), purposes=("care", "research"))
    proof = prove(PolicyEngine(), mesh.world(subjects), Query(target.cedar, scope))
    tried = [some_asked(pick) for _ in range(120)]
    for asked, subject in itertools.product(tried, subjects):
        if asked.context.purpose not in scope.purposes or asked.action is not Action.INFER:
            continue
        if mesh.permits(asked, subject) and target.holds(mesh.request(asked, subject, DE), ""):
            assert not proof.holds, (asked, subject)
    if proof.witness is not None:
        asked, subject = proof.witness.asked, proof.witness.subject
        assert subject in subjects
        assert mesh.permits(asked, subject)
        assert target.holds(mesh.request(asked, subject, DE), "")


releases = st.one_of(
    st.lists(st.sampled_from([level.word for level in LEVELS]), min_size=1, max_size=3).map(
        lambda levels: ref.level_is(*levels)
    ),
    st.sampled_from(["", "ward-1"]).map(ref.owner_is),
    st.sampled_from(["papers", "notes"]).map(ref.collection_is),
    st.lists(st.sampled_from(list(DataClass)).map(str), min_size=1, max_size=3).map(
        lambda classes: ref.class_is(*classes)
    ),
    st.sampled_from(["care", "research"]).map(ref.purpose_is),
    st.sampled_from(seen.OF_NODES),
)


@st.composite
def release_sets(draw: st.DrawFn) -> tuple[ref.Policy, ...]:
    conditions_ = st.one_of(releases, releases.map(ref.negated))
    return tuple(
        ref.Policy(
            f"p{i}", draw(st.sampled_from(["permit", "permit", "forbid"])), ("release",),
            tuple(draw(st.lists(conditions_, max_size=2))),
        )
        for i in range(draw(st.integers(1, 4)))
    )  # fmt: skip


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=120)
@given(
    release_sets(), release_sets(), st.frozensets(st.sampled_from(LEVELS), min_size=1), st.integers(0, 10_000)
)
def test_a_level_is_reached_by_every_step_below_it(
    de: tuple[ref.Policy, ...], fr: tuple[ref.Policy, ...], levels: frozenset[ReleaseLevel], seed: int
) -> None:
    shipped = Groups.shipped()
    mesh = Mesh({DE: de, FR: fr}, {DE: shipped, FR: shipped}, datetime.date(2026, 3, 1), trusting=False)
    scope = Scope(actions=(Action.RELEASE,), levels=levels)
    proof = prove(PolicyEngine(), mesh.world(), Query("", scope))

    def reached(asked: Asked, level: ReleaseLevel, subject: Subject, owner: str, collection: str) -> bool:
        classes = asked.context.judged_classes
        return all(
            mesh.permits(asked._replace(release=Disclosure(classes, step.word, owner, collection)), subject)
            for step in LEVELS
            if step <= level
        )

    if proof.witness is not None:
        asked, subject = proof.witness.asked, proof.witness.subject
        assert asked.release is not None
        level = next(each for each in LEVELS if each.word == asked.release.level)
        assert level in levels
        assert reached(asked, level, subject, asked.release.owner, asked.release.collection)
        return
    pick = random.Random(seed)
    for _ in range(150):
        asked = some_asked(pick)._replace(action=Action.RELEASE)
        if asked.principal.id.trust_domain in mesh.policies:
            owner, collection = pick.choice(["", "ward-1", "x"]), pick.choice(["papers", "notes", "y"])
            for level in levels:
                assert not reached(asked, level, some_subject(pick), owner, collection)


def test_the_reference_and_the_policies_agree_on_what_is_tried() -> None:
    """The conditions' Cedar and their Python are the same thing: else the tests above prove nothing."""
    pick = random.Random(7)
    engine, shipped = PolicyEngine(), Groups.from_json(_GROUPS)
    for condition in (*seen.OF_NODES, *seen.OF_REQUESTS, *seen.OF_CLASSES):
        policies = (ref.Policy("p", "permit", (), (condition,)),)
        mesh = Mesh({DE: policies}, {DE: shipped}, datetime.date(2020, 1, 2), trusting=False)
        world = mesh.world()
        for asked, subject in ((some_asked(pick), some_subject(pick)) for _ in range(60)):
            verdict = engine.judge(
                world.snapshot, DE, asked.principal, asked.action, *subject, asked.context, world.on
            )
            assert verdict.allowed is ref.permits(policies, mesh.request(asked, subject, DE))[0], (
                condition.cedar
            )


_GROUPS = """{"groups": [
  {"name": "EU", "description": "", "source": "",
   "members": [{"country": "DE", "from": "2020-01-01"}, {"country": "FR", "from": "2020-01-01"}]},
  {"name": "Adequate", "description": "", "source": "",
   "members": [{"country": "US", "from": "2020-01-01", "requires_assurance": "EU-US-DPF"},
               {"country": "CA", "from": "2020-01-01"}]}]}"""


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=120)
@given(meshes, policy_sets(), st.integers(0, 10_000))
def test_what_opens_or_closes_is_exactly_what_the_reference_says(
    mesh: Mesh, later: tuple[ref.Policy, ...], seed: int
) -> None:
    """For the nodes that there are: every flow that brute force sees change is in some change's group, and
    the examples are flows that change."""
    pick = random.Random(seed)
    subjects = list({s.node: s for s in (some_subject(pick) for _ in range(6))}.values())
    after = replace(mesh, policies={**mesh.policies, DE: later})
    world = mesh.world(subjects)
    others = replace(world, snapshot=replace(world.snapshot, policies={FR: world.snapshot.policies[FR]}))
    old, new = (each.world().snapshot.policies[DE] for each in (mesh, after))
    found = compare(PolicyEngine(), others, DE, old, new, Scope(actions=(Action.INFER,)))
    for change in found.changes:
        asked, subject = change.witness.asked, change.witness.subject
        assert mesh.permits(asked, subject) is not change.opens
        assert after.permits(asked, subject) is change.opens
    groups = {(change.opens, change.sender, node) for change in found.changes for node in change.nodes}
    for asked, subject in itertools.product((some_asked(pick) for _ in range(120)), subjects):
        sender = asked.principal.id.trust_domain
        was, will = mesh.permits(asked, subject), after.permits(asked, subject)
        if asked.action is Action.INFER and was != will and sender in mesh.policies:
            assert (will, sender, str(subject.node)) in groups, (asked, subject)
