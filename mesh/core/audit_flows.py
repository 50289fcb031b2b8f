"""Which entries of decision logs are flows of data, which are refusals, and which are two ends of one.

A flow is counted once, whichever logs are read together:

- *infer*, *embed*: only the serving node's "serve" entry counts, from the country of the caller's authority
  to where the node stands. What was placed ("place") is no flow, for nothing was sent yet. Whether the
  placing decision is in these logs, too, is told by the decision that the permit cites.
- *search*, from the client to its asker: the asker's "search", "answer" or "fetch" entry.
- *search*, from the asker to each other node that it asks: both ends write it down. The asker's entry names
  the nodes, "covered" tells what became of each, and each holder writes "shard". The holder's entry cites
  the asker's by id (the permit's decision), so the pair (id, holder) is one flow.
- *release*: only the holder writes it down, from where it stands to the country of the requester's authority.

What was refused before sending is no flow, nor is what its receiver refused (though it had arrived there):
both are refusals. A call that was cut, or refused at a later step, was a flow.

At most `MAX_WAITING` flows wait for their other end; beyond that the oldest is counted as it stands, and
`Flows.settled_early` says how many were: of these, both ends might have been counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache

from mesh.core.audit_entries import QUESTIONS, Decided, Judged, Kind, LoggedEntry, country_of
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

MAX_WAITING = 50_000
MAX_PLACED = 500_000
_MAX_IDS = 16  # of entries of one flow: each end writes one, a hostile log as many as it likes

_POLICY = frozenset(reason.code for reason in Reason if reason.is_policy)


class State(StrEnum):
    """How a flow is known to have ended."""

    SERVED = "served"  # its receiver wrote down that it took it
    ANSWERED = "answered"  # only the sender's log is here: the receiver answered
    FAILED = "failed"  # only the sender's log is here: it may have arrived or not
    SENT = "sent"  # only the sender's log is here, and it says no more


class Stage(StrEnum):
    """Where something was refused."""

    BEFORE = "before sending"
    RECEIVER = "by the receiver"


@dataclass(frozen=True, slots=True)
class Route:
    """What kind of data for what, from where to whom. Countries are "" where no log says.

    `recipient` is a node, or for a release the authority of whoever it is released to.
    """

    action: str
    data_classes: tuple[str, ...]
    purpose: str
    transfer_basis: str
    source: str
    target: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow. `ends`: whose logs tell of it, "sender", "receiver" or "both"; `cut` that it was cut off or
    refused at a later step. `level` and `chunks` are of releases. `disagree`: both ends tell it otherwise."""

    at: float
    route: Route
    state: State
    reason: str = ""
    ends: str = "receiver"
    cut: bool = False
    level: str = ""
    chunks: int = 0
    policies: frozenset[str] = frozenset()
    digests: frozenset[tuple[str, str]] = frozenset()
    disagree: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was not let through, and by which policies, if any did."""

    at: float
    route: Route
    stage: Stage
    reason: str
    policies: frozenset[str] = frozenset()
    digests: frozenset[tuple[str, str]] = frozenset()

    @property
    def by_policy(self) -> bool:
        """Whether a policy or an authority's word refused, and not a full queue or a lost node."""
        return self.reason in _POLICY


@dataclass(slots=True)
class _Waiting:
    """A flow of which more may come to light."""

    sent: Flow | None = None
    served: Flow | None = None
    answered: str = ""
    answer_reason: str = ""
    ids: set[tuple[str, str]] = field(default_factory=set)
    refused: bool = False
    cut: bool = False
    cites: str = ""


# ("here", log, index) of what one end alone writes down; ("asked", the asker's id, holder) of what both do.
_Key = tuple[str, str, str]


