"""No value that others choose makes a series, and flows are read as the report on flows reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.audit_entries import Kind, Leaf, read_entry
from mesh.core.decision import Decision, Refused
from mesh.core.errors import Reason
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.types import Action, DataClass, SpiffeId, node_id
from mesh.evidence.entries import encode
from mesh.telemetry.labels import (
    ACTIONS,
    NONE,
    OTHER,
    FirstCome,
    Flow,
    action_label,
    country,
    country_of,
    first,
    flow_of,
    most_sensitive,
    refused_for,
    split_method,
)

HERE = node_id("de.mesh.example", "fra-1")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(st.tuples(st.text(), st.text())), st.integers(0, 5))
def test_first_come_never_knows_more_than_its_limit(values: list[tuple[str, str]], limit: int):
    bound = FirstCome(limit)
    let_in = {bound.of(each) for each in values} - {(OTHER, OTHER)}
    assert len(let_in) <= limit
    assert let_in <= set(values)
    again = [bound.of(each) for each in values]
    assert again == [bound.of(each) for each in values], "what a value became, it stays"


def test_first_come_lets_in_what_came_first():
    bound = FirstCome(2)
    assert [bound.of((each,)) for each in "abcab"] == [("a",), ("b",), (OTHER,), ("a",), ("b",)]


@given(st.sets(st.text()), st.integers(0, 5))
def test_the_first_names_are_the_same_in_any_order(names: set[str], limit: int):
    assert first(names, limit) == first(reversed(sorted(names)), limit)
    assert len(first(names, limit)) == min(limit, len(names))


@given(st.text())
def test_a_path_is_a_service_and_a_method_or_neither(path: str):
    service, method = split_method(path)
    assert (service, method) == (OTHER, OTHER) or f"/{service}/{method}" == path


def test_paths():
    assert split_method("/sovereign.mesh.v1.Inference/Chat") == ("sovereign.mesh.v1.Inference", "Chat")
    for wrong in ("", "/", "//", "/a", "a/b", "/a/", "//b", "/a/b/c", "x/a/b"):
        assert split_method(wrong) == (OTHER, OTHER)


@given(anything)
def test_labels_of_closed_sets(value: Any):
    assert country(value) in {*COUNTRIES, OTHER}
    assert action_label(value) in {*ACTIONS, OTHER}
    assert most_sensitive(value) in {*DataClass, OTHER}


def test_labels_of_what_there_is():
    assert {action_label(each) for each in Action} == ACTIONS
    assert country_of(HERE) == "DE"
    assert country_of(SpiffeId("corp.example", "/node/a")) == OTHER
    assert most_sensitive(["internal", "special-category", "public"]) == "special-category"
    assert most_sensitive({DataClass.PERSONAL, DataClass.CONFIDENTIAL}) == "personal"
    assert most_sensitive([]) == OTHER


def decision(*reasons: Reason, permitted: bool = False) -> Decision:
    refused = tuple(Refused(node_id("de.mesh.example", f"n-{i}"), r, "") for i, r in enumerate(reasons))
    return Decision("id", permitted, (), refused, len(refused), len(refused))


@pytest.mark.parametrize(
    ("decided", "reason"),
    [
        (decision(Reason.NODE_NOT_READY, permitted=True), NONE),
        (decision(), "NO_NODE_AVAILABLE"),
        (decision(Reason.MODEL_NOT_SERVED, Reason.MODEL_NOT_SERVED), "MODEL_NOT_SERVED"),
        (
            decision(Reason.MODEL_NOT_SERVED, Reason.MODEL_NOT_SERVED, Reason.POLICY_SENDER_DENIES),
            "POLICY_SENDER_DENIES",
        ),
        (decision(Reason.NODE_NOT_READY, Reason.RECORDS_STALE, Reason.NODE_NOT_READY), "NODE_NOT_READY"),
        (decision(Reason.NODE_NOT_READY, Reason.RECORDS_STALE), "RECORDS_STALE"),
    ],
)
def test_why_a_placement_was_refused(decided: Decision, reason: str):
    assert refused_for(decided) == reason


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["kind", "outcome", "context"]), anything))
def test_reading_a_flow_never_fails_nor_lets_anything_through(entry: dict[str, Any]):
    for kind in ("serve", "release", "shard", "other"):
        flow = flow_of({**entry, "kind": kind, "outcome": "served"}, HERE)
        if flow is not None:
            assert {flow.source, flow.target} <= {*COUNTRIES, OTHER}
            assert flow.data_class in {*DataClass, OTHER}
            assert flow.action in {*ACTIONS, OTHER}


names = st.sampled_from(
    ["spiffe://de.mesh.example/client/a", "spiffe://fr.mesh.example/node/b", "spiffe://corp.example/client/c"]
)
places = st.sampled_from(["", "DE", "FR", "US", "ZZ"])
classes = st.lists(st.sampled_from(sorted(DataClass)), max_size=3)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """As a node writes them: node/gate.py, node/retrieval/evidence.py."""
    kind = draw(
        st.sampled_from(["serve", "search", "answer", "fetch", "shard", "release", "place", "covered"])
    )
    entry: dict[str, Any] = {
        "kind": kind, "id": "1", "at": 1.0, "node": str(HERE), "caller": draw(names),
        "action": draw(st.sampled_from(sorted(Action))), "context": {"data_classes": draw(classes)},
        "caller_location": draw(places), "outcome": draw(st.sampled_from(["served", "refused"])),
        "decision": {"ranked": [{"node": str(HERE), "location": draw(places), "permitted_by": []}]},
    }  # fmt: skip
    if kind == "release":
        entry |= {
            "requester": draw(names),
            "location": draw(places),
            "released": draw(st.sampled_from([{}, {"passage": 2}])),
            "released_classes": draw(classes),
        }
    return entry


@given(entries())
def test_flows_are_read_as_the_report_on_flows_reads_them(entry: dict[str, Any]):
    flow = flow_of(entry, HERE)
    read = read_entry(Leaf("log", 0, encode(entry)))
    if read.kind is Kind.RELEASE:
        expected = bool(read.released)
    else:
        serves = read.kind in {Kind.SERVE, Kind.SEARCH, Kind.ANSWER, Kind.FETCH, Kind.SHARD}
        expected = serves and read.outcome == "served"
    assert (flow is not None) == expected
    if flow is not None:
        assert flow.source == (read.from_country or OTHER)
        assert flow.target == (read.to_country or OTHER)


def test_what_a_flow_is():
    served = {
        "kind": "serve", "outcome": "served", "action": Action.INFER, "caller": "spiffe://fr.mesh.example/client/x",
        "context": {"data_classes": ["public", "personal"]}, "decision": {"ranked": [{"location": "DE"}]},
    }  # fmt: skip
    assert flow_of(served, HERE) == Flow("FR", "DE", "personal", "infer")
    assert flow_of({**served, "outcome": "refused"}, HERE) is None
    assert flow_of({**served, "kind": "place"}, HERE) is None
    asked = {**served, "kind": "shard", "action": "search", "caller_location": "US"}
    assert flow_of(asked, HERE) == Flow("US", "DE", "personal", "search")
    released = {
        "kind": "release", "location": "DE", "requester": "spiffe://fr.mesh.example/client/x",
        "released": {"passage": 1}, "released_classes": ["internal"],
    }  # fmt: skip
    assert flow_of(released, HERE) == Flow("DE", "FR", "internal", "release")
