"""What policies look at: which attributes, and by which words they tell their values apart.

Purposes, tenants and assurances are open sets of texts, and a policy can look at them in few ways only:
compare one with a literal or with another, look for it in a set, match a pattern. So any two values that
no literal names and that match the same patterns are alike to it, and exchanging one for the other
everywhere changes no answer. The same holds for countries that belong to the same groups. That is what
makes an infinite space finite (mesh/core/policy_space.py), and it rests on what is gathered here from
Cedar's own JSON form of the policies:

- for each attribute (`Slot`): the literals, groups and patterns that it meets in any comparison;
- which attributes meet each other (`resource.authority == resource.location`): those must be
  exchanged together, and several values of each kind are needed;
- whether a set is looked at as a whole, so that what is in it besides the named ones counts, too.

Operators are listed. Where a policy uses another one on an attribute, or builds something that is not
followed here, it says so, and whoever asks is told POLICY_UNDECIDED with the reason: never a guess.

Policies that cannot apply to an action, or to a sender's country, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cedarpy

from mesh.core.cedar_text import read_policies
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import Action, DataClass
from mesh.core.wildcards import Pattern

Slot = str  # "resource.location", "context.purpose", ...

HOME, LOCATION, AUTHORITY = "principal.home", "resource.location", "resource.authority"
OPERATOR, CONTROLLER = "resource.operatorDomicile", "resource.controller"
ADMIN, WITHIN = "resource.adminAccess", "resource.adminAccessWithin"
# Groups that a node stands in, the conditional ones included: `resource in Group::"..."`.
STANDS = "resource in"
ASSURANCES = "resource.assurances"
CLIENT, NODE = "principal", "resource"  # their names
TENANT, ACTS_FOR = "principal.tenant", "context.tenant"
PURPOSE, BASIS = "context.purpose", "context.transferBasis"
OWNER, COLLECTION = "context.owner", "context.collection"
CLASS, CLASSES, LEVEL = "context.dataClass", "context.dataClasses", "context.level"

COUNTRY_SLOTS = frozenset({HOME, LOCATION, AUTHORITY, OPERATOR, CONTROLLER, ADMIN})
TEXT_SLOTS = frozenset(
    {TENANT, ACTS_FOR, PURPOSE, BASIS, OWNER, COLLECTION, CLASS, CLASSES, LEVEL, ASSURANCES}
)
_SETS = frozenset({ADMIN, WITHIN, ASSURANCES, CLASSES})
# What these can hold is known, and all of it is tried.
_WORDS = {
    CLASS: frozenset(map(str, DataClass)),
    CLASSES: frozenset(map(str, DataClass)),
    LEVEL: frozenset(level.word for level in list(ReleaseLevel)[1:]),
}

_MEMBERSHIP = frozenset({"contains", "containsAny", "containsAll"})
_COMPARISONS = _MEMBERSHIP | {"==", "!=", "in", "like", "is", "isEmpty"}
_ARITHMETIC = frozenset({"<", "<=", ">", ">=", "+", "-", "*", "neg"})
_CONNECTIVES = frozenset({"&&", "||", "!", "if-then-else", "Set", "has", ".", "Var", "Value"})


class Mention(NamedTuple):
    """One comparison in a policy: the attributes in it and everything they may be compared with."""

    slots: frozenset[Slot]
    countries: frozenset[str]
    groups: frozenset[str]
    texts: frozenset[str]
    names: frozenset[str]
    patterns: frozenset[Pattern]
    linked: bool
    whole: bool
    every_group: bool


@dataclass(frozen=True, slots=True)
class SeenPolicy:
    """A policy, as far as it matters what it looks at. `who` is a country or a group that the sender must be
    in, as (type, name); `problem` says what could not be followed, "" if everything could."""

    id: str
    actions: frozenset[Action]
    who: tuple[str, str] | None
    mentions: tuple[Mention, ...]
    problem: str


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


def read_seen(cedar: str) -> tuple[SeenPolicy, ...]:
    """Reads what each policy looks at; raises POLICY_MALFORMED or POLICY_TOO_LARGE."""
    text = read_policies(cedar)
    static = json.loads(cedarpy.policies_to_json_str(cedar))["staticPolicies"]
    return tuple(_seen(text.id_of[name], static[name]) for name in text.id_of)


def operators_of(cedar: str) -> frozenset[str]:
    """The operators and functions in the conditions of a policy set that was read."""
    static = json.loads(cedarpy.policies_to_json_str(cedar))["staticPolicies"]
    bodies = [c["body"] for policy in static.values() for c in policy["conditions"]]
    return frozenset(operator for body in bodies for operator, _ in _walk(body))


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
    words = frozenset[str]().union(*(_WORDS.get(s, frozenset()) for s in kin))
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


# --- reading Cedar's JSON


class _Gathered:
    """Everything inside one comparison."""

    def __init__(self) -> None:
        self.attributes: set[Slot] = set()
        self.bare: set[str] = set()
        self.entities: set[tuple[str, str]] = set()
        self.texts: set[str] = set()
        self.patterns: set[Pattern] = set()

    def add(self, expression: Any) -> None:
        for operator, arguments in _walk(expression):
            if operator == "Value":
                self._literal(arguments)
            elif operator == "Var" and arguments in ("principal", "resource"):
                self.bare.add(arguments)
            elif operator == ".":
                # Its left side was walked as well: an attribute is not a look at the whole.
                self.attributes.add(f"{arguments['left']['Var']}.{arguments['attr']}")
            elif operator == "like":
                self.patterns.add(_pattern(arguments["pattern"]))

    def _literal(self, value: Any) -> None:
        if isinstance(value, str):
            self.texts.add(value)
        elif isinstance(value, dict):
            if "__entity" not in value:
                raise _NotFollowedError("uses a form of literal that is not followed here")
            entity = value["__entity"]
            self.entities.add((entity["type"], entity["id"]))

    def names(self, kind: str) -> frozenset[str]:
        return frozenset(name for each, name in self.entities if each == kind)


class _NotFollowedError(Exception):
    """The policy does something that is not followed here; the message says what."""


def _seen(policy_id: str, policy: Mapping[str, Any]) -> SeenPolicy:
    mentions: list[Mention] = []
    problem = ""
    bodies = [
        *(_scope(policy[variable], variable) for variable in ("principal", "resource")),
        *(condition["body"] for condition in policy["conditions"]),
    ]
    try:
        for body in bodies:
            for operator, arguments in _walk(body):
                if (mention := _mention(operator, arguments)) is not None:
                    mentions.append(mention)
    except _NotFollowedError as error:
        problem = str(error)
    return SeenPolicy(
        policy_id, _actions(policy["action"]), _who(policy["principal"]), tuple(mentions), problem
    )


def _scope(scope: Mapping[str, Any], variable: str) -> dict[str, Any]:
    """The scope as the expression that it stands for."""
    entity = scope.get("entity") or scope.get("in", {}).get("entity")
    if entity is None:
        return {"Value": True}
    operator = "==" if scope["op"] == "==" else "in"
    return {operator: {"left": {"Var": variable}, "right": {"Value": {"__entity": entity}}}}


def _who(scope: Mapping[str, Any]) -> tuple[str, str] | None:
    entity = scope.get("entity") or scope.get("in", {}).get("entity")
    if entity is None or entity["type"] not in ("Jurisdiction", "Group"):
        return None
    return entity["type"], entity["id"]


def _actions(scope: Mapping[str, Any]) -> frozenset[Action]:
    if scope["op"] == "All":
        return frozenset(Action)
    named = scope.get("entities") or [scope["entity"]]
    return frozenset(Action(entity["id"]) for entity in named)


def _walk(expression: Any) -> Iterator[tuple[str, Any]]:
    """Every operator in the expression with its arguments, outermost first. Not recursive: policies come
    from others."""
    stack = [expression]
    while stack:
        current = stack.pop()
        if not isinstance(current, dict) or len(current) != 1:
            raise _NotFollowedError("uses a form of expression that is not followed here")
        ((operator, arguments),) = current.items()
        yield operator, arguments
        stack.extend(_inside(operator, arguments))


def _inside(operator: str, arguments: Any) -> list[Any]:
    if operator in ("Value", "Var"):
        return []
    if operator == "Record":
        raise _NotFollowedError("builds a record, which is not followed here")
    if operator == "Set" or isinstance(arguments, list):
        return list(arguments)
    if operator == ".":
        if arguments["left"] not in ({"Var": "principal"}, {"Var": "resource"}, {"Var": "context"}):
            raise _NotFollowedError("reads an attribute of something that it names itself")
        return []
    if operator == "has":
        # The schema says which attributes there are: it is so for everybody, or for nobody.
        return [] if "Var" in arguments["left"] else [arguments["left"]]
    parts = [arguments[name] for name in ("left", "right", "arg", "if", "then", "else") if name in arguments]
    if operator == "is" and "in" in arguments:
        parts.append(arguments["in"])
    if not parts:
        raise _NotFollowedError(f"uses {operator}, which is not followed here")
    return parts


def _mention(operator: str, arguments: Any) -> Mention | None:
    if operator in _CONNECTIVES:
        return None
    inside = _Gathered()
    inside.add({operator: arguments})
    if operator == "is" and "in" not in arguments:
        inside.bare.clear()
    if not inside.attributes and not inside.bare:
        return None  # nothing but literals: it is so for everybody
    if operator not in _COMPARISONS | _ARITHMETIC:
        raise _NotFollowedError(f"uses {operator} on an attribute, which is not followed here")
    _check_names(operator, arguments, inside)
    units = len(inside.attributes) + len(inside.bare)
    slots = set(inside.attributes)
    countries, groups = inside.names("Jurisdiction"), inside.names("Group")
    names = inside.names("Node") | inside.names("Client")
    # An "in" looks at where somebody is; everything else that is done with a whole entity, at its name.
    places = bool(countries or groups) or units > 1
    if "resource" in inside.bare:
        slots |= {NODE} if inside.names("Node") else set()
        slots |= {LOCATION, STANDS} if places else set()
    if "principal" in inside.bare:
        slots |= {CLIENT} if inside.names("Client") else set()
        slots |= {HOME} if places else set()
    if ASSURANCES in slots and units > 1:
        raise _NotFollowedError("compares assurances with another attribute")
    others_of_within = WITHIN in slots and (units > 1 or bool(countries) or operator == "in")
    whole = bool(slots & _SETS) and (
        operator not in _MEMBERSHIP or units > 1 or _on_the_right(arguments, slots & _SETS)
    )
    return Mention(
        frozenset(slots),
        countries,
        groups,
        frozenset(inside.texts),
        names,
        frozenset(inside.patterns),
        units > 1,
        whole,
        others_of_within or (WITHIN in slots and whole),
    )


def _check_names(operator: str, arguments: Any, inside: _Gathered) -> None:
    """A node or client that is named may be compared with the one in question, and nothing else: what else
    is true of it depends on who happens to be known while the question is asked."""
    for kind, variable in (("Node", "resource"), ("Client", "principal")):
        if not inside.names(kind):
            continue
        if variable not in inside.bare:
            raise _NotFollowedError(f"compares a {kind.lower()} that it names with something else")
        if operator == "in":
            left = _Gathered()
            left.add(arguments["left"])
            if left.names(kind):
                raise _NotFollowedError(f"asks where a {kind.lower()} is that it names")


def _on_the_right(arguments: Any, sets: Iterable[Slot]) -> bool:
    right = _Gathered()
    right.add(arguments["right"])
    return not right.attributes.isdisjoint(sets)


def _pattern(tokens: Iterable[Any]) -> Pattern:
    pattern: list[str | None] = []
    for part in tokens:
        if part == "Wildcard":
            pattern.append(None)
        else:
            pattern.extend(part["Literal"])
    return tuple(pattern)
