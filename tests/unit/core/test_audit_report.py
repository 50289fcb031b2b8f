"""A report: its document, word for word, for a small mesh; what it says of logs that are not whole; its page.

`REWRITE_GOLDEN=1` writes audit_report.json anew; read what has changed.
"""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mesh.core.audit_entries import Leaf
from mesh.core.audit_filter import Period
from mesh.core.audit_html import MAX_SHOWN, doubts, render
from mesh.core.audit_picture import MAX_ARROWS, Arrow, picture
from mesh.core.audit_report import AuditReport
from tests.support.audit_log import (
    AT,
    action,
    context,
    covered,
    cut,
    encoded,
    leaves_of,
    place,
    release,
    search,
    serve,
    shard,
)

GOLDEN = Path(__file__).with_name("audit_report.json")
HOSTILE = "<script>alert(1)</script>&\"'><img src=x onerror=alert(1)>"

DE = [
    place("d1", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"}),
    place(
        "d2",
        "de",
        ["de"],
        refused={"us": "POLICY_SENDER_DENIES"},
        context=context(["public"], "web"),
        at=AT + 5,
    ),
    serve("s2", "de", "de", cites="d2", context=context(["public"], "web"), at=AT + 6),
    search("q3", "de", ["de", "fr"], at=AT + 7),
    covered("q3", {"de": "answered", "fr": "answered"}, at=AT + 9),
    release("l3", "de", "de", {"passage": 3}, asked="q3", released_classes=["internal"], at=AT + 8),
]
FR = [
    serve(
        "s1",
        "fr",
        "de",
        cites="d1",
        context=context(["personal", "special-category"], "care/triage", "scc"),
        at=AT + 1,
    ),
    cut("s1", at=AT + 2),
    shard("h3", "fr", "de", cites="q3", at=AT + 7),
    release("h3", "fr", "de", {"snippet": 2, "reference": 1}, asked="q3", at=AT + 8),
    serve("s4", "fr", "ch", refused="POLICY_RECEIVER_DENIES", at=AT + 9),
]
CONTROL = [action("a1", "apply policy", "begun"), action("a1", "apply policy", "done", generation=4)]


def document_of(leaves: list[Leaf], period: Period | None = None, rows: int = 1000) -> dict[str, Any]:
    report = AuditReport(period or Period(), rows=rows)
    for leaf in leaves:
        report.add(leaf)
    return report.document(made_at=AT + 3600)


def mesh() -> list[Leaf]:
    return [*leaves_of("fra-1", DE), *leaves_of("par-1", FR), *leaves_of("control", CONTROL)]


def test_the_document_of_a_small_mesh():
    document = document_of(mesh(), Period(AT, AT + 60))
    if os.environ.get("REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    assert document == json.loads(GOLDEN.read_text())


def test_only_the_period_counts():
    document = document_of(mesh(), Period(AT + 5, AT + 7))
    assert (document["totals"]["entries"], document["totals"]["flows"]) == (2, 1)
    assert [log["read"] for log in document["logs"]] == [2, 6, 5]
    assert document["period"] == {"from": "2026-03-01T12:00:05Z", "to": "2026-03-01T12:00:07Z"}


def test_what_is_amiss_with_a_log_is_said():
    whole = leaves_of("fra-1", [serve(f"s{n}", "fr", "de") for n in range(10)])
    leaves = [*whole[:3], Leaf("fra-1", 3, b"{torn"), *whole[6:8], whole[7], Leaf("copy", 0, whole[0].data)]
    document = document_of([*leaves, Leaf("copy", 1, encoded(cut("nobody")))])
    copy, log = document["logs"]
    assert log["unreadable_at"] == [3]
    assert (log["missing"], log["missing_at"]) == (2, [[4, 5]])
    assert (log["first"], log["last"], log["read"], log["repeated"]) == (0, 7, 7, 1)
    assert (log["copies"], copy["copies"]) == (1, 1)
    assert document["totals"]["flows"] == 5
    assert document["doubts"]["unmatched"] == 1
    said = " ".join(doubts(document))
    assert "could not be read and are not counted: 1." in said
    assert "missing between the first and the last of a log: 2." in said
    assert "read twice, here and in a copy, and counted once: 2." in said
    assert list(doubts(document_of(mesh()))) == []


def test_beyond_its_rows_a_section_is_summed():
    log = [serve(f"s{n}", "fr", "de", context=context(purpose=f"p{n % 7}")) for n in range(20)]
    flows = document_of(leaves_of("log", log), rows=3)["flows"]
    assert [row["count"] for row in flows["rows"]] == [3, 3, 3]
    assert flows["left_out"] == {"rows": 4, "count": 11, "chunks": 0}


def test_names_beyond_those_that_a_row_holds_are_not_lost_in_silence():
    entry = serve("s1", "fr", "de")
    entry["decision"]["ranked"][0]["permitted_by"] = [f"p{n:02}" for n in range(20)]
    [row] = document_of(leaves_of("log", [entry]))["flows"]["rows"]
    assert (len(row["policies"]), row["more_policies"]) == (16, True)


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_runs_nothing_loads_nothing_and_escapes_all():
    named = serve(
        "s1", "fr", "de", context=context([HOSTILE], HOSTILE, HOSTILE), action=HOSTILE, node=HOSTILE
    )
    named["decision"]["ranked"][0]["permitted_by"] = [HOSTILE]
    refusing = {**serve("s2", "fr", "de", refused=HOSTILE), "action": HOSTILE}
    operation = action("a1", HOSTILE, HOSTILE, reason=HOSTILE)
    leaves = leaves_of(HOSTILE, [named, refusing, operation, release("h", "fr", "de", {HOSTILE: 1})])
    page = render(document_of(leaves))
    seen = Page(page)
    assert not {"script", "img", "a", "link", "iframe", "object", "form", "base"} & set(seen.tags)
    for name, value in seen.attributes:
        assert not name.startswith("on"), name
        assert name not in ("href", "src", "action", "xlink:href", "data"), name
        assert "://" not in (value or "") or (name, value) == ("xmlns", "http://www.w3.org/2000/svg")
    assert "url(" not in re.sub(r"url\(#audit-\w+\)", "", page)
    assert "@import" not in page
    assert seen.text.count(HOSTILE) >= 8
    assert ("http-equiv", "Content-Security-Policy") in seen.attributes


def test_the_page_says_what_it_is_and_is_not():
    page = render(document_of(mesh(), Period(AT, AT + 60)))
    text = Page(page).text
    assert "evidence for a person to judge" in text
    assert "What this does not show" in text
    assert not re.search(r"complian", page, re.I)
    for words in ("DE → FR", "special-category", "scc", "by both ends", "POLICY_SENDER_DENIES",
                  "one (fr.mesh.example)", "ended early: 1", "sha256:abab", "par-1", "apply policy",
                  "passage"):  # fmt: skip
        assert words in text, words


def test_the_page_of_nothing():
    text = Page(render(document_of([]))).text
    assert "No flow to draw." in text
    assert text.count("None.") == 6


def test_a_long_table_says_what_it_leaves_out():
    log = [serve(f"s{n}", "fr", "de", context=context(purpose=f"p{n}")) for n in range(MAX_SHOWN + 9)]
    assert (
        "And 9 further rows, with a count of 9 together."
        in Page(render(document_of(leaves_of("l", log)))).text
    )


def test_the_picture_draws_the_largest_and_says_what_it_leaves_out():
    countries = ["DE", "FR", "US", "", "NL", "BE", "AT", "PL", "ES", "IT", "PT", "SE", "FI", "DK", "IE"]
    arrows = [Arrow(a, b, "requests", 5) for a in countries for b in countries] + [
        Arrow("DE", "US", "refused", 900)
    ]
    drawn = picture(arrows)
    assert drawn.count("<path d=") == MAX_ARROWS + 4  # and four heads
    assert "900 refused" in drawn
    assert drawn.count("stroke-dasharray") == 1
    assert f"{(225 - MAX_ARROWS + 1) * 5:,} more are not drawn" in drawn
    assert "1 request<" in picture([Arrow("DE", "", "requests", 1)])
    assert "not stated" in picture([Arrow("DE", "", "requests", 1)])
