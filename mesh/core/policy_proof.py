"""Proving that something never flows, or showing that it does.

A `Query` says what must never reach which nodes: classes, purposes, actions, release levels, senders, and
a condition on the target, written in Cedar like any policy:

    special-category data from DE never reaches a node that a US entity controls
    Query("resource.controller == Jurisdiction::\"US\"", Scope(classes={SPECIAL_CATEGORY}, senders=(DE,)))

`prove` exhausts the space of mesh/core/policy_space.py and finds no such flow, or gives the first one as a
witness that the engine itself has judged. It never says that something holds because it did not look:
what it cannot look at raises POLICY_UNDECIDED.

The condition is judged by Cedar like a policy of the own authority, with its groups. It may speak of
everything that policies may, but for `context.dataClass`: a request has several, and each is asked about
by itself; `Query.scope.classes` says which must be among them.

A request that carries several classes is permitted only if each is. So if none of them may flow alone,
nothing that carries one may. Where policies look at the set (`context.dataClasses`), that does not
suffice, and every set is tried.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field, replace
from typing import Any

import cedarpy

from mesh.core.cedar_text import read_policies
from mesh.core.errors import MeshError, Reason
from mesh.core.policy import PolicyEngine, Verdict
from mesh.core.policy_flows import (
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
from mesh.core.policy_mentions import CLASS, operators_of, read_seen
from mesh.core.policy_view import Asked, Subject
from mesh.core.snapshot import PolicyDocument
from mesh.core.types import Action

MAX_CONDITION = 4_096  # characters

_CONDITION = "the condition"
# What a condition is made of. Arithmetic can overflow, and then a condition would silently not hold.
_OPERATORS = frozenset(
    {
        *("==", "!=", "in", "is", "has", "like", "contains", "containsAll", "containsAny", "isEmpty"),
        *("&&", "||", "!", "if-then-else", "Set", ".", "Var", "Value"),
    }
)


@dataclass(frozen=True, slots=True)
class Query:
    """What must never reach a node for which the condition holds; "" for any node at all."""

    condition: str = ""
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True)
class Grant:
    """One authority's permission, and by which policies; `assumed` where its policies are not known."""

    authority: str
    policies: tuple[str, ...]
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """A flow that policies permit."""

    asked: Asked
    subject: Subject
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. `combinations` were judged (up to the witness, if there is one), for which Cedar was
    asked `questions` distinct questions; `any_node` tells that every node that could exist was meant."""

    witness: Witness | None
    any_node: bool
    combinations: int
    questions: int
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    kinds_of_nodes: int
    kinds_of_requests: int
    on: datetime.date

    @property
    def holds(self) -> bool:
        """Whether it never flows."""
        return self.witness is None


def prove(engine: PolicyEngine, world: World, query: Query) -> Proof:
    """Looks for a flow that should not be, until there is none left to look at.

    Raises POLICY_UNDECIDED if it cannot look at everything, and REQUEST_INVALID about the query.
    """
    budget = Budget()
    keys = Keys(engine, world, budget)
    among = [keys]
    condition = _condition_keys(engine, world, query, budget)
    if condition is not None:
        among.append(condition)
    _check_senders(world, query.scope)
    combinations = kinds_of_nodes = kinds_of_requests = 0
    senders: dict[str, None] = {}
    receivers: dict[str, None] = {}
    witness = None
    for case in cases(world, query.scope, among):
        combinations += case.size
        kinds_of_nodes = max(kinds_of_nodes, len(case.subjects))
        kinds_of_requests = max(kinds_of_requests, len(case.asked))
        senders[case.sender] = receivers[case.receiver] = None
        witness = _witness(keys, condition, world, query.scope, case)
        if witness is not None:
            break
    return Proof(
        witness=witness,
        any_node=world.nodes is None,
        combinations=combinations,
        questions=budget.asked,
        senders=tuple(senders),
        receivers=tuple(each for each in receivers if each),
        kinds_of_nodes=kinds_of_nodes if world.nodes is None else len(world.nodes),
        kinds_of_requests=kinds_of_requests,
        on=world.on,
    )


def read_condition(condition: str, actions: tuple[Action, ...]) -> str:
    """The condition as a policy set of one; raises REQUEST_INVALID.

    It has to be one expression, in the words of the actions asked about.
    """
    if len(condition) > MAX_CONDITION:
        raise MeshError(Reason.REQUEST_INVALID, f"condition: at most {MAX_CONDITION} characters")
    listed = ", ".join(f'Action::"{action}"' for action in actions)
    # On lines of its own: a comment in it must not reach what comes after.
    cedar = (
        f'@id("condition")\npermit (principal, action in [{listed}], resource)\nwhen {{\n{condition}\n}};\n'
    )
    try:
        read_policies(cedar)
    except MeshError as error:
        what = error.message.removeprefix("policy condition: ")
        raise MeshError(Reason.REQUEST_INVALID, f"condition: expected one Cedar expression: {what}") from None
    static: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(cedar))["staticPolicies"]
    if len(static) != 1 or len(static["policy0"]["conditions"]) != 1:
        raise MeshError(Reason.REQUEST_INVALID, "condition: expected one Cedar expression")
    (seen,) = read_seen(cedar)
    if any(CLASS in mention.slots for mention in seen.mentions):
        raise MeshError(
            Reason.REQUEST_INVALID,
            "condition: say by the classes asked about what context.dataClass should be",
        )
    if seen.problem or not operators_of(cedar) <= _OPERATORS:
        raise MeshError(
            Reason.REQUEST_INVALID,
            f"condition: {seen.problem}"
            if seen.problem
            else "condition: expected comparisons, `like`, `has`, `is`, sets, && and || and ! only",
        )
    return cedar


def _condition_keys(engine: PolicyEngine, world: World, query: Query, budget: Budget) -> Keys | None:
    if not query.condition:
        return None
    cedar = read_condition(query.condition, query.scope.actions)
    groups = world.groups_of(world.snapshot.trust_domain)
    undefined = sorted(read_policies(cedar).groups - groups.names())
    if undefined:
        known = ", ".join(sorted(groups.names()))
        raise MeshError(Reason.REQUEST_INVALID, f"condition: expected groups that are defined: {known}")
    snapshot = replace(
        world.snapshot,
        policies={_CONDITION: PolicyDocument(cedar, f"condition {cedar}", 0)},
        groups={_CONDITION: groups},
    )
    return Keys(engine, replace(world, snapshot=snapshot), budget, only=_CONDITION)


def _check_senders(world: World, scope: Scope) -> None:
    for sender in scope.senders:
        if world.trusting and sender not in world.known:
            # It is taken to permit everything, and so is whoever else is not known: that proves nothing.
            raise MeshError(
                Reason.POLICY_UNDECIDED,
                f"undecided, because the policies of {sender} are not known: give them, or leave it out",
            )
        if not world.trusting and sender not in world.known:
            raise MeshError(
                Reason.REQUEST_INVALID,
                f"from: expected an authority that has published policies, not {sender}",
            )


def _witness(keys: Keys, condition: Keys | None, world: World, scope: Scope, case: Case) -> Witness | None:
    """A flow in this case, if there is one."""
    masks = [
        mask if in_scope(scope, asked) else 0 for asked, mask in zip(case.asked, case.everything, strict=True)
    ]
    if condition is not None:
        masks = condition.allow(_CONDITION, case.sender, case.action, case.asked, case.subjects, masks)
    reached = permitted(keys, case, for_every_level(case, masks))
    for asked, mask, wanted in zip(case.asked, reached, masks, strict=True):
        if found := mask & wanted:
            subject = case.subjects[(found & -found).bit_length() - 1]
            return _judged(keys, world, case, asked, subject)
    return None


def _judged(keys: Keys, world: World, case: Case, asked: Asked, subject: Subject) -> Witness:
    """The flow with both authorities' own words about exactly it."""
    grants = []
    for authority in dict.fromkeys((case.sender, subject.node.trust_domain)):
        if not world.decides(authority):
            grants.append(Grant(authority, (), assumed=True))
            continue
        verdict: Verdict = keys.verdict(authority, asked, subject)
        if not verdict.allowed:
            raise AssertionError("two requests that should be alike to the policies are not")
        grants.append(Grant(authority, verdict.policies))
    return Witness(asked, subject, tuple(grants))
