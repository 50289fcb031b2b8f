"""Entries read back: what each kind holds, and what is refused of bytes that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.core.audit_entries import Kind, Leaf, LoggedEntry, country_of, read_entry
from mesh.core.errors import MeshError, Reason
from mesh.core.strict_json import MAX_DEPTH, MAX_ENTRY_BYTES
from tests.support.audit_log import (
    AT,
    action,
    client,
    covered,
    cut,
    encoded,
    node,
    place,
    release,
    search,
    serve,
    shard,
)


def read(entry: dict[str, Any]) -> LoggedEntry:
    return read_entry(Leaf("log", 3, encoded(entry)))


def refused(data: bytes) -> str:
    with pytest.raises(MeshError) as caught:
        read_entry(Leaf("log", 0, data))
    assert caught.value.reason is Reason.ENTRY_MALFORMED
    return caught.value.message


def test_a_served_request_goes_from_the_callers_authority_to_where_the_node_stands():
    entry = read(serve("s1", "fr", "de", cites="d1"))
    assert (entry.kind, entry.index, entry.at, entry.id) == (Kind.SERVE, 3, AT, "s1")
    assert (entry.from_country, entry.to_country, entry.node) == ("DE", "FR", node("fr"))
    assert (entry.caller, entry.action, entry.subject) == (client("de"), "infer", "tiny")
    assert (entry.data_classes, entry.purpose) == (("personal",), "care/triage")
    assert (entry.outcome, entry.cites) == ("served", "d1")
    assert entry.decision is not None
    assert entry.decision.ranked[0].policies == ("fr-in",)


def test_a_refusal_knows_its_reason_and_where_it_would_have_gone():
    entry = read(serve("s1", "us", "de", refused="POLICY_RECEIVER_DENIES"))
    assert (entry.outcome, entry.reason, entry.to_country) == ("refused", "POLICY_RECEIVER_DENIES", "US")


def test_a_placement_is_found_by_its_decisions_id_and_concerns_all_that_it_considered():
    entry = read(place("d1", "de", ["fr", "nl"], refused={"us": "POLICY_SENDER_DENIES"}))
    assert (entry.id, entry.outcome, entry.to_country) == ("d1", "permitted", "FR")
    assert entry.destinations == {"FR", "NL", "US"}
    nothing = read({"kind": "place", "at": AT, "caller": client("de"), "refused": "TENANT_MISMATCH"})
    assert (nothing.outcome, nothing.reason, nothing.decision) == ("refused", "TENANT_MISMATCH", None)


def test_a_question_names_whom_it_asks_and_a_holder_whom_it_answers():
    asked = read(search("q1", "de", ["de", "fr"], refused={"us": "POLICY_SENDER_DENIES"}))
    assert asked.asks is not None
    assert [each.location for each in asked.asks.ranked] == ["DE", "FR"]
    held = read(shard("h1", "fr", "de", cites="q1"))
    assert (held.from_country, held.to_country, held.requester) == ("DE", "FR", client("de"))
    assert held.ids == {"h1", "q1"}


def test_a_node_that_stands_elsewhere_than_its_authority_is_where_it_stands():
    assert read(shard("h1", "fr", "de", cites="q1", caller_location="PL")).from_country == "PL"


def test_a_release_goes_from_the_holder_to_the_requesters_authority():
    entry = read(release("h1", "fr", "de", {"snippet": 2, "passage": 1}, asked="q1"))
    assert (entry.from_country, entry.to_country, entry.cites) == ("FR", "DE", "q1")
    assert (dict(entry.released), entry.released_classes) == ({"passage": 1, "snippet": 2}, ("personal",))


def test_the_other_kinds():
    assert read(covered("q1", {"fr": "answered"})).covered[0].outcome == "answered"
    assert read(cut("s1")).reason == "IDENTITY_REVOKED"
    done = read(action("a1", "revoke", "done"))
    assert (done.action, done.outcome, done.caller) == (
        "revoke",
        "done",
        "spiffe://de.mesh.example/admin/anna",
    )


def test_a_kind_that_nobody_knows_is_kept():
    entry = read({"kind": "novel", "at": AT, "id": ["not", "a", "text"], "caller": "x", "context": 7})
    assert (entry.kind, entry.name, entry.id, entry.caller) == (Kind.OTHER, "novel", "", "x")
    assert entry.raw["context"] == 7


def test_what_a_writer_left_out_for_size_is_known():
    assert read(place("d1", "de", ["fr"], left_out={"decision.refused": 4})).abridged == 4


def test_texts_cannot_drive_a_terminal():
    entry = read({**serve("s\x1b[31m\n", "fr", "de"), "caller": "a\u202eb\ud800"})
    assert (entry.id, entry.caller) == ("s [31m ", "a b ")


def test_countries_are_countries():
    entry = serve("s1", "fr", "de")
    entry["decision"]["ranked"][0]["location"] = "XX"
    assert read(entry).to_country == ""
    assert [country_of(x) for x in (node("de"), node("zz"), "", "http://de/x")] == ["DE", "", "", ""]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"kind":"serve"}',
        b'{"at":1}',
        b'{"kind":"serve","at":"1"}',
        b'{"kind":"serve","at":true}',
        b'{"kind":"serve","at":-1}',
        b'{"kind":"serve","at":1e999}',
        b'{"kind":"serve","at":NaN}',
        b'{"kind":"serve","at":' + b"9" * 5000 + b"}",
        b'{"kind":"serve","at":1,"at":2}',
        b'{"kind":"serve","at":1} {}',
        b'{"kind":["serve"],"at":1}',
        b"[" * 100_000,
        b'{"kind":"x","at":1,"x":' + b"[" * MAX_DEPTH + b"0" + b"]" * MAX_DEPTH + b"}",
        b'{"kind":"x","at":1,"x":"' + b"x" * MAX_ENTRY_BYTES + b'"}',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_entry_is_refused(data: bytes):
    refused(data)


@pytest.mark.parametrize(
    "field",
    [
        {"caller": 7},
        {"caller": "x" * 513},
        {"context": []},
        {"context": {"data_classes": "personal"}},
        {"context": {"data_classes": [7]}},
        {"context": {"data_classes": ["x"] * 17}},
        {"decision": "permitted"},
        {"decision": {"ranked": [1]}},
        {"decision": {"ranked": [{"permitted_by": [None]}]}},
        {"decision": {"refused_total": 1.5}},
        {"decision": {"policies": {"de": 1}}},
        {"permit": {"decision": 1}},
        {"left_out": {"x": -1}},
    ],
    ids=json.dumps,
)
def test_a_known_kind_has_fields_of_its_types(field: dict[str, Any]):
    secret = {"kind": "serve", "at": AT, "subject": "hush"} | field
    assert "hush" not in refused(encoded(secret))


@pytest.mark.parametrize("released", [{"passage": -1}, {"passage": "2"}, {"passage": True}, []])
def test_a_release_counts_in_whole_numbers(released: Any):
    refused(encoded({**release("h", "fr", "de", {}), "released": released}))


def test_as_many_levels_as_allowed_are_read():
    inner: Any = 0
    for _ in range(MAX_DEPTH - 2):
        inner = [inner]
    assert read({"kind": "x", "at": 1, "x": inner}).name == "x"
