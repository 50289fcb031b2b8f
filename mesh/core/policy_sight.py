"""What policies look at: which attributes, and by which words they tell their values apart.

Purposes, tenants and assurances are open sets of texts, and a policy can look at them in few ways only:
compare one with a literal or with another, look for it in a set, match a pattern. So any two values that
no literal names and that match the same patterns are alike to it, and exchanging one for the other
everywhere changes no answer. The same holds for countries that belong to the same groups. That is what
makes an infinite space finite (mesh/core/policy_space.py), and it rests on what is gathered here from
what each policy mentions (mesh/core/policy_mentions.py):

- for each attribute: the literals, groups and patterns that it meets in any comparison;
- which attributes meet each other (`resource.authority == resource.location`): those must be
  exchanged together, and several values of each kind are needed;
- whether a set is looked at as a whole, so that what is in it besides the named ones counts, too.

Policies that cannot apply to an action, or to a sender's country, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mesh.core.errors import MeshError, Reason
from mesh.core.policy_mentions import COUNTRY_SLOTS, TEXT_SLOTS, WORDS, Mention, SeenPolicy, Slot
from mesh.core.types import Action
from mesh.core.wildcards import Pattern


@dataclass(frozen=True, slots=True)
class Tests:
    """By what one attribute's values are told apart. `linked` are the attributes that it meets, itself
    included, none if it meets none; `every_group` that each group counts, named or not."""

    literals: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    patterns: frozenset[Pattern] = frozenset()
    linked: frozenset[Slot] = frozenset()
    whole: bool = False
    every_group: bool = False

    def plus(self, other: Tests) -> Tests:
        """Both together."""
        return Tests(
            self.literals | other.literals,
            self.groups | other.groups,
            self.patterns | other.patterns,
            self.linked | other.linked,
            self.whole or other.whole,
            self.every_group or other.every_group,
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """What some policies look at, by attribute; what is not in it they do not look at."""

    tests: Mapping[Slot, Tests] = field(default_factory=dict)

    def looks_at(self, slot: Slot) -> bool:
        """Whether any value of the attribute can matter."""
        return slot in self.tests

    def of(self, slot: Slot) -> Tests:
        """The attribute's tests."""
        return self.tests.get(slot, _NO_TESTS)

    def also_naming(self, literals: Mapping[Slot, Iterable[str]]) -> Sight:
        """The same, with further literals for attributes that are looked at."""
        tests = dict(self.tests)
        for slot, more in literals.items():
            if slot in tests:
                tests[slot] = replace(tests[slot], literals=tests[slot].literals | frozenset(more))
        return Sight(_closed(tests))


_NO_TESTS = Tests()


def sight_of(policies: Iterable[SeenPolicy], action: Action, places: Iterable[tuple[str, str]]) -> Sight:
    """What those policies look at that can apply to this action and to a sender in these `places`: its
    country and the groups which that is in, as (type, name). Raises POLICY_UNDECIDED."""
    inside = frozenset(places)
    tests: dict[Slot, Tests] = {}
    for policy in policies:
        if action not in policy.actions or (policy.who is not None and policy.who not in inside):
            continue
        if policy.problem:
            raise MeshError(
                Reason.POLICY_UNDECIDED, f"undecided, because policy {policy.id} {policy.problem}"
            )
        for mention in policy.mentions:
            for slot in mention.slots:
                tests[slot] = tests.get(slot, _NO_TESTS).plus(_tests(slot, mention))
    return Sight(_closed(tests))


def alike(policies: Iterable[SeenPolicy], action: Action) -> Action:
    """The first action that these policies treat as they treat this one."""
    if action is Action.RELEASE:
        return action  # it has words of its own
    seen = list(policies)

    def admitted(each: Action) -> list[bool]:
        return [each in policy.actions for policy in seen]

    if any(policy.names_actions and action in policy.actions for policy in seen):
        return action
    return next(each for each in Action if each is not Action.RELEASE and admitted(each) == admitted(action))


def merged(sights: Iterable[Sight]) -> Sight:
    """What at least one of them looks at."""
    tests: dict[Slot, Tests] = {}
    for sight in sights:
        for slot, each in sight.tests.items():
            tests[slot] = tests.get(slot, _NO_TESTS).plus(each)
    return Sight(_closed(tests))


def _tests(slot: Slot, mention: Mention) -> Tests:
    """What one comparison says about one of its attributes."""
    is_country, is_text = slot in COUNTRY_SLOTS, slot in TEXT_SLOTS
    literals = mention.countries if is_country else mention.texts if is_text else mention.names
    kin = frozenset(s for s in mention.slots if _kind(s) == _kind(slot)) if mention.linked else frozenset()
    words = frozenset[str]().union(*(WORDS.get(s, frozenset()) for s in kin))
    return Tests(
        literals | words,
        mention.groups,
        mention.patterns if is_text else frozenset(),
        kin if len(kin) > 1 else frozenset(),
        mention.whole,
        mention.every_group,
    )


def _kind(slot: Slot) -> str:
    return "country" if slot in COUNTRY_SLOTS else "text" if slot in TEXT_SLOTS else slot


def _closed(tests: Mapping[Slot, Tests]) -> dict[Slot, Tests]:
    """Attributes that meet, even by way of others, share all their tests."""
    closed = dict(tests)
    changed = True
    while changed:
        changed = False
        for slot in [s for s, each in closed.items() if each.linked]:
            together = closed[slot]
            for other in together.linked:
                together = together.plus(closed[other])
            for other in together.linked:
                if closed[other] != together:
                    closed[other] = together
                    changed = True
    return closed
