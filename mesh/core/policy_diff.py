"""What a change of policies opens and closes, flow by flow.

Every case that the old or the new policies can tell apart (mesh/core/policy_space.py) is judged under both,
with the other authorities' policies as they are, and both keys (I3). What differs is put together for
people: by who sends to whom, by what action, and at which level for release; each change with the data
classes, purposes and nodes concerned, the policies that decide, and one flow as an example.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mesh.core.decision import MAX_NAMED_POLICIES
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
from mesh.core.policy_proof import Grant, Witness
from mesh.core.policy_view import Asked, Subject
from mesh.core.snapshot import PolicyDocument
from mesh.core.types import Action, DataClass

# A change names at most so many purposes and nodes; how many nodes there are is said, too.
MAX_NAMED = 16

# Before an authority has published policies: the same as none, for whoever must be asked.
_NONE_YET = PolicyDocument('@id("none-yet") forbid (principal, action, resource);', "none yet", 0)


@dataclass(frozen=True, slots=True)
class Change:
    """Flows that open, or close.

    `sender` and `receiver` are trust domains, the latter "" for any whose policies are not known; `levels`
    are there for release only; `flows` counts combinations. `purposes` and `nodes` are the first of them;
    there is no purpose if all are concerned alike. `policies` decide: those that permit what opens, or
    forbid what closes; none if nothing permits it any more, and then `permitted_by` did.
    """

    opens: bool
    sender: str
    receiver: str
    actions: tuple[Action, ...]
    levels: tuple[str, ...]
    classes: tuple[DataClass, ...]
    purposes: tuple[str, ...]
    nodes: tuple[str, ...]
    nodes_total: int
    flows: int
    policies: tuple[str, ...]
    permitted_by: tuple[str, ...]
    witness: Witness


@dataclass(frozen=True, slots=True)
class Difference:
    """All changes, what opens first, and what was looked at, as in mesh/core/policy_proof.py."""

    changes: tuple[Change, ...]
    any_node: bool
    nodes: int
    combinations: int
    questions: int
    on: datetime.date


def compare(
    engine: PolicyEngine,
    world: World,
    authority: str,
    old: PolicyDocument | None,
    new: PolicyDocument,
    scope: Scope,
    limit: int = MAX_JUDGED,
) -> Difference:
    """What changes for the flows from and to `authority` if `new` takes the place of `old` (None: it has
    published none, and refuses everything).

    Raises POLICY_UNDECIDED if it cannot look at everything, with at most `limit` questions to Cedar.
    """
    budget = Budget(limit)
    before, after = (_with(world, authority, policies) for policies in (old or _NONE_YET, new))
    keys = (Keys(engine, before, budget), Keys(engine, after, budget))
    changes: list[Change] = []
    combinations = 0
    for case in cases(after, scope, keys, concerning=authority):
        combinations += case.size
        wanted = [
            mask if in_scope(scope, asked) else 0
            for asked, mask in zip(case.asked, case.everything, strict=True)
        ]
        was, will = (permitted(each, case, for_every_level(case, wanted)) for each in keys)
        for opens, masks in (
            (True, [w & new & ~old for w, new, old in zip(wanted, will, was, strict=True)]),
            (False, [w & old & ~new for w, new, old in zip(wanted, will, was, strict=True)]),
        ):
            changes += _changes(keys, after, case, opens, masks)
    together = _together(changes)
    together.sort(key=lambda c: (not c.opens, c.sender, c.receiver, c.actions, -len(c.levels)))
    return Difference(
        tuple(together), world.nodes is None, len(world.nodes or ()), combinations, budget.asked, world.on
    )


def _with(world: World, authority: str, policies: PolicyDocument) -> World:
    known = {**world.snapshot.policies, authority: policies}
    return replace(world, snapshot=replace(world.snapshot, policies=known))


def _changes(
    keys: tuple[Keys, Keys], world: World, case: Case, opens: bool, masks: Sequence[int]
) -> Iterable[Change]:
    """What opens or closes in one case, by level."""
    levels: dict[str, list[tuple[Asked, int]]] = {}
    for asked, mask in zip(case.asked, masks, strict=True):
        if mask:
            levels.setdefault(asked.release.level if asked.release else "", []).append((asked, mask))
    every_purpose = {asked.context.purpose for asked in case.asked}
    for level, found in levels.items():
        nodes = [s for i, s in enumerate(case.subjects) if any(mask >> i & 1 for _, mask in found)]
        purposes = tuple(dict.fromkeys(asked.context.purpose for asked, _ in found))
        policies, permitted_by = _deciding(keys, world, case, found)
        yield Change(
            opens=opens,
            sender=case.sender,
            receiver=case.receiver,
            actions=(case.action,),
            levels=(level,) if level else (),
            classes=tuple(sorted({c for asked, _ in found for c in asked.context.data_classes})),
            purposes=() if len(purposes) == len(every_purpose) else purposes[:MAX_NAMED],
            nodes=tuple(str(subject.node) for subject in nodes[:MAX_NAMED]),
            nodes_total=len(nodes),
            flows=sum(mask.bit_count() for _, mask in found),
            policies=policies,
            permitted_by=permitted_by,
            witness=_example(keys[1 if opens else 0], world, case, *found[0]),
        )


def _example(keys: Keys, world: World, case: Case, asked: Asked, mask: int) -> Witness:
    """The first flow with what permits it: now, if it opens; before, if it closes."""
    subject = _first(case, mask)
    grants = []
    for authority in dict.fromkeys((case.sender, subject.node.trust_domain)):
        decides = world.decides(authority)
        policies = keys.verdict(authority, asked, subject).policies if decides else ()
        grants.append(Grant(authority, policies, assumed=not decides))
    return Witness(asked, subject, tuple(grants))


def _deciding(
    keys: tuple[Keys, Keys], world: World, case: Case, found: Sequence[tuple[Asked, int]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The policies that make the difference, and those that made it before where none does any more: for
    the first flow of each set of classes and purpose."""
    deciding: list[str] = []
    before: list[str] = []
    examples = {(a.context.data_classes, a.context.purpose): (a, mask) for a, mask in reversed(found)}
    for asked, mask in list(examples.values())[-MAX_NAMED:]:
        subject = _first(case, mask)
        for authority in dict.fromkeys((case.sender, subject.node.trust_domain)):
            if not world.decides(authority):
                continue
            was, will = (each.verdict(authority, asked, subject) for each in keys)
            if was.allowed != will.allowed:
                deciding += will.policies
                before += was.policies if not will.allowed and not will.policies else ()
    return tuple(dict.fromkeys(deciding))[:MAX_NAMED_POLICIES], tuple(dict.fromkeys(before))[
        :MAX_NAMED_POLICIES
    ]


def _first(case: Case, mask: int) -> Subject:
    return case.subjects[(mask & -mask).bit_length() - 1]


def _together(changes: Iterable[Change]) -> list[Change]:
    """Actions, or levels, for which the same happens in one."""
    found: dict[tuple[object, ...], Change] = {}
    for change in changes:
        # Made-up nodes are numbered case by case: their names say nothing.
        key = (
            change.opens, change.sender, change.receiver, bool(change.levels), change.classes,
            change.purposes, change.nodes_total, change.flows, change.policies, change.permitted_by,
        )  # fmt: skip
        known = found.get(key)
        if known is None:
            found[key] = change
        else:
            actions = tuple(dict.fromkeys(known.actions + change.actions))
            levels = tuple(dict.fromkeys(known.levels + change.levels))
            found[key] = replace(known, actions=actions, levels=levels)
    return list(found.values())