class Flows:
    """Feed it entries of any logs in any order; each feed gives what is settled, `finish` the rest."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._most = max_waiting
        self._waiting: OrderedDict[_Key, _Waiting] = OrderedDict()
        self._by_id: dict[tuple[str, str], _Key] = {}  # what a cut or a release of the same log refers to
        self._placed: set[str] = set()
        self.settled_early = 0
        self.unmatched = 0
        """Entries about a flow ("covered", "cut") whose own entry is not among those read."""
        self.unlisted_refusals = 0
        """Refused nodes that a decision counts but its entry does not name."""

    def feed(self, entry: LoggedEntry) -> list[Flow | Refusal]:
        """What this entry settles: refusals and releases at once, flows when their other end can wait no
        longer."""
        found = list(self._read(entry))
        while len(self._waiting) > self._most:
            self.settled_early += 1
            found.extend(self._settle(self._waiting.popitem(last=False)[1]))
        return found

    def finish(self) -> list[Flow | Refusal]:
        """What was still waiting."""
        found: list[Flow | Refusal] = []
        while self._waiting:
            found.extend(self._settle(self._waiting.popitem(last=False)[1]))
        return found

    def _read(self, entry: LoggedEntry) -> Iterator[Flow | Refusal]:
        if entry.kind is Kind.PLACE:
            yield from self._placement(entry)
        elif entry.kind is Kind.SERVE or entry.kind in QUESTIONS:
            yield from self._received(entry)
        elif entry.kind is Kind.SHARD:
            yield from self._held(entry)
        elif entry.kind is Kind.COVERED:
            self._covered(entry)
        elif entry.kind is Kind.RELEASE:
            yield from self._released(entry)
        elif entry.kind is Kind.CUT:
            waiting = self._known(entry)
            if waiting is None:
                self.unmatched += 1
            else:
                waiting.cut = True

    def _placement(self, entry: LoggedEntry) -> Iterator[Refusal]:
        decided = entry.decision
        if decided is None:
            yield Refusal(entry.at, _route(entry), Stage.BEFORE, entry.reason)
            return
        if decided.id and len(self._placed) < MAX_PLACED:
            self._placed.add(decided.id)
        yield from self._refused_nodes(entry, decided, entry.from_country)

    def _received(self, entry: LoggedEntry) -> Iterator[Refusal]:
        """A request at the node that serves it, or a client's question at its asker."""
        asker_at = entry.to_country or country_of(entry.node)
        if entry.outcome != "served":
            denied = _of(entry.asks.refused if entry.asks is not None else (), entry.only)
            if denied and entry.asks is not None:  # taken here, but its one holder may not be asked
                yield from self._refused_nodes(entry, replace(entry.asks, refused=denied), asker_at)
            else:
                yield _refusal_here(entry)
            return
        here = self._wait(("here", entry.origin, str(entry.index)), entry)
        here.served, here.cites = _flow_here(entry), entry.cites
        if entry.asks is None:
            return
        only = replace(
            entry.asks,
            ranked=_of(entry.asks.ranked, entry.only) if entry.only else entry.asks.ranked,
            refused=_of(entry.asks.refused, entry.only) if entry.only else entry.asks.refused,
        )
        yield from self._refused_nodes(entry, only, asker_at)
        for node in only.ranked:
            if node.node != entry.node:  # what stays in the asker's own process goes nowhere
                route = _route(entry, asker_at, node.location, node.node)
                told = _digests(only, entry.caller, node.node)
                asked = self._wait(("asked", entry.id, node.node))
                asked.sent = Flow(
                    entry.at, route, State.SENT, ends="sender", policies=_ids([node]), digests=told
                )

    def _held(self, entry: LoggedEntry) -> Iterator[Refusal]:
        """A question at a node that holds documents."""
        key = ("asked", entry.cites or entry.id, entry.node)
        waiting = self._waiting.get(key)
        if entry.outcome == "served":
            waiting = self._wait(key, entry)
            waiting.served = waiting.served or _flow_here(entry)
        elif waiting is not None and (entry.origin, entry.id) in waiting.ids:
            waiting.cut = True
        else:
            self._wait(key).refused = True
            yield _refusal_here(entry)

    def _covered(self, entry: LoggedEntry) -> None:
        known = self._known(entry) is not None
        for node in entry.covered:
            waiting = self._waiting.get(("asked", entry.id, node.node))
            if waiting is not None:
                known = True
                waiting.answered, waiting.answer_reason = node.outcome, node.reason
        self.unmatched += not known

    def _released(self, entry: LoggedEntry) -> Iterator[Flow]:
        served = self._known(entry)
        told = served.served if served is not None else None
        context = told.route if told is not None else None
        to = entry.requester
        route = _route(entry, entry.from_country, entry.to_country, _authority(to))
        if context is not None and not entry.purpose:
            route = replace(
                route,
                data_classes=context.data_classes,
                purpose=context.purpose,
                transfer_basis=context.transfer_basis,
                source=entry.location or context.target or route.source,
            )
        if entry.released_classes:
            route = replace(route, data_classes=entry.released_classes)
        for level, chunks in entry.released.items():
            if not chunks:
                continue
            yield Flow(
                entry.at,
                replace(route, action="release"),
                State.SERVED,
                level=level,
                chunks=chunks,
                digests=told.digests if told is not None else frozenset(),
            )

    def _refused_nodes(self, entry: LoggedEntry, decided: Decided, source: str) -> Iterator[Refusal]:
        if not entry.only:
            self.unlisted_refusals += decided.refused_total - len(decided.refused)
        for node in decided.refused:
            route = _route(entry, source, node.location, node.node)
            told = _digests(decided, entry.caller, node.node)
            yield Refusal(entry.at, route, Stage.BEFORE, node.reason, _ids([node]), told)

    def _wait(self, key: _Key, entry: LoggedEntry | None = None) -> _Waiting:
        """The flow of this key; found again by the entry's own id."""
        waiting = self._waiting.setdefault(key, _Waiting())
        if entry is not None and len(waiting.ids) < _MAX_IDS:
            waiting.ids.add((entry.origin, entry.id))
            self._by_id[entry.origin, entry.id] = key
        return waiting

    def _known(self, entry: LoggedEntry) -> _Waiting | None:
        key = self._by_id.get((entry.origin, entry.id))
        return self._waiting.get(key) if key is not None else None

    def _settle(self, waiting: _Waiting) -> Iterator[Flow | Refusal]:
        for each in waiting.ids:
            self._by_id.pop(each, None)
        sent, served = waiting.sent, waiting.served
        if served is not None:
            placed = sent is not None or waiting.cites in self._placed
            told = served if sent is None else _joined(sent, served)
            yield replace(told, ends="both" if placed else "receiver", cut=waiting.cut)
        elif sent is not None and (waiting.answered == "answered" or not waiting.refused):
            if waiting.answered == "not-asked":
                yield Refusal(
                    sent.at, sent.route, Stage.BEFORE, waiting.answer_reason, frozenset(), sent.digests
                )
            else:
                state = State(waiting.answered) if waiting.answered in ("answered", "failed") else State.SENT
                yield replace(
                    sent, state=state, reason=waiting.answer_reason, cut=waiting.cut, disagree=waiting.refused
                )


