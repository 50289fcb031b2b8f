"""Which flows policies permit: every kind of request against every node, with both keys (I3).

A `World` is what is known: policies, groups, a day, and the nodes that there are, or none where every
node that could exist is meant. `Keys` put questions to the policies in force in it, each distinct one
once, through the engine that also judges requests (mesh/core/policy.py): nothing is decided here that
is not decided there. Outcomes are bit masks over the nodes of a case.

An authority whose policies are not known is, in a `trusting` world, taken to permit everything: what is
found never to happen then holds whatever it decides. In a world that is not trusting it refuses, as it
does in the mesh as long as it has published none.

Only policies are looked at. Freshness, revocation, cordons and a caller's own narrowing can but take away.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import COUNTRIES, Groups
from mesh.core.policy import PolicyEngine, Verdict
from mesh.core.policy_mentions import (
    AUTHORITY,
    CLIENT,
    COUNTRY_SLOTS,
    HOME,
    SeenPolicy,
    read_seen,
)
from mesh.core.policy_sight import Sight, alike, merged, sight_of
from mesh.core.policy_space import authority_of, nodes, requests
from mesh.core.policy_view import Asked, Key, Subject, View
from mesh.core.retrieval import ReleaseLevel
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass, SpiffeId, jurisdiction_of

# Questions to Cedar in all: about a minute on one core. Beyond it, people should ask about less.
MAX_JUDGED = 400_000
# Kinds of requests in all, over every pair of authorities: gone through in Python, so about a minute, too.
MAX_REQUESTS = 1_000_000
_BATCH = 4_096
_NODES_AT_ONCE = 256

T = TypeVar("T")

LEVELS = tuple(ReleaseLevel)[1:]


@dataclass(frozen=True)
class World:
    """What is known. `nodes` are those that exist; None stands for every node that could."""

    snapshot: Snapshot
    on: datetime.date
    nodes: tuple[Subject, ...] | None = None
    trusting: bool = True

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The authorities whose policies are known, sorted."""
        return tuple(sorted(self.snapshot.policies))

    @cached_property
    def countries(self) -> frozenset[str]:
        """Their countries."""
        return frozenset(jurisdiction_of(each) for each in self.known)

    def decides(self, authority: str) -> bool:
        """Whether this authority is asked, rather than taken to permit."""
        return authority in self.snapshot.policies or not self.trusting

    def groups_of(self, authority: str) -> Groups:
        """The groups of countries that this authority goes by."""
        return self.snapshot.groups.get(authority) or Groups.shipped()


@dataclass(frozen=True, slots=True)
class Scope:
    """What to ask about. `purposes`: every kind of them if none; `senders`: trust domains, everybody if
    none; `levels` are for release."""

    classes: frozenset[DataClass] = frozenset(DataClass)
    purposes: tuple[str, ...] = ()
    actions: tuple[Action, ...] = tuple(Action)
    levels: frozenset[ReleaseLevel] = frozenset(LEVELS)
    senders: tuple[str, ...] = ()


class Budget:
    """Counts the questions that Cedar was asked, and refuses beyond a limit."""

    def __init__(self, limit: int = MAX_JUDGED) -> None:
        self.asked = 0
        self._limit = limit
        self._requests = 0

    def look(self, requests_: int) -> None:
        """Counts kinds of requests that are gone through; raises POLICY_UNDECIDED beyond MAX_REQUESTS."""
        self._requests += requests_
        if self._requests > MAX_REQUESTS:
            raise MeshError(
                Reason.POLICY_UNDECIDED,
                f"undecided, because the policies tell more than {MAX_REQUESTS} kinds of requests apart:"
                " ask about fewer actions, classes, purposes or senders at a time",
            )

    def spend(self, questions: int) -> None:
        """Raises POLICY_UNDECIDED before the limit is passed."""
        if self.asked + questions > self._limit:
            raise MeshError(
                Reason.POLICY_UNDECIDED,
                f"undecided, because it would take more than {self._limit} questions to the policies:"
                " ask about fewer actions, classes, purposes or senders at a time",
            )
        self.asked += questions


