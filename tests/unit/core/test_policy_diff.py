"""What opens and closes: both keys, grouped for people, with the policies that decide."""

from __future__ import annotations

import datetime

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.policy import PolicyEngine
from mesh.core.policy_diff import Change, Difference, compare
from mesh.core.policy_flows import Scope, World
from mesh.core.policy_view import Subject
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass
from tests.support.snapshots import DE, FR, PERMIT_ALL, US, document, example_policies, node

ON = datetime.date(2026, 3, 1)
NODES = tuple(Subject(n.id, n.facts) for n in (node(DE, "fra"), node(FR, "par"), node(US, "iad")))
WITHDRAWN = """
@id("de-withdraws-france")
forbid (principal in Jurisdiction::"DE", action, resource in Jurisdiction::"FR");
"""
INFER = Scope(actions=(Action.INFER,))


def difference(
    old: str | None, new: str, scope: Scope = INFER, nodes: tuple[Subject, ...] | None = NODES, **others: str
) -> Difference:
    known = {f"{country}.mesh.example": document(text) for country, text in others.items()}
    world = World(Snapshot(0, DE, policies=known), ON, nodes, trusting=not others)
    former = document(old) if old is not None else None
    return compare(PolicyEngine(), world, DE, former, document(new), scope)


def only(found: Difference) -> Change:
    (change,) = found.changes
    return change


def test_nothing_changes_by_saying_the_same() -> None:
    assert difference(PERMIT_ALL, PERMIT_ALL + "// and no more").changes == ()


def test_withdrawing_a_country_closes_what_went_there() -> None:
    """The example of the documents, with the example of France: what France refuses closes nothing."""
    examples = example_policies()
    others = {"fr": examples[FR], "us": examples[US]}
    change = only(difference(examples[DE], examples[DE] + WITHDRAWN, **others))
    assert not change.opens
    assert (change.sender, change.receiver, change.nodes) == (DE, FR, (str(NODES[1].node),))
    assert change.classes == (DataClass.CONFIDENTIAL, DataClass.INTERNAL, DataClass.PUBLIC)
    assert change.policies == ("de-withdraws-france",)
    assert change.purposes == ()
    assert {grant.authority: grant.policies for grant in change.witness.grants}[FR] != ()
    back = only(difference(examples[DE] + WITHDRAWN, examples[DE], **others))
    assert back.opens
    assert "de-business-data-to-france" in back.policies


def test_what_no_policy_permits_any_more_says_which_did() -> None:
    old = '@id("was") permit (principal, action, resource);'
    found = difference(old, '@id("no-more") permit (principal, action == Action::"embed", resource);')
    assert {(change.policies, change.permitted_by) for change in found.changes} == {((), ("was",))}


def test_the_other_key_decides_too() -> None:
    """I3: what France never permitted neither opens nor closes."""
    closed = '@id("f") forbid (principal, action, resource);'
    forbids = PERMIT_ALL + WITHDRAWN
    assert difference(forbids, PERMIT_ALL, fr=closed, us=closed).changes == ()
    assert only(difference(forbids, PERMIT_ALL, fr=PERMIT_ALL, us=closed)).opens


def test_actions_for_which_the_same_happens_are_one_line() -> None:
    actions = (Action.INFER, Action.EMBED, Action.RELEASE)
    found = difference(PERMIT_ALL + WITHDRAWN, PERMIT_ALL, Scope(actions=actions), fr=PERMIT_ALL)
    sent, released = found.changes
    assert sent.actions == (Action.INFER, Action.EMBED)
    assert released.levels == ("count", "reference", "snippet", "passage")


def test_purposes_that_a_policy_names_are_told_apart() -> None:
    named = '@id("f") forbid (principal, action, resource) when { context.purpose == "press" };'
    change = difference(PERMIT_ALL, PERMIT_ALL + named).changes[0]
    assert change.purposes == ("press",)
    assert change.policies == ("f",)


def test_a_first_policy_set_opens() -> None:
    assert all(change.opens for change in difference(None, PERMIT_ALL).changes)
    assert difference(None, '@id("f") forbid (principal, action, resource);').changes == ()


def test_over_any_node_others_are_taken_to_permit() -> None:
    found = difference(PERMIT_ALL, PERMIT_ALL + WITHDRAWN, nodes=None)
    assert found.any_node
    assert {(c.sender, c.receiver) for c in found.changes} == {(DE, DE), (DE, "")}
    assert all(c.witness.subject.facts.location == "FR" for c in found.changes)


def test_too_many_questions_are_refused_with_a_reason() -> None:
    world = World(Snapshot(0, DE), ON, NODES)
    with pytest.raises(MeshError) as caught:
        compare(PolicyEngine(), world, DE, None, document(PERMIT_ALL), Scope(), limit=3)
    assert caught.value.reason is Reason.POLICY_UNDECIDED
