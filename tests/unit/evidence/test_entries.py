"""What an entry becomes as bytes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.tiles import MAX_ENTRY_BYTES
from mesh.evidence.entries import encode, ids_in, ids_of

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def test_there_is_one_form() -> None:
    assert (
        encode({"b": 1.5, "a": ("x", None)})
        == encode({"a": ["x", None], "b": 1.5})
        == b'{"a":["x",null],"b":1.5}'
    )


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_what_fits_is_kept_as_it_is(entry: dict[str, Any]) -> None:
    assert json.loads(encode(entry)) == entry
    assert ids_in(encode(entry)) == ids_of(entry)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["ranked", "refused", "nodes", "plain"]),
        st.lists(st.integers(1, 30).map(lambda n: {"name": "n" * 1000 * n}), max_size=8),
        max_size=4,
    )
)
def test_lists_are_cut_from_their_ends_the_refused_first(lists: dict[str, Any]) -> None:
    entry = {"id": "x", "decision": lists}
    data = encode(entry)
    assert len(data) <= MAX_ENTRY_BYTES
    kept = json.loads(data)
    left_out = kept.pop("left_out", {})
    assert kept["id"] == "x"
    for name, items in lists.items():
        there = kept["decision"][name]
        assert there == items[: len(there)]
        assert len(items) - len(there) == left_out.get(f"decision.{name}", 0)
    if set(left_out) - {"decision.refused"}:
        assert not kept["decision"].get("refused"), "nothing else is cut while refusals are there"


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_have_ids_or_none(data: bytes) -> None:
    assert all(isinstance(each, str) for each in ids_in(data))


def test_what_only_looks_like_an_id_is_none() -> None:
    assert ids_of({"id": ["x"]}) == ()
    assert ids_of({"decision": "x", "permit": ["y"]}) == ()
    assert ids_in(b'["id"]') == ()
    assert ids_in(b"[" * 100_000) == ()
    assert ids_of({"id": 7}) == ("7",)


def test_an_entry_is_found_by_what_it_rests_on() -> None:
    entry = {"id": "own", "decision": {"id": "own"}, "permit": {"id": "permit", "decision": "theirs"}}
    assert ids_of(entry) == ("own", "theirs")
    assert ids_of({"decision": {"id": "placed"}}) == ("placed",)


def test_without_a_list_to_cut_it_is_refused() -> None:
    try:
        encode({"id": "x" * MAX_ENTRY_BYTES, "refused": ["a"]})
    except MeshError as error:
        reason = error.reason
    assert reason is Reason.EVIDENCE_UNAVAILABLE
