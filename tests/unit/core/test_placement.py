"""Placement: every filter with its reason, the score, and what is remembered (I1 to I4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from mesh.core.decision import MAX_RANKED, MAX_REFUSED
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import PERMIT_TTL_S
from mesh.core.placement import WINDOW, Decision, Placer, Reservations
from mesh.core.snapshot import Candidate, Revocations, Snapshot
from mesh.core.types import Action, NodeStatus, Principal, RequestContext, SpiffeId
from tests.support.snapshots import (
    DE,
    FR,
    MAX_AGE_S,
    MODEL,
    NOW,
    PERMIT_ALL,
    US,
    client,
    example_policies,
    idle,
    node,
    snapshot_of,
)

BERLIN, MUNICH = node(DE, "berlin"), node(DE, "munich")
PARIS, ASHBURN = node(FR, "paris"), node(US, "ashburn")
WORLD = [BERLIN, PARIS, ASHBURN]
GATEWAY = SpiffeId(DE, "/node/berlin")


def ask(
    snapshot: Snapshot,
    *classes: str,
    placer: Placer | None = None,
    statuses: Mapping[SpiffeId, NodeStatus] | None = None,
    who: Principal | None = None,
    by: SpiffeId = GATEWAY,
    model: str = "tiny",
    now: float = NOW,
    excluded: Iterable[SpiffeId] = (),
    action: Action = Action.INFER,
    reservations: Reservations | None = None,
    explain: bool = False,
    decision_id: str = "d",
    **context: object,
) -> Decision:
    return (placer or Placer()).place(
        snapshot,
        idle(snapshot.candidates.values()) if statuses is None else statuses,
        principal=who or client(),
        action=action,
        context=RequestContext.of(classes or ["public"], "x", **context),  # type: ignore[arg-type]
        model=model,
        excluded=frozenset(excluded),
        placer=by,
        now=now,
        decision_id=decision_id,
        reservations=reservations,
        explain=explain,
    )


def reasons(decision: Decision) -> dict[str, Reason]:
    return {refused.node.name: refused.reason for refused in decision.refused}


def places(decision: Decision) -> list[str]:
    return sorted(ranked.node.name for ranked in decision.ranked)


# --- the story's first four steps, and the seventh


def test_special_category_stays_at_home() -> None:
    decision = ask(snapshot_of(WORLD, example_policies()), "special-category")
    assert places(decision) == ["berlin"]
    assert reasons(decision) == {
        "paris": Reason.POLICY_SENDER_DENIES,
        "ashburn": Reason.POLICY_SENDER_DENIES,
    }
    forbidding = {r.node.name: r.policies for r in decision.refused}["ashburn"]
    assert "de-no-personal-data-under-us-control" in forbidding


def test_confidential_goes_to_either_of_two_and_public_to_all() -> None:
    snapshot = snapshot_of(WORLD, example_policies())
    assert places(ask(snapshot, "confidential")) == ["berlin", "paris"]
    assert places(ask(snapshot, "public")) == ["ashburn", "berlin", "paris"]


def test_narrowed_to_where_policy_forbids_every_node_says_why() -> None:
    decision = ask(snapshot_of(WORLD, example_policies()), "special-category", allowed_jurisdictions=["US"])
    assert not decision.permitted
    assert decision.chosen is None
    assert reasons(decision) == {
        "berlin": Reason.NARROWED_JURISDICTION,
        "paris": Reason.NARROWED_JURISDICTION,
        "ashburn": Reason.POLICY_SENDER_DENIES,
    }
    assert decision.refused_total == decision.considered == 3


def test_in_berlin_but_under_us_control() -> None:
    foreign = node(DE, "kreuzberg", controller="US")
    decision = ask(snapshot_of([*WORLD, foreign], example_policies()), "personal")
    assert places(decision) == ["berlin"]
    (refused,) = [r for r in decision.refused if r.node == foreign.id]
    assert refused.policies == ("de-no-personal-data-under-us-control",)
    assert refused.location == "DE"


def test_each_side_is_named_when_it_permits() -> None:
    decision = ask(snapshot_of([PARIS], example_policies()), "confidential")
    assert decision.ranked[0].permitted_by == ("de-business-data-to-france", "fr-accepts-from-the-eu")


# --- filters, one by one


def test_i3_both_sides_must_allow() -> None:
    no = '@id("no") forbid (principal, action, resource);'
    sender_says_no = ask(snapshot_of([PARIS], {DE: no, FR: PERMIT_ALL}))
    receiver_says_no = ask(snapshot_of([PARIS], {DE: PERMIT_ALL, FR: no}))
    assert reasons(sender_says_no) == {"paris": Reason.POLICY_SENDER_DENIES}
    assert reasons(receiver_says_no) == {"paris": Reason.POLICY_RECEIVER_DENIES}
    assert ask(snapshot_of([PARIS], {DE: PERMIT_ALL, FR: PERMIT_ALL})).permitted


def test_i3_what_third_parties_say_does_not_matter() -> None:
    no = '@id("no") forbid (principal, action, resource);'
    assert ask(snapshot_of([PARIS], {DE: PERMIT_ALL, FR: PERMIT_ALL, US: no})).permitted
    assert not ask(snapshot_of([PARIS], {DE: PERMIT_ALL, US: PERMIT_ALL})).permitted


@pytest.mark.parametrize("missing", [DE, FR])
def test_i4_an_authority_without_policies_permits_nothing(missing: str) -> None:
    policies = {DE: PERMIT_ALL, FR: PERMIT_ALL}
    del policies[missing]
    assert reasons(ask(snapshot_of([PARIS], policies))) == {"paris": Reason.POLICY_MISSING}


def test_only_the_two_sides_place() -> None:
    snapshot = snapshot_of(WORLD)
    assert reasons(ask(snapshot, by=SpiffeId(US, "/node/ashburn"))) == {
        "berlin": Reason.PLACER_NOT_ENTITLED,
        "paris": Reason.PLACER_NOT_ENTITLED,
    }
    assert places(ask(snapshot, by=SpiffeId(US, "/control/main"))) == ["ashburn"]
    assert places(ask(snapshot, by=SpiffeId(DE, "/control/main"))) == ["ashburn", "berlin", "paris"]


def test_revoked_nodes_get_nothing() -> None:
    snapshot = replace(snapshot_of(WORLD), revocations={FR: Revocations(ids=frozenset({PARIS.id}))})
    assert reasons(ask(snapshot)) == {"paris": Reason.IDENTITY_REVOKED}


def test_a_callers_narrowing_only_takes_away() -> None:
    certified = node(FR, "lyon", assurances=["SecNumCloud"])
    snapshot = snapshot_of([*WORLD, certified])
    decision = ask(snapshot, allowed_jurisdictions=["FR"], required_assurances=["SecNumCloud"])
    assert places(decision) == ["lyon"]
    assert reasons(decision)["paris"] is Reason.NARROWED_ASSURANCE
    assert reasons(decision)["berlin"] is Reason.NARROWED_JURISDICTION


def test_cordoned_nodes_get_nothing_new() -> None:
    assert reasons(ask(snapshot_of([BERLIN, node(DE, "cordoned", cordoned=True)]))) == {
        "cordoned": Reason.NODE_CORDONED
    }


def test_models() -> None:
    other = node(DE, "other", models=(replace(MODEL, name="large"),))
    snapshot = snapshot_of([BERLIN, other])
    assert reasons(ask(snapshot)) == {"other": Reason.MODEL_NOT_SERVED}
    assert ask(snapshot, model="").considered == 2
    assert places(ask(snapshot, model="")) == ["berlin", "other"]
    assert set(reasons(ask(snapshot, model="huge")).values()) == {Reason.MODEL_NOT_SERVED}


def test_a_model_that_nobody_serves_is_the_first_thing_to_say() -> None:
    decision = ask(snapshot_of(WORLD, example_policies()), "special-category", model="typo")
    assert set(reasons(decision).values()) == {Reason.MODEL_NOT_SERVED}


def test_nodes_for_one_task_are_not_asked_for_another() -> None:
    generator = node(DE, "generator", models=(replace(MODEL, tasks=frozenset()),))
    assert reasons(ask(snapshot_of([generator]), action=Action.EMBED)) == {
        "generator": Reason.MODEL_NOT_SERVED
    }
    assert ask(snapshot_of([generator]), action=Action.SEARCH, model="").permitted


@pytest.mark.parametrize(
    "status",
    [
        None,
        NodeStatus(False, 0, 0, 8, reported_at=NOW),
        NodeStatus(True, 0, 0, 8, draining=True, reported_at=NOW),
    ],
)
def test_unready_nodes(status: NodeStatus | None) -> None:
    statuses = {} if status is None else {BERLIN.id: status}
    assert reasons(ask(snapshot_of([BERLIN]), statuses=statuses)) == {"berlin": Reason.NODE_NOT_READY}


def test_excluded_nodes() -> None:
    decision = ask(snapshot_of(WORLD), excluded=[BERLIN.id])
    assert reasons(decision) == {"berlin": Reason.NODE_EXCLUDED}
    assert places(decision) == ["ashburn", "paris"]


def test_i4_stale_records_stop_what_crosses_a_border_and_nothing_else() -> None:
    snapshot = snapshot_of(WORLD)
    later = NOW + MAX_AGE_S + 1
    decision = ask(snapshot, now=later, statuses=idle(WORLD, reported_at=later))
    assert places(decision) == ["berlin"]
    assert set(reasons(decision).values()) == {Reason.RECORDS_STALE}
    assert "de.mesh.example: its authority's word is 61.0 s old" in decision.refused[0].detail


@pytest.mark.parametrize("stale", [DE, FR])
def test_i4_one_stale_side_is_enough(stale: str) -> None:
    snapshot = snapshot_of(WORLD)
    heads = {td: h if td != stale else replace(h, generations={"k": 5}) for td, h in snapshot.heads.items()}
    decision = ask(replace(snapshot, heads=heads))
    assert "berlin" in places(decision)
    assert reasons(decision)["paris"] is Reason.RECORDS_STALE


def test_i4_an_old_status_does_not_count_across_a_border() -> None:
    old = idle(WORLD, reported_at=NOW - MAX_AGE_S - 1)
    decision = ask(snapshot_of(WORLD), statuses=old)
    assert places(decision) == ["berlin"]
    assert set(reasons(decision).values()) == {Reason.RECORDS_STALE}


def test_i4_a_node_of_no_country_is_refused_and_harms_nobody_else() -> None:
    odd = Candidate(SpiffeId("mesh.example", "/node/odd"), BERLIN.facts, BERLIN.record)
    decision = ask(snapshot_of([BERLIN, odd]))
    assert places(decision) == ["berlin"]
    assert reasons(decision) == {"odd": Reason.COUNTRY_UNKNOWN}


# --- who asks


def test_a_client_acts_for_its_own_tenant() -> None:
    assert ask(snapshot_of(WORLD), tenant="clinic-a").permitted
    with pytest.raises(MeshError) as caught:
        ask(snapshot_of(WORLD), tenant="clinic-b")
    assert caught.value.reason is Reason.TENANT_MISMATCH


def test_a_revoked_client_places_nothing() -> None:
    snapshot = replace(snapshot_of(WORLD), revocations={DE: Revocations(ids=frozenset({client().id}))})
    with pytest.raises(MeshError) as caught:
        ask(snapshot)
    assert caught.value.reason is Reason.IDENTITY_REVOKED


# --- score and reserve


def test_the_less_loaded_node_is_chosen() -> None:
    statuses = idle(WORLD)
    statuses[BERLIN.id] = replace(statuses[BERLIN.id], in_flight=4, queued=2)
    decision = ask(snapshot_of([BERLIN, PARIS]), statuses=statuses)
    assert [(r.node.name, r.score) for r in decision.ranked] == [("paris", 0.0), ("berlin", 0.75)]


def test_capacity_counts() -> None:
    statuses = idle([BERLIN, PARIS], in_flight=4)
    statuses[PARIS.id] = replace(statuses[PARIS.id], capacity=100)
    assert ask(snapshot_of([BERLIN, PARIS]), statuses=statuses).chosen == PARIS.id


def test_sixteen_at_once_spread_over_two_equal_nodes() -> None:
    placer, reservations = Placer(), Reservations()
    snapshot, statuses = snapshot_of([BERLIN, PARIS]), idle([BERLIN, PARIS], reported_at=NOW - 0.5)
    chosen = Counter(
        ask(
            snapshot,
            placer=placer,
            statuses=statuses,
            reservations=reservations,
            decision_id=f"d{i}",
            now=NOW + i / 1000,
        ).chosen
        for i in range(16)
    )
    assert chosen == {BERLIN.id: 8, PARIS.id: 8}


def test_explaining_promises_nothing() -> None:
    reservations = Reservations()
    ask(snapshot_of(WORLD), reservations=reservations, explain=True)
    assert len(reservations) == 0


def test_a_window_turns_through_a_large_mesh() -> None:
    nodes = [node(DE, f"n{i:03}") for i in range(100)]
    placer, snapshot = Placer(), snapshot_of(nodes)
    chosen = Counter(ask(snapshot, placer=placer).chosen for _ in range(100))
    assert max(chosen.values()) <= 2 * WINDOW
    assert len(chosen) >= 100 // WINDOW
    decision = ask(snapshot, placer=placer)
    assert len(decision.ranked) == MAX_RANKED


def test_the_window_steps_over_what_is_not_ready() -> None:
    nodes = [node(DE, f"n{i:03}") for i in range(100)]
    statuses = idle(nodes, ready=False)
    statuses[nodes[99].id] = replace(statuses[nodes[99].id], ready=True)
    decision = ask(snapshot_of(nodes), statuses=statuses)
    assert decision.chosen == nodes[99].id
    assert decision.refused_total == 99


# --- explanations


def test_refusals_are_bounded_and_counted() -> None:
    nodes = [node(DE, f"n{i}") for i in range(MAX_REFUSED + 200)]
    no = '@id("no") forbid (principal, action, resource);'
    decision = ask(snapshot_of(nodes, {DE: no}))
    assert (len(decision.refused), decision.refused_total) == (MAX_REFUSED, MAX_REFUSED + 200)


def test_explain_looks_at_everybody() -> None:
    nodes = [node(DE, f"n{i:03}") for i in range(50)]
    statuses = idle(nodes)
    for n in nodes[::2]:
        statuses[n.id] = replace(statuses[n.id], ready=False)
    decision = ask(snapshot_of(nodes), statuses=statuses, explain=True)
    assert (len(decision.ranked), decision.refused_total) == (25, 25)


def test_a_decision_says_on_what_it_rests() -> None:
    snapshot = snapshot_of(WORLD, example_policies())
    decision = ask(snapshot, "public", decision_id="d-7")
    assert decision.id == "d-7"
    assert decision.policy_digests == {td: p.digest for td, p in snapshot.policies.items()}
    assert (decision.snapshot_version, decision.decided_by) == (1, GATEWAY)
    assert (decision.decided_at, decision.expires_at) == (NOW, NOW + PERMIT_TTL_S)


# --- memory


def test_a_withdrawn_policy_holds_from_the_next_decision_on() -> None:
    placer = Placer()
    policies = example_policies()
    assert places(ask(snapshot_of(WORLD, policies), "confidential", placer=placer)) == ["berlin", "paris"]
    policies[DE] += '@id("out") forbid (principal, action, resource in Jurisdiction::"FR");'
    decision = ask(snapshot_of(WORLD, policies), "confidential", placer=placer)
    assert places(decision) == ["berlin"]
    assert {r.node.name: r.policies for r in decision.refused}["paris"] == ("out",)


def test_fresh_heads_alone_do_not_cost_the_memory() -> None:
    placer = Placer()
    ask(snapshot_of(WORLD), placer=placer)
    before = len(placer._eligible)
    ask(snapshot_of(WORLD, signed_at=NOW + 5), placer=placer, now=NOW + 5)
    assert before == len(placer._eligible) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, candidates={**s.candidates, BERLIN.id: node(DE, "berlin", cordoned=True)}),
        lambda s: replace(s, candidates={PARIS.id: PARIS}),
        lambda s: replace(s, revocations={DE: Revocations(ids=frozenset({BERLIN.id}))}),
        lambda s: replace(s, policies={}),
    ],
)
def test_any_other_change_counts_at_once(change: object) -> None:
    placer, snapshot = Placer(), snapshot_of([BERLIN])
    assert ask(snapshot, placer=placer).permitted
    changed = change(snapshot)  # type: ignore[operator]
    assert BERLIN.id not in [r.node for r in ask(changed, placer=placer).ranked]


def test_memory_is_bounded() -> None:
    placer, snapshot = Placer(), snapshot_of([BERLIN])
    for i in range(400):
        placer.place(
            snapshot,
            idle([BERLIN]),
            principal=client(),
            action=Action.INFER,
            context=RequestContext.of(["public"], f"p{i}"),
            placer=GATEWAY,
            now=NOW,
            decision_id="d",
        )
    assert len(placer._eligible) == 256


def test_single_clients_named_in_a_policy_are_told_apart() -> None:
    named = '@id("a") permit (principal == Client::"spiffe://de.mesh.example/client/t/a", action, resource);'
    placer, snapshot = Placer(), snapshot_of([BERLIN], {DE: named})
    assert ask(snapshot, placer=placer, who=client("t/a")).permitted
    assert not ask(snapshot, placer=placer, who=client("t/b")).permitted
    assert ask(snapshot, placer=placer, who=client("t/a")).permitted


# --- the receiving side


def judge(snapshot: Snapshot, at: SpiffeId, *classes: str, now: float = NOW, model: str = "tiny") -> Decision:
    return Placer().judge_here(
        snapshot,
        at,
        principal=client(),
        action=Action.INFER,
        context=RequestContext.of(classes or ["public"], "x"),
        model=model,
        now=now,
        decision_id="d",
    )


def test_i2_the_receiving_node_decides_by_itself() -> None:
    snapshot = snapshot_of(WORLD, example_policies())
    assert judge(snapshot, PARIS.id, "confidential").permitted
    refused = judge(snapshot, ASHBURN.id, "special-category")
    assert not refused.permitted
    error = refused.refusal()
    assert error.reason is Reason.POLICY_SENDER_DENIES
    assert "de-no-personal-data-under-us-control" in error.metadata["policies"]
    assert error.metadata["decision"] == "d"


def test_i2_it_needs_no_status_and_no_placer() -> None:
    assert judge(snapshot_of([BERLIN]), BERLIN.id).ranked[0].node == BERLIN.id


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (snapshot_of([]), Reason.NODE_UNKNOWN),
        (snapshot_of([node(FR, "paris", cordoned=True)]), Reason.NODE_CORDONED),
        (snapshot_of([PARIS], {DE: PERMIT_ALL}), Reason.POLICY_MISSING),
        (snapshot_of([PARIS], signed_at=NOW - MAX_AGE_S - 1), Reason.RECORDS_STALE),
        (snapshot_of([node(FR, "paris", models=())]), Reason.MODEL_NOT_SERVED),
    ],
)
def test_i2_it_refuses_what_it_should_not_have_been_sent(snapshot: Snapshot, reason: Reason) -> None:
    assert judge(snapshot, PARIS.id).refusal().reason is reason


def test_i4_local_clients_are_served_however_old_the_records() -> None:
    assert judge(snapshot_of([BERLIN], signed_at=NOW - 1e6), BERLIN.id).permitted
