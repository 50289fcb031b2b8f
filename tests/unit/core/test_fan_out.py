"""Who may be asked a question about documents, and who may ask for a client (I1 to I4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mesh.core.decision import MAX_FAN_OUT, Decision
from mesh.core.errors import Reason
from mesh.core.placement import Placer
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate, Snapshot
from mesh.core.types import Action, HeldCollection, NodeStatus, RequestContext, SpiffeId
from tests.support.snapshots import DE, FR, NOW, PERMIT_ALL, US, client, idle, node, snapshot_of

PAPERS = CollectionSpec("papers", "all-MiniLM-L6-v2", "sha256:" + "0" * 64, 384)
OTHERS = replace(PAPERS, k1=2.0, b=0.5)
SEARCH_ONLY = '@id("search") permit (principal, action == Action::"search", resource);'


def holder(trust_domain: str, name: str, spec: CollectionSpec = PAPERS, **facts: bool) -> Candidate:
    """A node that holds the collection, and serves no model."""
    found = node(trust_domain, name, models=(), **facts)  # type: ignore[arg-type]
    held = (HeldCollection(spec.name, spec.digest),)
    return replace(found, record=replace(found.record, collections=held))


BERLIN, PARIS, ASHBURN = holder(DE, "berlin"), holder(FR, "paris"), holder(US, "ashburn")


def fan_out(
    snapshot: Snapshot,
    *,
    statuses: Mapping[SpiffeId, NodeStatus] | None = None,
    by: SpiffeId = BERLIN.id,
    spec: CollectionSpec = PAPERS,
    placer: Placer | None = None,
    narrowed: Iterable[str] = (),
) -> Decision:
    return (placer or Placer()).fan_out(
        snapshot,
        idle(snapshot.candidates.values()) if statuses is None else statuses,
        principal=client(),
        context=RequestContext.of(["internal"], "x", allowed_jurisdictions=narrowed),
        spec=spec,
        placer=by,
        now=NOW,
        decision_id="d",
    )


def reasons(decision: Decision) -> dict[str, Reason]:
    return {refused.node.name: refused.reason for refused in decision.refused}


def asked(decision: Decision) -> list[str]:
    return sorted(ranked.node.name for ranked in decision.ranked)


def test_every_permitted_holder_is_asked_and_the_others_are_not_mentioned() -> None:
    only_model = node(FR, "lyon")
    snapshot = snapshot_of([BERLIN, PARIS, ASHBURN, only_model], {td: SEARCH_ONLY for td in (DE, FR, US)})
    decision = fan_out(snapshot)
    assert asked(decision) == ["ashburn", "berlin", "paris"]
    assert decision.considered == 3
    assert decision.ranked[0].permitted_by == ("search",)


def test_i3_policies_of_both_sides_filter() -> None:
    snapshot = snapshot_of([BERLIN, PARIS, ASHBURN], {DE: SEARCH_ONLY, FR: PERMIT_ALL})
    assert reasons(fan_out(snapshot)) == {"ashburn": Reason.POLICY_MISSING}
    infer_only = '@id("infer") permit (principal, action == Action::"infer", resource);'
    snapshot = snapshot_of([BERLIN, PARIS], {DE: SEARCH_ONLY, FR: infer_only})
    assert reasons(fan_out(snapshot)) == {"paris": Reason.POLICY_RECEIVER_DENIES}
    assert reasons(fan_out(snapshot, narrowed=["FR"])) == {
        "berlin": Reason.NARROWED_JURISDICTION,
        "paris": Reason.POLICY_RECEIVER_DENIES,
    }


def test_an_index_with_other_settings_is_not_asked_and_the_settings_are_named() -> None:
    lyon = holder(FR, "lyon", OTHERS)
    snapshot = replace(snapshot_of([BERLIN, lyon]), collections={FR: {"papers": OTHERS}})
    decision = fan_out(snapshot)
    assert reasons(decision) == {"lyon": Reason.COLLECTION_MISMATCH}
    assert decision.refused[0].detail == "its index was made with other settings than ours: k1, b"
    unpublished = fan_out(replace(snapshot, collections={FR: {"papers": PAPERS}}))
    assert "which its authority does not publish" in unpublished.refused[0].detail


def test_what_authorities_publish_later_is_noticed() -> None:
    lyon = holder(FR, "lyon", OTHERS)
    placer, snapshot = Placer(), snapshot_of([BERLIN, lyon])
    assert "not publish" in fan_out(snapshot, placer=placer).refused[0].detail
    published = replace(snapshot, collections={FR: {"papers": OTHERS}})
    assert "k1, b" in fan_out(published, placer=placer).refused[0].detail


def test_readiness_is_of_the_node_and_not_of_its_engine() -> None:
    snapshot = snapshot_of([BERLIN, PARIS, ASHBURN])
    statuses = {
        **idle([BERLIN], ready=False),
        **idle([PARIS], draining=True),
        **idle([ASHBURN], reported_at=NOW - 61),
    }
    decision = fan_out(snapshot, statuses=statuses)
    assert asked(decision) == ["berlin"]
    assert reasons(decision) == {"paris": Reason.NODE_NOT_READY, "ashburn": Reason.RECORDS_STALE}


def test_who_asks_needs_no_status_of_its_own() -> None:
    snapshot = snapshot_of([BERLIN, PARIS])
    decision = fan_out(snapshot, statuses={})
    assert asked(decision) == ["berlin"]
    assert reasons(decision) == {"paris": Reason.NODE_NOT_READY}


def test_at_most_64_are_asked_and_the_rest_are_named() -> None:
    many = [holder(DE, f"n{i}") for i in range(MAX_FAN_OUT + 3)]
    statuses = {**idle(many), **idle(many[:3], in_flight=8)}
    decision = fan_out(snapshot_of(many), statuses=statuses)
    assert len(decision.ranked) == MAX_FAN_OUT
    assert reasons(decision) == dict.fromkeys(["n0", "n1", "n2"], Reason.NODE_EXCLUDED)
    assert decision.refused[0].detail == "more than 64 nodes"
    assert decision.refused_total == 3


def test_one_authority_with_any_number_of_nodes_crowds_nobody_out() -> None:
    many = [holder(US, f"a{i}") for i in range(200)]
    busy = [holder(FR, "paris"), holder(DE, "berlin")]
    statuses = {**idle(many), **idle(busy, in_flight=8)}
    decision = fan_out(snapshot_of([*many, *busy]), statuses=statuses)
    assert len(decision.ranked) == MAX_FAN_OUT
    assert {"paris", "berlin"} <= set(asked(decision))
    assert decision.refused_total == 138


def test_i3_only_a_node_of_the_callers_authority_asks_everybody_for_it() -> None:
    decision = fan_out(snapshot_of([BERLIN, PARIS, ASHBURN]), by=PARIS.id)
    assert asked(decision) == ["paris"]
    assert reasons(decision) == dict.fromkeys(["berlin", "ashburn"], Reason.PLACER_NOT_ENTITLED)


# --- where the client sends its question first


def place(
    snapshot: Snapshot,
    statuses: Mapping[SpiffeId, NodeStatus] | None = None,
    placer: Placer | None = None,
) -> Decision:
    return (placer or Placer()).place(
        snapshot,
        idle(snapshot.candidates.values()) if statuses is None else statuses,
        principal=client(),
        action=Action.SEARCH,
        context=RequestContext.of(["internal"], "x"),
        model="papers",
        placer=BERLIN.id,
        now=NOW,
        decision_id="d",
    )


def test_a_search_is_placed_at_home_with_a_node_that_may_hold_nothing() -> None:
    munich = node(DE, "munich")
    decision = place(snapshot_of([munich, BERLIN, PARIS, ASHBURN]))
    assert asked(decision) == ["berlin", "munich"]
    assert decision.considered == 2
    assert asked(place(snapshot_of([munich]), idle([munich], ready=False))) == ["munich"]
    assert reasons(place(snapshot_of([munich]), {})) == {"munich": Reason.NODE_NOT_READY}


def test_what_is_remembered_for_one_question_is_not_the_answer_to_another() -> None:
    munich = node(DE, "munich")
    placer, snapshot = Placer(), snapshot_of([BERLIN, PARIS, munich])
    for _ in range(2):
        assert asked(place(snapshot, placer=placer)) == ["berlin", "munich"]
        assert asked(fan_out(snapshot, placer=placer)) == ["berlin", "paris"]
        assert asked(fan_out(snapshot, placer=placer, spec=OTHERS)) == []


def test_i2_the_holder_decides_again_whatever_models_it_serves() -> None:
    snapshot = snapshot_of([PARIS], {DE: PERMIT_ALL, FR: SEARCH_ONLY})
    for name in ("papers", "letters"):
        decision = Placer().judge_here(
            snapshot,
            PARIS.id,
            principal=client(),
            action=Action.SEARCH,
            context=RequestContext.of(["internal"], "x"),
            model=name,
            now=NOW,
            decision_id="d",
        )
        assert decision.permitted
