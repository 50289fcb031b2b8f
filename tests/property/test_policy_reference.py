"""Cedar, as the mesh asks it, and the one-page reference evaluator always agree (I3, I4)."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.jurisdictions import Groups
from mesh.core.policy import PolicyEngine
from mesh.core.snapshot import Candidate, Snapshot
from mesh.core.types import Action, DataClass, Principal, RequestContext
from tests.property import generated as gen
from tests.property.reference_policy import Policy, Request, permits
from tests.support.snapshots import snapshot_of

DE = gen.TRUST_DOMAINS[0]


def snapshot_with(policies: tuple[Policy, ...], groups: Groups) -> Snapshot:
    text = "\n".join(p.cedar() for p in policies)
    return replace(snapshot_of([], {DE: text}), groups={DE: groups})


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=400)
@given(gen.policy_sets(), gen.groups(), gen.clients, gen.actions, gen.candidates(), gen.contexts, gen.days)
def test_agrees_with_the_reference(
    policies: tuple[Policy, ...],
    groups: Groups,
    principal: Principal,
    action: Action,
    nodes: list[Candidate],
    context: RequestContext,
    on: datetime.date,
) -> None:
    snapshot = snapshot_with(policies, groups)
    verdicts = PolicyEngine().judge_many(
        snapshot, DE, principal, action, [(n.id, n.facts) for n in nodes], context, on
    )
    for node, verdict in zip(nodes, verdicts, strict=True):
        request = Request(principal.id, str(action), node.id, node.facts, context, groups, on)
        assert (verdict.allowed, set(verdict.policies)) == permits(policies, request)


def neighbours(first: Request) -> Iterator[Request]:
    """The question itself, and every question that differs from it in one fact."""
    yield first
    yield from (replace(first, client=client) for client in gen.CLIENTS)
    yield from (replace(first, node=node) for node in gen.NODES)
    yield from (replace(first, on=day) for day in gen.DAYS)
    yield from (replace(first, action=action) for action in ("infer", "embed", "search"))
    for country in gen.COUNTRIES:
        for fact in ("location", "operator_domicile", "controller"):
            yield replace(first, facts=replace(first.facts, **{fact: country}))
        yield replace(first, facts=replace(first.facts, admin_access=frozenset({country})))
    for assurance in gen.ASSURANCES:
        yield replace(first, facts=replace(first.facts, assurances=frozenset({assurance})))
    context = first.context
    for data_class in DataClass:
        yield replace(first, context=replace(context, data_classes=frozenset({data_class})))
    yield from (replace(first, context=replace(context, purpose=purpose)) for purpose in ("care", "research"))
    yield from (replace(first, context=replace(context, transfer_basis=basis)) for basis in ("", "scc"))


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=150)
@given(
    st.tuples(gen.pointed_policies, gen.pointed_policies),
    st.tuples(gen.groups(), gen.groups()),
    st.builds(
        Request,
        client=st.sampled_from(gen.CLIENTS),
        action=st.just("infer"),
        node=st.sampled_from(gen.NODES),
        facts=gen.facts,
        context=gen.contexts,
        groups=gen.groups(),
        on=gen.days,
    ),
)
def test_memory_never_changes_an_answer(
    policies: tuple[Policy, Policy], groups: tuple[Groups, Groups], first: Request
) -> None:
    """One engine that lives through all these questions, and the reference, which remembers nothing."""
    remembering = PolicyEngine()
    for policy, known in ((policies[0], groups[0]), (policies[1], groups[0]), (policies[1], groups[1])):
        snapshot = snapshot_with((policy,), known)
        for request in neighbours(replace(first, groups=known)):
            verdict = remembering.judge(
                snapshot,
                DE,
                Principal(request.client),
                Action(request.action),
                request.node,
                request.facts,
                request.context,
                request.on,
            )
            assert verdict.allowed is permits([policy], request)[0]
