"""One entry of a decision log, read back: bytes that somebody else wrote, made into a small value.

A log may come from another party, so its bytes are hostile until read (strict_json.py). What is not as its
kind has it is ENTRY_MALFORMED, and nothing else is ever raised. An entry of a kind that is not known here is
kept as `Kind.OTHER`: a newer writer is no error.

What the writers put where (mesh/evidence, node/gate.py, node/retrieval, mesh/rpc/placement_service.py,
control/actions.py):

    place    caller, action, model, context, decision; or `refused`, a reason, where nothing was decided
    serve    node, caller, action, model, context, permit, decision, outcome, reason
    search   the same, and `asks`: the decision on all nodes that hold the collection; also answer, and
             fetch, which asks `only` one of them
    covered  of a search or an answer, by its id: nodes with what became of each
    shard    node, caller (the asking node), requester (its client), and the same as serve
    release  by the id of the shard entry: requester, released (level -> how many), context, location, and
             `asked`, the id of the asker's entry
    cut      by the id of what was served: reason
    index    node, caller, action, collection, outcome; begun and ended under one id
    action   control plane: by, action, state, reason; begun and ended under one id

Texts are kept on one printable line, so that whoever shows them need not think of terminals; `raw` is
the entry as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from mesh.core.errors import MeshError
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.strict_json import MAX_TEXT_CHARS, Fields, load_object, refuse
from mesh.core.text import printable
from mesh.core.types import MAX_DATA_CLASSES, SpiffeId

MAX_TIME = 253_402_300_799.0  # the end of the year 9999


class Kind(StrEnum):
    """The kinds of entry that are understood; `OTHER` for all else."""

    PLACE = "place"
    SERVE = "serve"
    SEARCH = "search"
    ANSWER = "answer"
    FETCH = "fetch"
    COVERED = "covered"
    SHARD = "shard"
    RELEASE = "release"
    CUT = "cut"
    INDEX = "index"
    ACTION = "action"
    OTHER = "other"


QUESTIONS = frozenset({Kind.SEARCH, Kind.ANSWER, Kind.FETCH})
_KNOWN = {kind.value: kind for kind in Kind if kind is not Kind.OTHER}


@dataclass(frozen=True, slots=True)
class Leaf:
    """An entry's bytes, and where they are: the log's name and the entry's index in it, from 0."""

    origin: str
    index: int
    data: bytes


class Judged(NamedTuple):
    """A node that a decision permits (then `reason` is "") or refuses; `policies` determined it."""

    node: str
    location: str
    policies: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as the log keeps it. `digests`: trust domain -> digest of the policies in force there."""

    id: str = ""
    ranked: tuple[Judged, ...] = ()
    refused: tuple[Judged, ...] = ()
    refused_total: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Judged | None:
        """The node that it is about, where it is about one: permitted or refused."""
        return next(iter((*self.ranked, *self.refused)), None)


class Covered(NamedTuple):
    """What became of one node that a question concerned."""

    node: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One entry. What it does not state is empty; `at` is Unix seconds.

    `name` is the kind as written, `node` who wrote it (empty for a control plane), `caller` who was on the
    connection or acted, `requester` the client for whom a node asks. `cites` is the decision that the
    permit was issued on: it links what the receiver wrote to what the sender wrote. `location` and
    `caller_location` are countries in which nodes stand, `released` chunks by level, `abridged` how many
    items of its lists the writer left out for size.
    """

    origin: str
    index: int
    kind: Kind
    name: str
    at: float
    raw: Mapping[str, Any]
    id: str = ""
    node: str = ""
    caller: str = ""
    requester: str = ""
    action: str = ""
    subject: str = ""
    data_classes: tuple[str, ...] = ()
    purpose: str = ""
    transfer_basis: str = ""
    tenant: str = ""
    outcome: str = ""
    reason: str = ""
    cites: str = ""
    only: str = ""
    location: str = ""
    caller_location: str = ""
    decision: Decided | None = None
    asks: Decided | None = None
    covered: tuple[Covered, ...] = ()
    released: Mapping[str, int] = field(default_factory=dict)
    released_classes: tuple[str, ...] = ()
    abridged: int = 0

    @property
    def from_country(self) -> str:
        """Where it comes from: the sending node's place, or else the country of the caller's authority."""
        if self.kind is Kind.RELEASE:
            return self.location or country_of(self.node)
        return self.caller_location or country_of(self.caller)

    @property
    def to_country(self) -> str:
        """Where it goes, or would have gone: the receiver's place, as the decision has it; "" if unknown."""
        if self.kind is Kind.RELEASE:
            return country_of(self.requester)
        judged = self.decision.first if self.decision is not None else None
        return judged.location if judged is not None else ""

    @property
    def destinations(self) -> frozenset[str]:
        """Every country that it concerns as one to go to, permitted or refused."""
        decisions = [each for each in (self.decision, self.asks) if each is not None]
        places = {judged.location for each in decisions for judged in (*each.ranked, *each.refused)}
        return frozenset({*places, self.to_country} - {""})

    @property
    def ids(self) -> frozenset[str]:
        """Every id by which it can be asked for: its own, its decision's and the one that it cites."""
        decided = self.decision.id if self.decision is not None else ""
        return frozenset({self.id, decided, self.cites} - {""})


