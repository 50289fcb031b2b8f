"""A report for people: one page that needs nothing else, reads on paper, and runs nothing.

It shows the document of audit_report.py and knows no entries. Whatever is in it may have been named by a
hostile caller: every text is escaped, there is no script, no link and no address to load from, and a policy
in the page's head has browsers keep it so. At most `MAX_SHOWN` rows a table; what is more is said below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from mesh.core.audit_picture import Arrow, picture
from mesh.core.errors import MeshError
from mesh.core.types import SpiffeId

MAX_SHOWN = 200

_Row = Mapping[str, Any]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_INTRODUCTION = (
    "This is evidence for a person to judge. Every node of the mesh wrote down what it decided before acting;"
    " this page sums those entries: which kinds of data went where, why and by which policies, and what was"
    " refused. It serves whoever keeps records of processing activities (GDPR Art. 30) or the logs of an AI"
    " system (AI Act Art. 12, 19 and 26(6)). Such records need more than is here, and whether a flow was"
    " lawful is not for this page to say."
)
_LIMITS = (
    "It rests on the logs that it names and on nothing else: what is in no log is not here. That the logs are"
    " whole, unaltered and signed, this page does not check.",
    "Data classes, purposes and transfer bases are what callers stated. Nobody looked at what was sent, and a"
    " basis that was named need not be one that holds.",
    "Where something came from is where the asking node stands or, for a client, the country of its"
    " authority: not where a person sat. Where it went is where the receiving node stands, as its authority"
    " states.",
    "A request that was served was let to the engine or the index. Its answer goes back the same way and is"
    " not counted apart; what was released from an index is.",
    "Documents that were put into an index are among the operations, not the flows.",
)
# Up to a sign after which names may be broken, and no word longer than a column is wide.
_PIECES = re.compile(r"[^/_.\s-]{0,30}[/_.\s-]|[^/_.\s-]{1,30}", re.S)
_NAMES = {"infer": "inference", "embed": "embedding", "search": "question", "release": "release"}


def render(document: Mapping[str, Any]) -> str:
    """The page, from a report's document."""
    body = "".join(
        (
            _head(document),
            _numbers(document["totals"]),
            _limits(document),
            picture([Arrow(r["from"], r["to"], r["what"], r["count"]) for r in document["between"]["rows"]]),
            *_sections(document),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">'
        f"<title>Data flows</title><style>{_style_sheet()}</style></head><body>{body}</body></html>\n"
    )


@cache
def _style_sheet() -> str:
    return resources.files("mesh.core").joinpath("data/audit_report.css").read_text(encoding="utf-8")


def _head(document: _Row) -> str:
    period = document["period"]
    return (
        "<h1>Data flows, as decision logs tell them</h1>"
        f'<p class="when">From {_text(period["from"] or "the first entry")} to'
        f" {_text(period['to'] or 'the last entry')}; made {_text(document['made_at'])}. Times are UTC.</p>"
        f"<p>{_text(_INTRODUCTION)}</p>"
    )


def _numbers(totals: _Row) -> str:
    shown = (
        (totals["flows"], "flows"),
        (totals["crossing"], "of them across a border"),
        (totals["releases"], "releases from indexes"),
        (totals["chunks_released"], "chunks released"),
        (totals["refused_by_policy"], "refusals by policy"),
        (totals["refusals"] - totals["refused_by_policy"], "refusals otherwise"),
        (totals["entries"], "entries in the period"),
    )
    cells = "".join(f"<div><b>{count:,}</b>{_text(what)}</div>" for count, what in shown)
    by_class = ", ".join(f"{name} {count:,}" for name, count in totals["flows_by_class"].items())
    note = f"<p>Flows by data class (one of two classes counts under both): {_text(by_class)}.</p>"
    return f'<div class="numbers">{cells}</div>{note if by_class else ""}'


def _limits(document: _Row) -> str:
    items = "".join(f"<li>{_text(each)}</li>" for each in _LIMITS)
    amiss = "".join(f'<li class="doubt">{_text(each)}</li>' for each in doubts(document))
    return f'<div class="limits"><h2>What this does not show</h2><ul>{items}{amiss}</ul></div>'


def doubts(document: _Row) -> Iterable[str]:
    """What is amiss with what this report rests on."""
    logs, amiss = document["logs"], document["doubts"]
    counted = (
        ("Entries that could not be read and are not counted", sum(log["unreadable"] for log in logs)),
        ("Entries missing between the first and the last of a log", sum(log["missing"] for log in logs)),
        ("Entries whose index did not follow the one before", sum(log["repeated"] for log in logs)),
        ("Entries read twice, here and in a copy, and counted once", sum(log["copies"] for log in logs)),
        ("Entries about a request whose own entry is not here", amiss["unmatched"]),
        ("Flows that their two ends tell differently", amiss["disagreeing"]),
        ("Refused nodes that a decision counted and its entry does not name", amiss["unlisted_refusals"]),
        ("Items that writers left out of their entries, for size", amiss["abridged"]),
        ("Flows summed before all was read, whose other end may count again", amiss["settled_early"]),
        ("Entries not compared with those of other logs", amiss["copies_unsought"]),
    )
    return (f"{what}: {count:,}." for what, count in counted if count)


def _sections(document: _Row) -> Iterable[str]:
    digests = _numbered(document)

    def policies(row: _Row) -> str:
        marks = " ".join(digests[tuple(each)] for each in row["policy_digests"] if tuple(each) in digests)
        names = ", ".join(row["policies"]) + (", …" if row["more_policies"] else "")
        return _text(f"{names or '–'} {f'[{marks}]' if marks else ''}")

    way: Sequence[tuple[str, Callable[[_Row], str]]] = (
        ("Data", lambda row: _text(", ".join(row["data_classes"]) or "not stated")),
        ("From → to", lambda row: _text(f"{row['from'] or '?'} → {row['to'] or '?'}")),
        ("What", lambda row: _text(_NAMES.get(row["action"], row["action"]) or "not stated")),
        ("Purpose", lambda row: _text(row["purpose"] or "not stated")),
        ("Transfer basis", lambda row: _text(row["transfer_basis"] or "–")),
        ("Recipient", lambda row: _text(_short(row["recipient"]) or "–")),
    )
    when: tuple[str, Callable[[_Row], str]] = ("First, last", _span)
    count: tuple[str, Callable[[_Row], str]] = ("Count", lambda row: f"{row['count']:,}")
    why: tuple[str, Callable[[_Row], str]] = ("Policies", policies)
    yield _table("Flows", document["flows"], (*way, ("Known by", _known), count, when, why))
    yield _table(
        "Refused",
        document["refusals"],
        (
            *way,
            ("Where", lambda r: _text(r["stage"])),
            ("Reason", lambda r: _text(r["reason"])),
            count,
            when,
            why,
        ),
    )
    yield _table(
        "Released from indexes",
        document["releases"],
        (
            *(column for column in way if column[0] != "What"),
            ("Level", lambda row: _text(row["level"])),
            ("Chunks", lambda row: f"{row['chunks']:,}"),
            count,
            when,
        ),
    )
    yield _table(
        "Operations",
        document["operations"],
        (
            ("Kind", lambda row: _text(row["kind"])),
            ("Action", lambda row: _text(row["action"])),
            ("Outcome", lambda row: _text(" ".join(filter(None, (row["outcome"], row["reason"]))))),
            count,
            when,
        ),
    )
    in_force = [{"mark": mark, "of": of, "digest": digest} for (of, digest), mark in digests.items()]
    yield _table(
        "Policies in force",
        {"rows": in_force, "left_out": {"rows": 0, "count": 0}},
        (
            ("Mark", lambda row: _text(row["mark"])),
            ("Authority", lambda row: _text(row["of"])),
            ("Digest of its policies", lambda row: _text(row["digest"])),
        ),
    )
    yield _logs(document["logs"])


def _logs(logs: Sequence[_Row]) -> str:
    columns: tuple[tuple[str, Callable[[_Row], str]], ...] = (
        ("Log", lambda row: _text(row["origin"])),
        ("First", lambda row: f"{row['first']:,}"),
        ("Last", lambda row: f"{row['last']:,}"),
        ("Read", lambda row: f"{row['read']:,}"),
        ("In the period", lambda row: f"{row['in_period']:,}"),
        ("Unreadable", lambda row: _text(_some(row["unreadable"], map(str, row["unreadable_at"])))),
        ("Missing", lambda row: _text(_some(row["missing"], (f"{a}–{b}" for a, b in row["missing_at"])))),
    )
    return _table("Logs", {"rows": logs, "left_out": {"rows": 0, "count": 0}}, columns)


def _table(title: str, section: _Row, columns: Sequence[tuple[str, Callable[[_Row], str]]]) -> str:
    rows, left = section["rows"], section["left_out"]
    if not rows and not left["rows"]:
        return f'<h2>{_text(title)}</h2><p class="none">None.</p>'
    head = "".join(f"<th{_style(name)}>{_text(name)}</th>" for name, _ in columns)
    body = "".join(
        f"<tr>{''.join(f'<td{_style(name)}>{show(row)}</td>' for name, show in columns)}</tr>"
        for row in rows[:MAX_SHOWN]
    )
    hidden = len(rows[MAX_SHOWN:]) + left["rows"]
    more = ""
    if hidden:
        counted = sum(row.get("count", 0) for row in rows[MAX_SHOWN:]) + left["count"]
        more = f'<p class="more">And {hidden:,} further rows, with a count of {counted:,} together.</p>'
    return f"<h2>{_text(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _style(column: str) -> str:
    if column in ("Count", "Chunks", "First", "Last", "Read", "In the period"):
        return ' class="n"'
    return ' class="k"' if column in ("From → to", "First, last", "What") else ""


def _known(row: _Row) -> str:
    """By whose log a flow is known, and how it ended."""
    state = row["state"] if row["state"] != "sent" else "sent; no more is known"
    parts = [f"{state} {row['reason']}".strip()]
    if row["both_ends"]:
        parts.append(
            "by both ends" if row["both_ends"] == row["count"] else f"by both ends: {row['both_ends']:,}"
        )
    if row["cut"]:
        parts.append(f"ended early: {row['cut']:,}")
    return _text("; ".join(parts))


def _numbered(document: _Row) -> dict[tuple[str, str], str]:
    """A mark for each policy set that the tables name: P1, P2, ..."""
    found = {
        (str(of), str(digest))
        for section in ("flows", "refusals", "releases")
        for row in document[section]["rows"][:MAX_SHOWN]
        for of, digest in row["policy_digests"]
    }
    return {each: f"P{number}" for number, each in enumerate(sorted(found)[:MAX_SHOWN], 1)}


def _span(row: _Row) -> str:
    first, last = (escape(row[end].replace("T", " ").removesuffix("Z")) for end in ("first", "last"))
    return first if first == last else f"{first}<br>{last}"


def _some(count: int, listed: Iterable[str]) -> str:
    shown = list(listed)
    if not count:
        return "0"
    return f"{count:,}: {', '.join(shown[:10])}{', …' if len(shown) > 10 else ''}"


def _short(recipient: str) -> str:
    try:
        spiffe_id = SpiffeId.parse(recipient)
    except MeshError:
        return recipient
    return f"{spiffe_id.name} ({spiffe_id.trust_domain})"


def _text(value: object) -> str:
    """Escaped, with places where a browser may break what has no blanks."""
    pieces = (escape(piece, quote=True) for piece in _PIECES.findall(str(value)))
    return "".join(f"{piece}<wbr>" if piece[-1] in "/_.-" or len(piece) >= 30 else piece for piece in pieces)
