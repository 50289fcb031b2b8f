"""What went where in a period, by decision logs: a structure for programs; audit_html.py shows it.

    report = AuditReport(Period(start, end))
    for leaf in leaves: report.add(leaf)
    document = report.document(made_at=now)

It is evidence for a person to judge: a record of decisions, summed. What counts as a flow, and how two ends
of one are counted once, audit_flows.py says. Nothing is left out in silence: entries that cannot be read,
indexes that are missing, rows beyond the limit and flows of which only one end is known are all counted.

The document, "sovereign-mesh/audit-report/v1" (fields are only added; times are ISO 8601, UTC):

    schema, made_at, period {from, to}
    logs[]      origin, first, last, read, in_period, unreadable, unreadable_at[], missing,
                missing_at[[a, b]], repeated: indexes that did not rise; copies: entries that were
                read before, from another log or from this one given twice
    totals      entries, by_kind{}, flows, flows_by_class{}, crossing, releases, chunks_released,
                refusals, refused_by_policy, cut
    between     rows[]: from, to, what (requests, questions, releases; refused, by a policy), count
    flows       rows[]: data_classes, action, from, to, purpose, transfer_basis, recipient, state, reason,
                count, cut, both_ends, first, last, policies[], policy_digests[[trust domain, digest]],
                more_policies: there are more than the 16 of either that are named
    refusals    rows[]: the same with stage and by_policy, without state, cut and both_ends
    releases    rows[]: as flows, with level and chunks, without state, cut and both_ends
    operations  rows[]: kind, action, outcome, reason, count, first, last (what is no flow: index, action)
    doubts      unmatched, settled_early, unlisted_refusals, disagreeing, abridged, copies_unsought

Each section has `left_out` {rows, count, chunks}: what its limit cut off, so that rows and left_out add up to
the totals. A flow of two classes is one flow: it counts under each in flows_by_class. An entry that releases
at two levels is two releases.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mesh.core.audit_entries import Kind, Leaf, LoggedEntry, read_entry
from mesh.core.audit_filter import Period, time_text
from mesh.core.audit_flows import Flow, Flows, Refusal, Route
from mesh.core.audit_rows import Row, Section
from mesh.core.errors import MeshError
from mesh.core.types import Action

SCHEMA = "sovereign-mesh/audit-report/v1"
MAX_ROWS = 1000  # of a section in the document
MAX_CLASSES = 16  # that are told apart, and twice as many kinds of entry: hostile logs invent them
MAX_LISTED = 50  # indexes of one log that are unreadable or missing
MAX_REMEMBERED = 1_000_000  # entries of which copies in other logs are recognised


@dataclass(slots=True)
class _Log:
    """What was read of one log."""

    first: int
    last: int
    read: int = 0
    in_period: int = 0
    unreadable: int = 0
    unreadable_at: list[int] = field(default_factory=list)
    missing: int = 0
    missing_at: list[list[int]] = field(default_factory=list)
    repeated: int = 0
    copies: int = 0

    def step(self, index: int) -> bool:
        """Counts this index, and what lies between it and the one before. Whether it did not rise."""
        again = self.read > 0 and index <= self.last
        self.repeated += again
        if self.read and index > self.last + 1:
            self.missing += index - self.last - 1
            if len(self.missing_at) < MAX_LISTED:
                self.missing_at.append([self.last + 1, index - 1])
        self.read += 1
        self.first = min(self.first, index)
        self.last = max(self.last, index)
        return again


class AuditReport:
    """Gathers entries of any logs; each log's in the order of its indexes. At most `rows` rows a section."""

    def __init__(self, period: Period, *, rows: int = MAX_ROWS) -> None:
        self._period = period
        self._limit = rows
        self._flows = Flows()
        self._logs: dict[str, _Log] = {}
        self._seen: dict[bytes, str] = {}
        self._copies_unsought = 0
        self._kinds: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._abridged = 0
        self._flow_rows, self._refusal_rows = Section(), Section()
        self._release_rows, self._operation_rows = Section(), Section()
        self._between_rows = Section()

    def add(self, leaf: Leaf) -> None:
        """Takes one entry, readable or not. Never raises for what is in it."""
        log = self._logs.setdefault(leaf.origin, _Log(leaf.index, leaf.index))
        again = log.step(leaf.index)
        if self._is_copy(leaf, again):
            log.copies += 1
            return
        try:
            entry = read_entry(leaf)
        except MeshError:
            log.unreadable += 1
            if len(log.unreadable_at) < MAX_LISTED:
                log.unreadable_at.append(leaf.index)
            return
        if entry.at not in self._period:
            return
        log.in_period += 1
        name = entry.name if entry.name in self._kinds or len(self._kinds) < 2 * MAX_CLASSES else "other"
        self._kinds[name] += 1
        self._abridged += entry.abridged
        if entry.kind in (Kind.INDEX, Kind.ACTION):
            self._operation(entry)
        self._count(self._flows.feed(entry))

    def document(self, *, made_at: float) -> dict[str, Any]:
        """The report so far, as JSON can hold it; nothing can be added afterwards."""
        self._count(self._flows.finish())
        totals, flows = self._totals, self._flows
        return {
            "schema": SCHEMA,
            "made_at": time_text(made_at),
            "period": {
                "from": time_text(self._period.start) or None,
                "to": time_text(self._period.end) or None,
            },
            "logs": [_log_document(origin, log) for origin, log in sorted(self._logs.items())],
            "totals": {
                "entries": sum(log.in_period for log in self._logs.values()),
                "by_kind": dict(sorted(self._kinds.items())),
                "flows": self._flow_rows.count,
                "flows_by_class": dict(sorted(self._classes.items())),
                "crossing": totals["crossing"],
                "releases": self._release_rows.count,
                "chunks_released": totals["chunks"],
                "refusals": self._refusal_rows.count,
                "refused_by_policy": totals["by policy"],
                "cut": totals["cut"],
            },
            "between": self._between_rows.document(self._limit, lambda row: {}),
            "flows": self._flow_rows.document(
                self._limit, lambda row: {"cut": row.cut, "both_ends": row.both, **_when_and_why(row)}
            ),
            "refusals": self._refusal_rows.document(self._limit, _when_and_why),
            "releases": self._release_rows.document(
                self._limit, lambda row: {"chunks": row.chunks, **_when_and_why(row)}
            ),
            "operations": self._operation_rows.document(self._limit, _when),
            "doubts": {
                "unmatched": flows.unmatched,
                "settled_early": flows.settled_early,
                "unlisted_refusals": flows.unlisted_refusals,
                "disagreeing": totals["disagreeing"],
                "abridged": self._abridged,
                "copies_unsought": self._copies_unsought,
            },
        }

    def _is_copy(self, leaf: Leaf, again: bool) -> bool:
        """Whether this very entry was read before, from another log or from this one given twice."""
        digest = hashlib.blake2b(leaf.data, digest_size=16).digest()
        holder = self._seen.get(digest)
        if holder is None and len(self._seen) >= MAX_REMEMBERED:
            self._copies_unsought += 1
        elif holder is None:
            self._seen[digest] = leaf.origin
        return holder is not None and (again or holder != leaf.origin)

    def _count(self, found: Iterable[Flow | Refusal]) -> None:
        for each in found:
            if isinstance(each, Refusal):
                self._refused(each)
            elif each.level:
                self._released(each)
            else:
                self._flowed(each)

    def _released(self, flow: Flow) -> None:
        facts = {**_facts(flow.route), "level": flow.level}
        row = self._release_rows.row((flow.route, flow.level), lambda: facts, flow.at)
        row.add(flow.at, flow.policies, flow.digests)
        row.chunks += flow.chunks
        self._totals["chunks"] += flow.chunks
        self._drawn(flow.route, "releases", flow.at)

    def _flowed(self, flow: Flow) -> None:
        route, totals = flow.route, self._totals
        row = self._flow_rows.row(
            (route, flow.state, flow.reason),
            lambda: {**_facts(route), "state": flow.state.value, "reason": flow.reason},
            flow.at,
        )
        row.add(flow.at, flow.policies, flow.digests)
        row.cut += flow.cut
        row.both += flow.ends == "both"
        totals["cut"] += flow.cut
        totals["disagreeing"] += flow.disagree
        totals["crossing"] += bool(route.source and route.target and route.source != route.target)
        self._drawn(route, "questions" if route.action == Action.SEARCH else "requests", flow.at)
        for name in route.data_classes or ("not stated",):
            known = name in self._classes or len(self._classes) < MAX_CLASSES
            self._classes[name if known else "other"] += 1

    def _refused(self, refusal: Refusal) -> None:
        row = self._refusal_rows.row(
            (refusal.route, refusal.stage, refusal.reason),
            lambda: {
                **_facts(refusal.route),
                "stage": refusal.stage.value,
                "reason": refusal.reason,
                "by_policy": refusal.by_policy,
            },
            refusal.at,
        )
        row.add(refusal.at, refusal.policies, refusal.digests)
        self._totals["by policy"] += refusal.by_policy
        if refusal.by_policy:
            self._drawn(refusal.route, "refused", refusal.at)

    def _drawn(self, route: Route, what: str, at: float) -> None:
        facts = {"from": route.source, "to": route.target, "what": what}
        self._between_rows.row(tuple(facts.values()), lambda: facts, at).add(at)

    def _operation(self, entry: LoggedEntry) -> None:
        facts = {
            "kind": entry.kind.value,
            "action": entry.action,
            "outcome": entry.outcome,
            "reason": entry.reason,
        }
        self._operation_rows.row(tuple(facts.values()), lambda: facts, entry.at).add(entry.at)


def _facts(route: Route) -> dict[str, Any]:
    return {
        "data_classes": list(route.data_classes),
        "action": route.action,
        "from": route.source,
        "to": route.target,
        "purpose": route.purpose,
        "transfer_basis": route.transfer_basis,
        "recipient": route.recipient,
    }


def _when(row: Row) -> dict[str, Any]:
    return {"first": time_text(row.first), "last": time_text(row.last)}


def _when_and_why(row: Row) -> dict[str, Any]:
    return {
        **_when(row),
        "policies": sorted(row.policies),
        "more_policies": row.more,
        "policy_digests": [list(each) for each in sorted(row.digests)],
    }


def _log_document(origin: str, log: _Log) -> dict[str, Any]:
    return {
        "origin": origin,
        "first": log.first,
        "last": log.last,
        "read": log.read,
        "in_period": log.in_period,
        "unreadable": log.unreadable,
        "unreadable_at": log.unreadable_at,
        "missing": log.missing,
        "missing_at": log.missing_at,
        "repeated": log.repeated,
        "copies": log.copies,
    }
