"""Who may send what where, and what did flow: policies and decision logs on one map.

What may flow is asked of the same code as proofs and diffs (mesh/core/policy_flows.py), with both keys
(I3), over the nodes that there are. What did flow comes from the document of an audit report
(mesh/core/audit_report.py), in which a flow that two logs tell of is counted once.

Both speak of places: a sender is the country of its authority, a receiver the country where the node
stands, or the node itself. What a holder releases goes the other way, from its place to the requester's
country. A class of data is permitted to a place in `Extent.ALL` cases, in `SOME` (some purposes, callers,
actions or nodes), or in `NO` case that the policies can tell apart. A request with several classes is
permitted only if each is, so classes are looked at one by one.

A flow is `against` the policies if no request for its action and class could go that way now: policies may
have changed since, or the nodes. Nothing here knows of freshness, cordons or revocations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mesh.core.errors import MeshError
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import (
    MAX_JUDGED,
    Budget,
    Case,
    Keys,
    Scope,
    World,
    cases,
    for_every_level,
    in_scope,
    permitted,
)
from mesh.core.policy_view import Subject
from mesh.core.types import Action, DataClass, SpiffeId, jurisdiction_of, with_implied

CLASSES = tuple(DataClass)  # from the least to the most sensitive
# What nodes do today, and logs therefore tell of.
ACTIONS = (Action.INFER, Action.EMBED, Action.SEARCH, Action.RELEASE)


class By(StrEnum):
    """What a receiver is."""

    COUNTRY = "country"
    NODE = "node"


class Extent(StrEnum):
    """In how many of the cases that policies can tell apart something is permitted."""

    NO = "no"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Cell:
    """One class from one place to another: by action what is permitted, and how many flows there were."""

    permitted: Mapping[Action, Extent] = field(default_factory=dict)
    flowed: Mapping[Action, int] = field(default_factory=dict)

    @property
    def extent(self) -> Extent:
        """Over all actions."""
        found = set(self.permitted.values())
        if found <= {Extent.NO}:
            return Extent.NO
        return Extent.ALL if found == {Extent.ALL} else Extent.SOME

    @property
    def count(self) -> int:
        """How many flows there were."""
        return sum(self.flowed.values())

    @property
    def against(self) -> int:
        """How many of them could not go that way now."""
        return sum(n for action, n in self.flowed.items() if not self._open(action))

    def _open(self, action: Action) -> bool:
        return self.permitted.get(action, Extent.NO) is not Extent.NO


@dataclass(frozen=True, slots=True)
class Pair:
    """All classes from one place to another."""

    source: str
    target: str
    cells: Mapping[DataClass, Cell]

    @property
    def highest(self) -> DataClass | None:
        """The most sensitive class of which anything is permitted."""
        return next((c for c in reversed(CLASSES) if self.cells[c].extent is not Extent.NO), None)

    @property
    def highest_flowed(self) -> DataClass | None:
        """The most sensitive class that did flow."""
        return next((c for c in reversed(CLASSES) if self.cells[c].count), None)

    @property
    def count(self) -> int:
        """Flows; one with two classes counts for each."""
        return sum(cell.count for cell in self.cells.values())

    @property
    def against(self) -> int:
        """Those that could not go that way now."""
        return sum(cell.against for cell in self.cells.values())

    @property
    def extents(self) -> tuple[Extent, ...]:
        """What is permitted, class by class."""
        return tuple(self.cells[c].extent for c in CLASSES)


@dataclass(frozen=True, slots=True)
class FlowMap:
    """Places, sorted, and what is between them. `pairs` has every pair of a sender and a receiver.

    `unplaced` counts flows that cannot be put on the map: a place or a class that no log states, or an
    action that was not asked about; `unlisted` those that the report has no row for.
    """

    by: By
    actions: tuple[Action, ...]
    classes: tuple[DataClass, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    pairs: Mapping[tuple[str, str], Pair]
    unplaced: int = 0
    unlisted: int = 0

    @property
    def places(self) -> tuple[str, ...]:
        """Everything that sends or receives: countries first."""
        return tuple(sorted({*self.sources, *self.targets}, key=lambda place: (len(place) > 2, place)))

    @property
    def against(self) -> int:
        """Flows that could not go that way now."""
        return sum(pair.against for pair in self.pairs.values())


_Way = tuple[str, str, DataClass, Action]


def flow_map(
    engine: PolicyEngine,
    world: World,
    scope: Scope,
    report: Mapping[str, Any] | None = None,
    by: By = By.COUNTRY,
    limit: int = MAX_JUDGED,
) -> FlowMap:
    """The map of this world, whose nodes are known, and of what a report's document tells.

    Raises POLICY_UNDECIDED if it would take more than `limit` questions.
    """
    may = _permitted(engine, world, scope, by, limit)
    did, unplaced, unlisted = _flowed(report or {}, scope, by)
    ways = {*may, *did}
    pairs: dict[tuple[str, str], dict[DataClass, tuple[dict[Action, Extent], dict[Action, int]]]] = {}
    for way in sorted(ways):
        source, target, data_class, action = way
        permitted_, flowed = pairs.setdefault((source, target), {}).setdefault(data_class, ({}, {}))
        if way in may:
            permitted_[action] = may[way]
        if way in did:
            flowed[action] = did[way]
    return FlowMap(
        by=by,
        actions=scope.actions,
        classes=tuple(c for c in CLASSES if c in scope.classes),
        sources=tuple(sorted({source for source, _ in pairs})),
        targets=tuple(sorted({target for _, target in pairs})),
        pairs={
            (source, target): Pair(
                source, target, {c: Cell(*cells[c]) if c in cells else Cell() for c in CLASSES}
            )
            for (source, target), cells in pairs.items()
        },
        unplaced=unplaced,
        unlisted=unlisted,
    )


def _permitted(engine: PolicyEngine, world: World, scope: Scope, by: By, limit: int) -> dict[_Way, Extent]:
    keys = Keys(engine, world, Budget(limit))
    found: dict[_Way, set[bool]] = {}
    for case in cases(world, scope, [keys]):
        _add(found, scope, case, by, keys)
    return {way: _extent(answers) for way, answers in found.items()}


def _extent(answers: set[bool]) -> Extent:
    if answers == {True}:
        return Extent.ALL
    return Extent.SOME if True in answers else Extent.NO


def _add(found: dict[_Way, set[bool]], scope: Scope, case: Case, by: By, keys: Keys) -> None:
    """Adds, for every way that this case is about, whether some of it is permitted and some of it not."""
    wanted = [
        mask if in_scope(scope, asked) else 0 for asked, mask in zip(case.asked, case.everything, strict=True)
    ]
    reached = permitted(keys, case, for_every_level(case, wanted))
    masks: dict[str, int] = {}
    for i, subject in enumerate(case.subjects):
        place = _place(subject, by)
        masks[place] = masks.get(place, 0) | 1 << i
    sender = jurisdiction_of(case.sender)
    for asked, mask, open_ in zip(case.asked, wanted, reached, strict=True):
        if not mask:
            continue
        carried = asked.context.data_classes
        for place, nodes in masks.items():
            ends = (place, sender) if case.action is Action.RELEASE else (sender, place)
            for data_class in carried & scope.classes:
                answers = found.setdefault((*ends, data_class, case.action), set())
                if open_ & nodes:
                    answers.add(True)
                # What is refused for the company that a class keeps is no refusal of that class.
                if nodes & ~open_ and carried == set(with_implied(frozenset({data_class}))):
                    answers.add(False)


def _place(subject: Subject, by: By) -> str:
    return str(subject.node) if by is By.NODE else subject.facts.location


def _flowed(report: Mapping[str, Any], scope: Scope, by: By) -> tuple[dict[_Way, int], int, int]:
    """Flows by way; how many are on no way; how many have no row."""
    found: dict[_Way, int] = {}
    unplaced = 0
    sections = [report[name] for name in ("flows", "releases") if name in report]
    for row in (row for section in sections for row in section["rows"]):
        ways = list(_ways(row, scope, by))
        unplaced += 0 if ways else row["count"]
        for way in ways:
            found[way] = found.get(way, 0) + row["count"]
    return found, unplaced, sum(section["left_out"]["count"] for section in sections)


def _ways(row: Mapping[str, Any], scope: Scope, by: By) -> Iterable[_Way]:
    """The ways of a row, one for each class that was asked about."""
    action = next((each for each in scope.actions if each == row["action"]), None)
    source, target = row["from"], row["to"]
    if by is By.NODE:
        target = _node(row["recipient"])
    if action is None or not source or not target:
        return
    for data_class in CLASSES:
        if data_class in scope.classes and data_class in row["data_classes"]:
            yield source, target, data_class, action


def _node(name: str) -> str:
    """The name, if it is one of a node."""
    try:
        return name if SpiffeId.parse(name).kind == "node" else ""
    except MeshError:
        return ""


def alike(pairs: Iterable[Pair]) -> list[tuple[str, Sequence[Pair]]]:
    """Pairs by sender; those to which the same is permitted and nothing flowed are together, so that a map
    of many places stays short."""
    found: dict[tuple[object, ...], list[Pair]] = {}
    for pair in sorted(pairs, key=lambda each: (each.source, each.target)):
        own = pair.target if pair.count or pair.source == pair.target else ""
        found.setdefault((pair.source, own, pair.extents), []).append(pair)
    return [(key[0], together) for key, together in found.items() if isinstance(key[0], str)]
