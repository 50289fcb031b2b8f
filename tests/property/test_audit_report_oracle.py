"""A report's sums are what somebody would count who has all logs on one table."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.audit_entries import Leaf
from mesh.core.audit_filter import Period
from mesh.core.audit_report import AuditReport
from tests.property.generated import REPRODUCIBLE
from tests.support.audit_log import covered, cut, encoded, place, release, search, serve, shard

COUNTRIES = ["de", "fr", "us"]
REASONS = ["POLICY_SENDER_DENIES", "NODE_NOT_READY"]
Entry = dict[str, Any]

country = st.sampled_from(COUNTRIES)
some = st.lists(country, unique=True, max_size=3)
refused = st.dictionaries(country, st.sampled_from(REASONS), max_size=2)


@st.composite
def logs(draw: st.DrawFn) -> dict[str, list[Entry]]:
    """A log for each country's node: requests, and questions of which the ends are written, or not."""
    found: dict[str, list[Entry]] = {each: [] for each in COUNTRIES}
    for number in range(draw(st.integers(0, 12))):
        here, caller = draw(country), draw(country)
        what = draw(st.sampled_from(["place", "serve", "question", "release"]))
        if what == "place":
            found[caller].append(place(f"d{number}", caller, draw(some), refused=draw(refused)))
        elif what == "serve":
            why = draw(st.sampled_from(["", *REASONS]))
            found[here].append(
                serve(f"s{number}", here, caller, cites=f"d{draw(st.integers(0, 12))}", refused=why)
            )
            if draw(st.booleans()):
                found[here].append(cut(f"s{number}"))
        elif what == "release":
            levels = st.dictionaries(st.sampled_from(["snippet", "passage"]), st.integers(0, 5))
            found[here].append(release(f"r{number}", here, caller, draw(levels)))
        else:
            asked = draw(some)
            found[caller].append(search(f"q{number}", caller, asked, refused=draw(refused)))
            for holder in asked:
                if holder != caller and draw(st.booleans()):
                    why = draw(st.sampled_from(["", "", *REASONS]))
                    held = shard(f"h{number}{holder}", holder, caller, cites=f"q{number}", refused=why)
                    found[holder].append(held)
                    if not why and draw(st.booleans()):
                        found[holder].append({**held, "outcome": "refused", "reason": "RELEASE_DENIED"})
            if draw(st.booleans()):
                outcomes = {
                    each: draw(st.sampled_from(["answered", "failed", "not-asked"])) for each in asked
                }
                found[caller].append(covered(f"q{number}", outcomes))
    return found


def recount(entries: list[Entry]) -> tuple[int, int, int]:
    """Flows, refusals and chunks, by looking through everything again and again."""
    flows = refusals = chunks = 0
    for entry in entries:
        kind, served = entry["kind"], entry.get("outcome") == "served"
        if kind == "place":
            refusals += len(entry["decision"]["refused"])
        elif kind in ("serve", "search"):
            flows += served
            refusals += not served
        elif kind == "release":
            chunks += sum(entry["released"].values())
    pairs = set()
    for entry in entries:
        if entry["kind"] == "search":
            refusals += len(entry["asks"]["refused"])
            pairs |= {(entry["id"], r["node"]) for r in entry["asks"]["ranked"] if r["node"] != entry["node"]}
        elif entry["kind"] == "shard":
            pairs.add((entry["permit"]["decision"], entry["node"]))
    for question, holder in pairs:
        held = [
            e
            for e in entries
            if e["kind"] == "shard" and (e["permit"]["decision"], e["node"]) == (question, holder)
        ]
        told = [n["outcome"] for e in entries if e["kind"] == "covered" and e["id"] == question
                for n in e["nodes"] if n["node"] == holder]  # fmt: skip
        if any(entry["outcome"] == "served" for entry in held):
            flows += 1
        elif held:
            refusals += 1
            flows += told == ["answered"]
        elif told == ["not-asked"]:
            refusals += 1
        else:
            flows += 1
    return flows, refusals, chunks


def added_up(section: dict[str, Any], what: str = "count") -> int:
    return sum(row[what] for row in section["rows"]) + section["left_out"][what]


@REPRODUCIBLE
@given(logs(), st.permutations(COUNTRIES), st.sampled_from([1, 3, 1000]), st.booleans())
def test_the_sums_are_those_of_a_recount(
    found: dict[str, list[Entry]], order: list[str], rows: int, twice: bool
) -> None:
    report = AuditReport(Period(), rows=rows)
    for number, origin in enumerate(order + order if twice else order):
        name = origin if number < len(order) else f"copy of {origin}"
        for index, entry in enumerate(found[origin]):
            report.add(Leaf(name, index, encoded(entry)))
    document = report.document(made_at=0.0)
    flows, refusals, chunks = recount(list(itertools.chain(*found.values())))
    totals = document["totals"]
    assert (totals["flows"], totals["refusals"], totals["chunks_released"]) == (flows, refusals, chunks)
    assert added_up(document["flows"]) == flows
    assert added_up(document["refusals"]) == refusals
    assert added_up(document["releases"], "chunks") == chunks
    drawn = {
        what: sum(row["count"] for row in document["between"]["rows"] if row["what"] == what)
        for what in ("requests", "questions", "refused")
    }
    if rows == 1000:
        assert drawn["requests"] + drawn["questions"] == flows
        assert drawn["refused"] == totals["refused_by_policy"]
    assert totals["flows_by_class"].get("personal", 0) == flows
    assert totals["entries"] == sum(map(len, found.values()))
