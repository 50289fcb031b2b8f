"""The map against brute force: every request that the generated policies could tell apart, judged one by one
by the one-page reference (I3), and every flow counted by hand."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.flow_map import Extent, flow_map
from mesh.core.jurisdictions import Groups
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import Scope, World
from mesh.core.policy_view import Subject
from mesh.core.types import (
    Action,
    DataClass,
    NodeFacts,
    RequestContext,
    SpiffeId,
    jurisdiction_of,
    node_id,
    with_implied,
)
from tests.property import generated as gen
from tests.property import reference_policy as ref
from tests.support import audit_log as log
from tests.support.snapshots import snapshot_of

DE, FR, US = gen.TRUST_DOMAINS[:3]
ON = datetime.date(2020, 1, 2)
SETS = {
    frozenset(with_implied(frozenset(chosen)))
    for size in range(1, len(DataClass) + 1)
    for chosen in itertools.combinations(DataClass, size)
}
# Every word that a generated policy can name, and one that none does.
CONTEXTS = [
    RequestContext(classes, purpose, basis)
    for classes, purpose, basis in itertools.product(
        sorted(SETS, key=sorted), ("care", "research", "other"), ("", "scc", "other")
    )
]


def callers(trust_domain: str) -> list[SpiffeId]:
    named = [each for each in gen.CLIENTS if each.trust_domain == trust_domain]
    return [*named, *(SpiffeId(trust_domain, path) for path in ("/client/t1/z", "/client/t2/z", "/admin/z"))]


@dataclass(frozen=True)
class Federation:
    """Policies of DE and FR, and nodes of all three: the US have published nothing."""

    policies: dict[str, tuple[ref.Policy, ...]]
    groups: Groups
    nodes: tuple[Subject, ...]

    def world(self) -> World:
        texts = {td: "\n".join(p.cedar() for p in each) for td, each in self.policies.items()}
        snapshot = replace(snapshot_of([], texts), groups=dict.fromkeys(texts, self.groups))
        return World(snapshot, ON, self.nodes, trusting=False)

    def permits(self, caller: SpiffeId, action: Action, context: RequestContext, subject: Subject) -> bool:
        ends = {caller.trust_domain, subject.node.trust_domain}
        if not ends <= self.policies.keys():
            return False
        request = ref.Request(caller, str(action), subject.node, subject.facts, context, self.groups, ON)
        return all(ref.permits(self.policies[each], request)[0] for each in ends)

    def extents(self, action: Action) -> dict[tuple[str, str, DataClass], Extent]:
        """By brute force, for every sender that has policies."""
        alone: dict[tuple[str, str, DataClass], list[bool]] = {}
        some: Counter[tuple[str, str, DataClass]] = Counter()
        for trust_domain in self.policies:
            for caller, context, subject in itertools.product(callers(trust_domain), CONTEXTS, self.nodes):
                permitted = self.permits(caller, action, context, subject)
                for data_class in context.data_classes:
                    way = (jurisdiction_of(trust_domain), subject.facts.location, data_class)
                    some[way] += permitted
                    if context.data_classes == set(with_implied(frozenset({data_class}))):
                        alone.setdefault(way, []).append(permitted)
        return {
            way: Extent.ALL if all(answers) else Extent.SOME if some[way] else Extent.NO
            for way, answers in alone.items()
        }


subjects = st.lists(
    st.builds(
        lambda home, facts: (home, facts),
        st.sampled_from([DE, FR, US]),
        st.builds(
            NodeFacts,
            location=gen.countries,
            operator_domicile=gen.countries,
            controller=gen.countries,
            admin_access=st.frozensets(gen.countries, min_size=1, max_size=2),
            assurances=gen.assurances,
        ),
    ),
    min_size=1,
    max_size=3,
).map(lambda drawn: tuple(Subject(node_id(home, f"n{i}"), facts) for i, (home, facts) in enumerate(drawn)))
federations = st.builds(
    lambda de, fr, groups, nodes: Federation({DE: de, FR: fr}, groups, nodes),
    gen.policy_sets(), gen.policy_sets(), gen.groups(), subjects,
)  # fmt: skip


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=40)
@given(federations, gen.actions)
def test_what_may_flow_is_what_brute_force_finds(federation: Federation, action: Action) -> None:
    found = flow_map(PolicyEngine(), federation.world(), Scope(actions=(action,)))
    told = {
        (*ends, data_class): cell.permitted[action]
        for ends, pair in found.pairs.items()
        for data_class, cell in pair.cells.items()
        if action in cell.permitted
    }
    assert told == federation.extents(action)


countries = st.sampled_from(["de", "fr", "us"])
served = st.tuples(
    countries, countries, st.lists(st.sampled_from([*map(str, DataClass), "odd"]), max_size=3, unique=True)
)


@settings(gen.REPRODUCIBLE, max_examples=60)
@given(st.lists(served, max_size=12))
def test_what_flowed_is_counted_by_way(flows: list[tuple[str, str, list[str]]]) -> None:
    entries = [
        log.serve(f"e{i}", there, caller, context=log.context(classes))
        for i, (caller, there, classes) in enumerate(flows)
    ]
    world = World(snapshot_of([], {}), ON, (), trusting=False)
    report = log.report_of({"one": entries})
    found = flow_map(PolicyEngine(), world, Scope(actions=(Action.INFER,)), report)
    counted = Counter(
        (caller.upper(), there.upper(), DataClass(name))
        for caller, there, classes in flows
        for name in classes
        if name != "odd"
    )
    told = {
        (*ends, c): cell.count
        for ends, pair in found.pairs.items()
        for c, cell in pair.cells.items()
        if cell.count
    }
    assert told == counted
    assert found.against == counted.total()  # nobody permits anything
    assert found.unplaced == sum(1 for _, _, classes in flows if not set(classes) - {"odd"})
