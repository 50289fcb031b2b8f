"""Whatever bytes a log holds: an entry, or ENTRY_MALFORMED; and a report of it is made all the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.audit_entries import Kind, Leaf, LoggedEntry, read_entry
from mesh.core.audit_filter import EntryFilter, Period
from mesh.core.audit_html import render
from mesh.core.audit_report import AuditReport
from mesh.core.errors import MeshError, Reason
from tests.property.generated import REPRODUCIBLE
from tests.support.audit_log import covered, encoded, place, release, search, serve, shard

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WHOLE = [
    place("d1", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"}),
    serve("s1", "fr", "de"),
    search("q1", "de", ["fr"]),
    shard("h1", "fr", "de", cites="q1"),
    covered("q1", {"fr": "answered"}),
    release("h1", "fr", "de", {"passage": 1}),
]
FIELDS = sorted({name for entry in WHOLE for name in entry})


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """An entry of a known kind of which something is anything."""
    entry: dict[str, Any] = dict(draw(st.sampled_from(WHOLE)))
    entry["kind"] = draw(st.sampled_from([kind.value for kind in Kind]))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        inner = entry.get(name)
        if isinstance(inner, dict) and inner and draw(st.booleans()):
            entry[name] = {**inner, draw(st.sampled_from(sorted(inner))): draw(JSON)}
        else:
            entry[name] = draw(JSON)
    return encoded(entry)


LEAVES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | spoilt()


def read(data: bytes) -> LoggedEntry | None:
    try:
        return read_entry(Leaf("log", 0, data))
    except MeshError as error:
        if error.reason is not Reason.ENTRY_MALFORMED:
            raise
        return None


@REPRODUCIBLE
@given(LEAVES)
def test_an_entry_or_the_catalogs_error(data: bytes) -> None:
    entry = read(data)
    if entry is not None:
        EntryFilter(id="x", to_country="FR").matches(entry)
        texts = (entry.id, entry.caller, entry.purpose, entry.reason, entry.name, *entry.data_classes)
        assert all(text.isprintable() for text in texts)
        assert len(entry.from_country) in (0, 2)


@REPRODUCIBLE
@given(st.lists(LEAVES, max_size=8))
def test_a_report_is_made_of_whatever_it_is(leaves: list[bytes]) -> None:
    report = AuditReport(Period())
    for index, data in enumerate(leaves):
        report.add(Leaf("log", index, data))
    document = report.document(made_at=0.0)
    page = render(json.loads(json.dumps(document)))
    page.encode()
    assert page.count("<script") == 0
    unreadable = sum(log["unreadable"] for log in document["logs"])
    assert unreadable == sum(read(data) is None for data in leaves)
    assert document["totals"]["entries"] == len(leaves) - unreadable
