"""What is a flow, what is a refusal, and that two ends of one flow are one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mesh.core.audit_entries import read_entry
from mesh.core.audit_flows import Flow, Flows, Refusal
from tests.support.audit_log import (
    AT,
    client,
    context,
    covered,
    cut,
    leaves_of,
    node,
    place,
    release,
    search,
    serve,
    shard,
)

Log = list[dict[str, Any]]


def flows_of(*logs: Log, max_waiting: int = 100) -> tuple[list[Flow], list[Refusal], Flows]:
    flows = Flows(max_waiting)
    found: list[Flow | Refusal] = []
    for number, log in enumerate(logs):
        for leaf in leaves_of(f"log {number}", log):
            found.extend(flows.feed(read_entry(leaf)))
    found.extend(flows.finish())
    return [f for f in found if isinstance(f, Flow)], [f for f in found if isinstance(f, Refusal)], flows


def ways(found: Iterable[Flow | Refusal]) -> list[tuple[str, str, str]]:
    return sorted((each.route.action, each.route.source, each.route.target) for each in found)


def test_a_served_request_is_one_flow_and_its_placement_none():
    placed, served = place("d1", "de", ["fr", "nl"]), serve("s1", "fr", "de", cites="d1")
    for logs, ends in (
        (([placed], [served]), "both"),
        (([served], [placed]), "both"),
        (([served],), "receiver"),
    ):
        flows, refusals, _ = flows_of(*logs)
        assert ways(flows) == [("infer", "DE", "FR")]
        assert refusals == []
        assert (flows[0].ends, flows[0].state, flows[0].route.recipient) == (ends, "served", node("fr"))
        assert flows[0].policies == {"fr-in"}
        assert {of for of, _ in flows[0].digests} == {"de.mesh.example", "fr.mesh.example"}


def test_a_request_that_failed_over_went_to_both():
    flows, _, _ = flows_of([serve("s1", "fr", "de", cites="d1"), serve("s2", "nl", "de", cites="d1")])
    assert ways(flows) == [("infer", "DE", "FR"), ("infer", "DE", "NL")]


def test_what_placement_refused_was_not_sent():
    entry = place("d1", "de", [], refused={"us": "POLICY_SENDER_DENIES", "fr": "NODE_NOT_READY"})
    flows, refusals, _ = flows_of([entry])
    assert flows == []
    assert ways(refusals) == [("infer", "DE", "FR"), ("infer", "DE", "US")]
    assert {each.stage for each in refusals} == {"before sending"}
    assert {each.route.target: each.by_policy for each in refusals} == {"US": True, "FR": False}


def test_what_was_never_decided_is_a_refusal_without_a_place():
    flows, refusals, _ = flows_of(
        [{"kind": "place", "at": AT, "caller": client("de"), "refused": "CONTEXT_INVALID"}]
    )
    assert flows == []
    assert ways(refusals) == [("", "DE", "")]


def test_what_its_receiver_refused_is_no_flow():
    flows, refusals, _ = flows_of([serve("s1", "us", "de", refused="POLICY_RECEIVER_DENIES")])
    assert flows == []
    assert [(each.stage, each.reason) for each in refusals] == [("by the receiver", "POLICY_RECEIVER_DENIES")]
    assert refusals[0].policies == {"de-keeps"}


ASKED = search("q1", "de", ["de", "fr"], refused={"us": "POLICY_SENDER_DENIES"})
HELD = shard("h1", "fr", "de", cites="q1")


@pytest.mark.parametrize(
    ("logs", "state", "ends"),
    [
        (([ASKED, covered("q1", {"fr": "answered"})], [HELD]), "served", "both"),
        (([HELD], [ASKED, covered("q1", {"fr": "answered"})]), "served", "both"),
        (([ASKED], [HELD]), "served", "both"),
        (([HELD],), "served", "receiver"),
        (([ASKED, covered("q1", {"fr": "answered"})],), "answered", "sender"),
        (([ASKED, covered("q1", {"fr": "failed"})],), "failed", "sender"),
        (([ASKED],), "sent", "sender"),
        (([ASKED, covered("q1", {"fr": "failed"})], [HELD]), "served", "both"),
    ],
)
def test_a_question_to_another_node_is_one_flow_by_whichever_end_tells(
    logs: tuple[Log, ...], state: str, ends: str
):
    flows, refusals, _ = flows_of(*logs)
    asked = [flow for flow in flows if flow.route.recipient == node("fr")]
    assert ways(asked) == [("search", "DE", "FR")]
    assert (asked[0].state, asked[0].ends, asked[0].disagree) == (state, ends, False)
    # And from the client to its asker, if that log is here; in the asker's own process nothing goes anywhere.
    asker_told = any(ASKED in log for log in logs)
    assert ways(set(flows) - set(asked)) == ([("search", "DE", "DE")] if asker_told else [])
    assert ways(refusals) == ([("search", "DE", "US")] if asker_told else [])


def test_an_asker_that_stands_abroad_sends_from_there():
    asked = search("q1", "de", ["fr"])
    asked["decision"]["ranked"][0]["location"] = "PL"
    flows, _, _ = flows_of([asked], [shard("h1", "fr", "de", cites="q1", caller_location="PL")])
    assert ways(flows) == [("search", "DE", "PL"), ("search", "PL", "FR")]


def test_a_question_that_its_holder_refused_is_a_refusal_once():
    refused = shard("h1", "fr", "de", cites="q1", refused="POLICY_RECEIVER_DENIES")
    for logs in ([ASKED, covered("q1", {"fr": "failed"})], [refused]), ([refused], [ASKED]):
        flows, refusals, _ = flows_of(*logs)
        assert ways(flows) == [("search", "DE", "DE")]
        assert ways(refusals) == [("search", "DE", "FR"), ("search", "DE", "US")]


def test_a_holder_cannot_unsay_what_the_asker_says_was_answered():
    flows, _, _ = flows_of(
        [ASKED, covered("q1", {"fr": "answered"})],
        [shard("h1", "fr", "de", cites="q1", refused="OVERLOADED")],
    )
    assert [flow.disagree for flow in flows if flow.route.target == "FR"] == [True]


def test_who_may_no_longer_be_asked_was_not():
    flows, refusals, _ = flows_of([ASKED, covered("q1", {"fr": "not-asked"})])
    assert ways(flows) == [("search", "DE", "DE")]
    assert ways(refusals) == [("search", "DE", "FR"), ("search", "DE", "US")]


def test_a_step_that_was_refused_later_ended_a_flow_early():
    late = {**HELD, "outcome": "refused", "reason": "RELEASE_DENIED", "step": "release"}
    flows, refusals, _ = flows_of([HELD, late])
    assert [(flow.route.target, flow.cut) for flow in flows] == [("FR", True)]
    assert refusals == []


def test_a_fetch_asks_one_node_only():
    fetch = {
        **search("f1", "de", ["de", "fr", "nl"], refused={"us": "POLICY_SENDER_DENIES"}),
        "kind": "fetch",
    }
    flows, refusals, _ = flows_of([{**fetch, "only": node("fr")}])
    assert ways(flows) == [("search", "DE", "DE"), ("search", "DE", "FR")]
    assert refusals == []
    flows, refusals, _ = flows_of([{**fetch, "only": node("us"), "outcome": "refused", "reason": "X"}])
    assert flows == []
    assert ways(refusals) == [("search", "DE", "US")]


def test_a_cut_ends_the_flow_of_its_own_log_only():
    served = serve("s1", "fr", "de")
    assert [f.cut for f in flows_of([served, cut("s1")])[0]] == [True]
    flows, _, all_of_it = flows_of([served], [cut("s1")])
    assert [f.cut for f in flows] == [False]
    assert all_of_it.unmatched == 1


def test_a_release_goes_to_the_requesters_authority_and_is_of_the_documents_classes():
    entry = release(
        "h1", "fr", "de", {"snippet": 2, "passage": 1, "reference": 0}, released_classes=["internal"]
    )
    flows, _, _ = flows_of([entry])
    assert ways(flows) == [("release", "FR", "DE")] * 2
    assert {(f.level, f.chunks) for f in flows} == {("snippet", 2), ("passage", 1)}
    assert {(f.route.data_classes, f.route.recipient) for f in flows} == {(("internal",), "de.mesh.example")}


def test_a_release_that_says_less_is_of_the_question_it_answers():
    old = {
        name: value
        for name, value in release("h1", "fr", "de", {"passage": 1}).items()
        if name not in ("context", "location", "asked", "released_classes")
    }
    held = shard("h1", "fr", "de", cites="q1", context=context(["internal"], "support"))
    held["decision"]["ranked"][0]["location"] = "PL"
    flows, _, _ = flows_of([held, old])
    [released] = [flow for flow in flows if flow.level]
    assert released.route.data_classes == ("internal",)
    assert (released.route.source, released.route.purpose) == ("PL", "support")
    [alone] = flows_of([old])[0]
    assert (alone.route.source, alone.route.data_classes, alone.route.purpose) == ("FR", (), "")


def test_ends_that_tell_it_differently_are_one_flow_and_told_of():
    flows, _, _ = flows_of([ASKED], [shard("h1", "fr", "de", cites="q1", context=context(["public"]))])
    assert [f.disagree for f in flows if f.route.target == "FR"] == [True]


def test_a_decision_may_count_more_than_it_names():
    entry = place("d1", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"})
    entry["decision"]["refused_total"] = 500
    assert flows_of([entry])[2].unlisted_refusals == 499


def test_too_many_that_wait_are_counted_as_they_stand():
    log = [serve(f"s{number}", "fr", "de") for number in range(5)]
    flows, _, all_of_it = flows_of(log, max_waiting=2)
    assert (len(flows), all_of_it.settled_early) == (5, 3)