@lru_cache(4096)
def country_of(spiffe_id: str) -> str:
    """The country of the authority that this name belongs to; "" if it is no name of the mesh."""
    try:
        code = SpiffeId.parse(spiffe_id).trust_domain.split(".", 1)[0].upper()
    except MeshError:
        return ""
    return _country(code)


def read_entry(leaf: Leaf) -> LoggedEntry:
    """The entry in these bytes. Raises ENTRY_MALFORMED, and nothing else, whatever they are."""
    raw = load_object(leaf.data)
    stated = Fields(raw)
    name = stated.text("kind")
    kind = _KNOWN.get(name, Kind.OTHER)
    if not name:
        refuse("kind: a word")
    at = stated.number("at", MAX_TIME)
    head: dict[str, Any] = {
        "origin": leaf.origin,
        "index": leaf.index,
        "kind": kind,
        "name": name,
        "at": at,
        "raw": raw,
    }
    if kind is Kind.OTHER:  # nothing is known of it, so nothing of it can be wrong
        return LoggedEntry(
            **head, id=_loose(raw, "id"), node=_loose(raw, "node"), caller=_loose(raw, "caller")
        )
    context, permit = stated.inner("context"), stated.inner("permit")
    decision = _decision(stated, "decision")
    return LoggedEntry(
        **head,
        id=stated.text("id") or (decision.id if decision is not None else ""),
        node=stated.text("node"),
        caller=stated.text("caller") or stated.text("by"),
        requester=stated.text("requester"),
        action=stated.text("action"),
        subject=stated.text("model") or stated.text("collection"),
        data_classes=_classes(context.texts("data_classes")),
        purpose=context.text("purpose"),
        transfer_basis=context.text("transfer_basis"),
        tenant=context.text("tenant"),
        outcome=_outcome(kind, stated, decision),
        reason=stated.text("reason") or (stated.text("refused") if kind is Kind.PLACE else ""),
        cites=permit.text("decision") or (stated.text("asked") if kind is Kind.RELEASE else ""),
        only=stated.text("only"),
        location=_country(stated.text("location")),
        caller_location=_country(stated.text("caller_location")),
        decision=decision,
        asks=_decision(stated, "asks"),
        covered=tuple(
            Covered(each.text("node"), each.text("outcome"), each.text("reason"))
            for each in (stated.items("nodes") if kind is Kind.COVERED else ())
        ),
        released=stated.counts("released") if kind is Kind.RELEASE else {},
        released_classes=_classes(stated.texts("released_classes")),
        abridged=sum(stated.counts("left_out").values()),
    )


def _outcome(kind: Kind, stated: Fields, decision: Decided | None) -> str:
    """One word: a placement states it by what it found, an action calls it its state."""
    if kind is Kind.PLACE:
        return "permitted" if decision is not None and decision.ranked else "refused"
    return stated.text("outcome") or stated.text("state")


def _decision(stated: Fields, name: str) -> Decided | None:
    if not stated.has(name):
        return None
    inner = stated.inner(name)
    refused = tuple(_judged(each, "policies", each.text("reason")) for each in inner.items("refused"))
    return Decided(
        inner.text("id"),
        tuple(_judged(each, "permitted_by", "") for each in inner.items("ranked")),
        refused,
        max(inner.count("refused_total"), len(refused)),
        inner.words("policies"),
    )


def _judged(stated: Fields, policies: str, reason: str) -> Judged:
    return Judged(stated.text("node"), _country(stated.text("location")), stated.texts(policies), reason)


def _loose(raw: Mapping[str, Any], name: str) -> str:
    """Of an entry of which nothing is known: a text if it is one."""
    found = raw.get(name)
    return printable(found[:MAX_TEXT_CHARS]) if isinstance(found, str) else ""


def _classes(listed: tuple[str, ...]) -> tuple[str, ...]:
    if len(listed) > MAX_DATA_CLASSES:
        refuse(f"at most {MAX_DATA_CLASSES} data classes")
    return tuple(sorted(set(listed)))


def _country(code: str) -> str:
    return code if code in COUNTRIES else ""
