"""What each policy says about which attribute: Cedar's own JSON form of the policies, read.

A `Mention` is one comparison: the attributes (`Slot`) in it, and the literals, entities and patterns that
they may be compared with. Nothing is worked out about what the comparison means; where several attributes
or literals are inside one, each is taken to meet each, which can only make more cases to look at.

Operators and attributes are listed. Where a policy uses another one, or builds something that is not
followed here, its `problem` says so, and whoever asks is told POLICY_UNDECIDED with the reason
(mesh/core/policy_sight.py): never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cedarpy

from mesh.core.cedar_text import read_policies
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
TENANT = "principal.tenant"
# A caller may state its own tenant or none, and then its own is meant (mesh/core/placement.py).
_THE_SAME = {"context.tenant": TENANT}
PURPOSE, BASIS = "context.purpose", "context.transferBasis"
OWNER, COLLECTION = "context.owner", "context.collection"
CLASS, CLASSES, LEVEL = "context.dataClass", "context.dataClasses", "context.level"

COUNTRY_SLOTS = frozenset({HOME, LOCATION, AUTHORITY, OPERATOR, CONTROLLER, ADMIN})
TEXT_SLOTS = frozenset({TENANT, PURPOSE, BASIS, OWNER, COLLECTION, CLASS, CLASSES, LEVEL, ASSURANCES})
SLOTS = COUNTRY_SLOTS | TEXT_SLOTS | {WITHIN}
_SETS = frozenset({ADMIN, WITHIN, ASSURANCES, CLASSES})
# What these can hold is known, and all of it is tried.
WORDS = {
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
    """A policy, as far as it matters what it looks at. `actions` are those that its scope admits, and
    `names_actions` tells that a condition looks at the action, too; `who` is a country or a group that the
    sender must be in, as (type, name); `problem` says what could not be followed, "" if everything could."""

    id: str
    actions: frozenset[Action]
    names_actions: bool
    who: tuple[str, str] | None
    mentions: tuple[Mention, ...]
    problem: str


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
                # Its left side is not walked: to look at an attribute is not to look at the whole.
                name = f"{arguments['left']['Var']}.{arguments['attr']}"
                self.attributes.add(_THE_SAME.get(name, name))
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
    names_actions = False
    bodies = [
        *(_scope(policy[variable], variable) for variable in ("principal", "resource")),
        *(condition["body"] for condition in policy["conditions"]),
    ]
    try:
        for body in bodies:
            for operator, arguments in _walk(body):
                names_actions |= (operator, arguments) == ("Var", "action")
                if (mention := _mention(operator, arguments)) is not None:
                    mentions.append(mention)
    except _NotFollowedError as error:
        problem = str(error)
    return SeenPolicy(
        policy_id,
        _actions(policy["action"]),
        names_actions,
        _who(policy["principal"]),
        tuple(mentions),
        problem,
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
        inside = _inside(operator, arguments)  # raises before anybody relies on the form
        yield operator, arguments
        stack.extend(inside)


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
        if "Var" in arguments["left"]:
            return []
        raise _NotFollowedError("asks what something has that it names itself")
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
    _check_names(operator, arguments, inside)
    if not inside.attributes and not inside.bare:
        return None  # nothing but literals: it is so for everybody
    if not SLOTS.issuperset(inside.attributes):
        raise _NotFollowedError("looks at an attribute that is not followed here")
    if operator not in _COMPARISONS | _ARITHMETIC:
        raise _NotFollowedError(f"uses {operator} on an attribute, which is not followed here")
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
