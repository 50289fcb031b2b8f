"""What may stand in a label: values are taken from closed sets, or let in up to a bound, and else "other".

A series lives as long as the process and costs memory here and in whoever scrapes. So nothing that a caller,
a peer or the board can invent makes one: a value passes here first. Pure; it reads no clock and keeps no
payload. Used on the event loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mesh.core.decision import Decision
from mesh.core.errors import Reason
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.types import Action, DataClass, SpiffeId

OTHER = "other"
NONE = "none"  # the reason of what was permitted

ACTIONS: frozenset[str] = frozenset(Action)
# From least to most sensitive: the order in which they are declared.
_SENSITIVITY: Mapping[str, int] = {kind.value: place for place, kind in enumerate(DataClass)}
_QUESTIONS = frozenset({"serve", "search", "answer", "fetch", "shard"})


class FirstCome:
    """Lets in the first `limit` different values; what comes later is `OTHER`, for good."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[tuple[str, ...]] = set()

    def of(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The values, or as many times `OTHER`."""
        if values in self._known:
            return values
        if len(self._known) < self._limit:
            self._known.add(values)
            return values
        return (OTHER,) * len(values)


def one_of(value: object, allowed: Collection[str]) -> str:
    """The value if it is one of these, else `OTHER`."""
    return str(value) if isinstance(value, str) and value in allowed else OTHER


def first(names: Iterable[str], limit: int) -> tuple[str, ...]:
    """The first so many of the names, in their order: the same ones at every scrape."""
    return tuple(sorted(names)[:limit])


def split_method(path: str) -> tuple[str, str]:
    """Service and method of "/package.Service/Method"; `OTHER` twice for what has another form."""
    empty, slash, rest = path.partition("/")
    service, second, method = rest.partition("/")
    if empty or not slash or not second or not service or not method or "/" in method:
        return OTHER, OTHER
    return service, method


def country(code: object) -> str:
    """An assigned ISO 3166-1 alpha-2 code, or `OTHER`."""
    return one_of(code, COUNTRIES)


def country_of(identity: SpiffeId) -> str:
    """That of the authority which the name belongs to."""
    return country(identity.trust_domain.partition(".")[0].upper())


def action_label(action: object) -> str:
    """One of `Action`, or `OTHER`."""
    return one_of(action, ACTIONS)


def most_sensitive(classes: object) -> str:
    """Of several data classes the most sensitive, by which their flow is counted; `OTHER` for none."""
    if not isinstance(classes, Collection):
        return OTHER
    known = [str(each) for each in classes if isinstance(each, str) and each in _SENSITIVITY]
    return max(known, key=_SENSITIVITY.__getitem__, default=OTHER)


def refused_for(decision: Decision) -> str:
    """The reason that most nodes were refused for, of equals the one that the catalog has first; `NONE` if
    some node is permitted. MODEL_NOT_SERVED counts only where nothing else was the matter."""
    if decision.permitted:
        return NONE
    counts = Counter(each.reason for each in decision.refused)
    if len(counts) > 1:
        del counts[Reason.MODEL_NOT_SERVED]
    if not counts:
        return Reason.NO_NODE_AVAILABLE.code
    return min(counts, key=lambda reason: (-counts[reason], reason.value.ordinal)).code


class Flow(NamedTuple):
    """One flow of data, as it is counted. Countries are valid or `OTHER`."""

    source: str
    target: str
    data_class: str
    action: str


def flow_of(entry: Mapping[str, object], here: SpiffeId) -> Flow | None:
    """The flow that an entry of this node's decision log tells of; None if it tells of none.

    The same reading as mesh/core/audit_flows.py: what a node serves flows from the asking node's place, or
    else the country of the caller's authority, to where this node stands; what it releases, from there to the
    country of the requester's authority. Refusals are no flows.
    """
    kind = entry.get("kind")
    if kind == "release":
        released = entry.get("released")
        if not isinstance(released, Mapping) or not released:
            return None
        source = _first_known(entry.get("location"), country_of(here))
        classes = most_sensitive(entry.get("released_classes"))
        return Flow(source, _country_named(entry.get("requester")), classes, Action.RELEASE.value)
    if kind not in _QUESTIONS or entry.get("outcome") != "served":
        return None
    source = _first_known(entry.get("caller_location"), _country_named(entry.get("caller")))
    context = entry.get("context")
    classes = most_sensitive(context.get("data_classes") if isinstance(context, Mapping) else None)
    return Flow(source, country(_location(entry)), classes, action_label(entry.get("action")))


def _location(entry: Mapping[str, object]) -> object:
    """Where this node stands, as its own decision has it."""
    decision = entry.get("decision")
    ranked = decision.get("ranked") if isinstance(decision, Mapping) else None
    if isinstance(ranked, list | tuple) and ranked and isinstance(ranked[0], Mapping):
        return ranked[0].get("location")
    return None


def _first_known(*codes: object) -> str:
    return next((found for each in codes if (found := country(each)) != OTHER), OTHER)


def _country_named(identity: object) -> str:
    """That of "spiffe://de.mesh.example/...", without reading the rest of it."""
    if not isinstance(identity, str) or not identity.startswith("spiffe://"):
        return OTHER
    return country(identity.removeprefix("spiffe://").partition(".")[0].upper())