class Keys:
    """The policies of one snapshot, asked once about everything that they can tell apart."""

    def __init__(self, engine: PolicyEngine, world: World, budget: Budget, only: str = "") -> None:
        """`only` is the one name in the snapshot that is asked, whoever sends or receives; "" for both
        authorities of a flow."""
        self._engine = engine
        self._world = world
        self.budget = budget
        self._only = only
        self._seen: dict[str, tuple[SeenPolicy, ...]] = {}
        self._views: dict[tuple[str, str, Action], View] = {}
        self._verdicts: dict[tuple[str, str, Action], dict[tuple[Key, Key], Verdict]] = {}

    def authorities(self, sender: str, receiver: str) -> tuple[str, ...]:
        """Whose policies are asked about a flow: the sender's first, the same one once, nobody who is taken
        to permit."""
        named = (self._only,) if self._only else dict.fromkeys((sender, receiver))
        return tuple(each for each in named if each and self._world.decides(each))

    def seen(self, authority: str) -> tuple[SeenPolicy, ...]:
        """What each of this authority's policies looks at; none if it has none."""
        policies = self._seen.get(authority)
        if policies is None:
            document = self._world.snapshot.policies.get(authority)
            try:
                policies = read_seen(document.cedar) if document is not None else ()
            except MeshError:
                policies = ()  # what cannot be read refuses everything (I4), whatever it looks at
            self._seen[authority] = policies
        return policies

    def view(self, authority: str, sender: str, action: Action) -> View:
        """What this authority tells apart when clients of `sender` ask for this."""
        view = self._views.get((authority, sender, action))
        if view is None:
            groups, on = self._world.groups_of(authority), self._world.on
            home = jurisdiction_of(sender)
            places = [("Jurisdiction", home)]
            places += [("Group", name) for name in groups.groups_of(home, frozenset(), on)]
            view = View(sight_of(self.seen(authority), action, places), groups, on)
            self._views[authority, sender, action] = view
        return view

    def views_of_everybody(self, known: Iterable[str], actions: Sequence[Action]) -> list[View]:
        """What each of these authorities tells apart, wherever a request comes from."""
        views = []
        for authority in (self._only,) if self._only else known:
            groups = self._world.groups_of(authority)
            places = [("Jurisdiction", c) for c in COUNTRIES] + [("Group", g) for g in groups.names()]
            sights = [sight_of(self.seen(authority), action, places) for action in actions]
            views.append(View(merged(sights), groups, self._world.on))
        return views

    def allow(
        self,
        authority: str,
        sender: str,
        action: Action,
        asked: Sequence[Asked],
        subjects: Sequence[Subject],
        masks: Sequence[int],
    ) -> list[int]:
        """For each request the nodes of its mask that this authority permits, as a mask."""
        view = self.view(authority, sender, action)
        like = alike(self.seen(authority), action)
        verdicts = self._verdicts.setdefault((authority, sender, like), {})
        kinds: dict[Key, int] = {}
        example: dict[Key, Subject] = {}
        for i, subject in enumerate(subjects):
            key = view.node_key(subject)
            kinds[key] = kinds.get(key, 0) | 1 << i
            example.setdefault(key, subject)
        keys = [view.asked_key(each) for each in asked]
        needed: dict[Key, int] = {}
        first: dict[Key, Asked] = {}
        for key, each, mask in zip(keys, asked, masks, strict=True):
            needed[key] = needed.get(key, 0) | mask
            first.setdefault(key, each)
        # Requests of one caller that are open about the same nodes go into one batch.
        batches: dict[tuple[SpiffeId, tuple[Key, ...]], list[Key]] = {}
        for key, mask in needed.items():
            open_ = tuple(k for k, nodes_ in kinds.items() if mask & nodes_ and (key, k) not in verdicts)
            if open_:
                batches.setdefault((first[key].principal.id, open_), []).append(key)
        for (_, open_), questions in batches.items():
            self._judge(
                authority, [(k, first[k]) for k in questions], [(k, example[k]) for k in open_], verdicts
            )
        allowed = {
            key: _union(nodes_ for k, nodes_ in kinds.items() if mask & nodes_ and verdicts[key, k].allowed)
            for key, mask in needed.items()
        }
        return [mask & allowed[key] for key, mask in zip(keys, masks, strict=True)]

    def verdict(self, authority: str, asked: Asked, subject: Subject) -> Verdict:
        """What the engine says about this very request and node."""
        request = (asked.action, asked.context, asked.release)
        return self._engine.judge_each(
            self._world.snapshot, authority, asked.principal, [request], [subject], self._world.on
        )[0][0]

    def _judge(
        self,
        authority: str,
        questions: Sequence[tuple[Key, Asked]],
        subjects: Sequence[tuple[Key, Subject]],
        verdicts: dict[tuple[Key, Key], Verdict],
    ) -> None:
        """Asks about every one of these questions and every one of these nodes, in batches."""
        principal = questions[0][1].principal
        classes = max(len(_classes(asked)) for _, asked in questions)
        for some in _apart(subjects):
            for part in _chunks(questions, max(1, _BATCH // (len(some) * classes))):
                self.budget.spend(sum(len(_classes(asked)) for _, asked in part) * len(some))
                answers = self._engine.judge_each(
                    self._world.snapshot,
                    authority,
                    principal,
                    [(asked.action, asked.context, asked.release) for _, asked in part],
                    [subject for _, subject in some],
                    self._world.on,
                )
                for (key, _), row in zip(part, answers, strict=True):
                    for (node_key, _), verdict in zip(some, row, strict=True):
                        verdicts[key, node_key] = verdict


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of one sender for one action, and nodes of one receiver; "" for those of authorities that
    are taken to permit."""

    sender: str
    receiver: str
    action: Action
    asked: tuple[Asked, ...]
    subjects: tuple[Subject, ...]

    @property
    def everything(self) -> list[int]:
        """The mask of all nodes, for every request."""
        return [(1 << len(self.subjects)) - 1] * len(self.asked)

    @property
    def size(self) -> int:
        """How many combinations this is."""
        return len(self.asked) * len(self.subjects)


def cases(world: World, scope: Scope, among: Sequence[Keys], concerning: str = "") -> Iterator[Case]:
    """Everything that the policies in `among` can tell apart, in parts; with `concerning`, only what that
    authority sends or receives.

    For release the requests name every level up to the highest asked about: each is a step to it.
    """
    mesh = world.snapshot.trust_domain
    by_authority: dict[str, list[Subject]] = {}
    for subject in world.nodes or ():
        by_authority.setdefault(subject.node.trust_domain, []).append(subject)
    highest = max(scope.levels, default=None)
    levels = [level for level in LEVELS if highest is not None and level <= highest]
    for sender in scope.senders or senders(world, scope.actions, among):
        known = sender in world.known
        receivers = [*world.known, *([""] if known and world.trusting else [])]
        if world.nodes is not None:
            receivers = [each for each in sorted(by_authority) if known or each in world.known]
        for receiver in receivers:
            if concerning and concerning not in (sender, receiver):
                continue
            for action in scope.actions:
                views = _views(among, sender, receiver, action)
                tests = _joint(world, views, sender, receiver)
                asked = requests(tests, sender, action, scope.classes, scope.purposes, levels)
                among[0].budget.look(len(asked))
                subjects = by_authority.get(receiver)
                if subjects is None:
                    others = "" if receiver else mesh
                    subjects = nodes(tests, views, [receiver] if receiver else [], others, world.countries)
                yield Case(sender, receiver, action, tuple(asked), tuple(subjects))


def permitted(keys: Keys, case: Case, masks: Sequence[int]) -> list[int]:
    """For each request of the case the nodes of its mask that it may reach: both keys, and for release
    every level on the way."""
    for authority in keys.authorities(case.sender, case.receiver):
        masks = keys.allow(authority, case.sender, case.action, case.asked, case.subjects, masks)
    if case.action is not Action.RELEASE:
        return list(masks)
    so_far: dict[object, int] = {}
    reached = []
    for asked, mask in zip(case.asked, masks, strict=True):
        documents = _documents(asked)
        so_far[documents] = so_far.get(documents, mask) & mask
        reached.append(so_far[documents])
    return reached


def for_every_level(case: Case, masks: Sequence[int]) -> list[int]:
    """The masks with which to ask about steps: a node counts for each level if it does for any."""
    if case.action is not Action.RELEASE:
        return list(masks)
    together: dict[object, int] = {}
    for asked, mask in zip(case.asked, masks, strict=True):
        documents = _documents(asked)
        together[documents] = together.get(documents, 0) | mask
    return [together[_documents(asked)] for asked in case.asked]


def in_scope(scope: Scope, asked: Asked) -> bool:
    """Whether the request itself is asked about, and not only as a step to a higher level."""
    return asked.release is None or any(asked.release.level == level.word for level in scope.levels)


def senders(world: World, actions: Sequence[Action], among: Sequence[Keys]) -> list[str]:
    """Who may send: the authorities that are known, and in a trusting world an example of every other kind
    of authority that they can tell apart."""
    found = list(world.known)
    if not world.trusting:
        return found
    views = [view for keys in among for view in keys.views_of_everybody(world.known, actions)]
    tests = merged(view.sight for view in views)
    classes: dict[Key, str] = {}
    for country in sorted(COUNTRIES - world.countries):
        classes.setdefault(tuple(view.country_class(HOME, country, tests) for view in views), country)
    mesh = world.snapshot.trust_domain
    found += [authority_of(country, mesh) for country in classes.values()]
    for name in sorted(tests.of(CLIENT).literals):
        try:
            authority = SpiffeId.parse(name).trust_domain
            if jurisdiction_of(authority) not in world.countries:
                found.append(authority)
        except MeshError:
            continue  # nobody can be called that
    return list(dict.fromkeys(found))


def _views(among: Sequence[Keys], sender: str, receiver: str, action: Action) -> list[View]:
    return [
        keys.view(authority, sender, action)
        for keys in among
        for authority in keys.authorities(sender, receiver)
    ]


def _joint(world: World, views: Iterable[View], sender: str, receiver: str) -> Sight:
    """All that is looked at together. What is fixed in a case counts as named where it is compared."""
    tests = merged(view.sight for view in views)
    home = frozenset({jurisdiction_of(sender)})
    fixed: dict[str, frozenset[str]] = {}
    for slot in COUNTRY_SLOTS:
        linked = tests.of(slot).linked
        if HOME in linked:
            fixed[slot] = fixed.get(slot, frozenset()) | home
        if AUTHORITY in linked:
            vouching = frozenset({jurisdiction_of(receiver)}) if receiver else world.countries
            fixed[slot] = fixed.get(slot, frozenset()) | vouching
    return tests.also_naming(fixed)


def _documents(asked: Asked) -> object:
    """What is asked about, the level aside."""
    release = asked.release
    return (asked.principal, asked.context, release._replace(level="") if release is not None else None)


def _classes(asked: Asked) -> Sequence[DataClass]:
    return asked.context.judged_classes if asked.release is None else asked.release.classes


def _union(masks: Iterable[int]) -> int:
    together = 0
    for mask in masks:
        together |= mask
    return together


def _apart(subjects: Sequence[tuple[Key, Subject]]) -> Iterator[Sequence[tuple[Key, Subject]]]:
    """The nodes in batches in which no name occurs twice: in one batch, one name is one node."""
    rounds: list[list[tuple[Key, Subject]]] = []
    seen: dict[SpiffeId, int] = {}
    for each in subjects:
        turn = seen[each[1].node] = seen.get(each[1].node, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(each)
    for turn_ in rounds:
        yield from _chunks(turn_, _NODES_AT_ONCE)


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