def _joined(sent: Flow, served: Flow) -> Flow:
    """One flow of what its two ends tell; where from, the sender says; all else, the receiver."""
    one, two = sent.route, served.route
    return replace(
        served,
        route=replace(two, source=one.source or two.source, target=two.target or one.target),
        policies=sent.policies | served.policies,
        digests=sent.digests | served.digests,
        disagree=bool(one.target and two.target and one.target != two.target)
        or (one.data_classes, one.purpose, one.transfer_basis)
        != (two.data_classes, two.purpose, two.transfer_basis),
    )


def _flow_here(entry: LoggedEntry) -> Flow:
    decided = entry.decision or Decided()
    told = _digests(decided, entry.caller, entry.node)
    return Flow(entry.at, _route(entry), State.SERVED, policies=_ids(decided.ranked), digests=told)


def _refusal_here(entry: LoggedEntry) -> Refusal:
    decided = entry.decision or Decided()
    told = _digests(decided, entry.caller, entry.node)
    return Refusal(entry.at, _route(entry), Stage.RECEIVER, entry.reason, _ids(decided.refused), told)


def _route(
    entry: LoggedEntry, source: str | None = None, target: str | None = None, recipient: str | None = None
) -> Route:
    return Route(
        entry.action,
        entry.data_classes,
        entry.purpose,
        entry.transfer_basis,
        entry.from_country if source is None else source,
        entry.to_country if target is None else target,
        entry.node if recipient is None else recipient,
    )


def _of(judged: tuple[Judged, ...], node: str) -> tuple[Judged, ...]:
    return tuple(each for each in judged if each.node == node)


def _ids(judged: tuple[Judged, ...] | list[Judged]) -> frozenset[str]:
    return frozenset(policy for each in judged for policy in each.policies)


def _digests(decided: Decided, *ends: str) -> frozenset[tuple[str, str]]:
    """Of the two authorities that have a say in it (I3); a decision names those of everybody."""
    concerned = set(map(_authority, ends))
    return frozenset(each for each in decided.digests.items() if each[0] in concerned)


@lru_cache(4096)
def _authority(spiffe_id: str) -> str:
    try:
        return SpiffeId.parse(spiffe_id).trust_domain
    except MeshError:
        return ""
