"""The map: what may flow, with both keys; what did; and what did though it may not."""

from __future__ import annotations

import datetime

from mesh.core.flow_map import ACTIONS, By, Extent, FlowMap, alike, flow_map
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import Scope, World
from mesh.core.policy_view import Subject
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass
from tests.support import audit_log as log
from tests.support.snapshots import DE, FR, PERMIT_ALL, US, document, example_policies, node

ON = datetime.date(2026, 3, 1)
NODES = tuple(Subject(n.id, n.facts) for n in (node(DE, "one"), node(FR, "one"), node(US, "one")))
PERSONAL, PUBLIC, SPECIAL = DataClass.PERSONAL, DataClass.PUBLIC, DataClass.SPECIAL_CATEGORY


def mapped(
    policies: dict[str, str], *entries: log.Entry, nodes: tuple[Subject, ...] = NODES, by: By = By.COUNTRY,
    actions: tuple[Action, ...] = ACTIONS,
) -> FlowMap:  # fmt: skip
    known = {trust_domain: document(cedar) for trust_domain, cedar in policies.items()}
    world = World(Snapshot(0, DE, policies=known), ON, nodes, trusting=False)
    report = log.report_of({"one": entries}) if entries else None
    return flow_map(PolicyEngine(), world, Scope(actions=actions), report, by)


def test_nothing_is_permitted_where_nobody_has_policies() -> None:
    assert mapped({}).pairs == {}


def test_both_keys_are_needed() -> None:
    found = mapped({DE: PERMIT_ALL, FR: '@id("f") forbid (principal, action, resource);'})
    assert found.pairs["DE", "DE"].highest is SPECIAL
    assert found.pairs["DE", "FR"].highest is None
    assert ("DE", "US") in found.pairs  # there is a node, and its authority has published nothing
    assert found.pairs["DE", "US"].highest is None
    assert found.pairs["US", "DE"].highest is None


def test_conditions_make_it_some() -> None:
    named = (
        '@id("p") permit (principal, action == Action::"infer", resource) when { context.purpose == "x" };'
    )
    found = mapped({DE: named}, actions=(Action.INFER, Action.EMBED))
    cell = found.pairs["DE", "DE"].cells[PUBLIC]
    assert cell.permitted == {Action.INFER: Extent.SOME, Action.EMBED: Extent.NO}
    assert cell.extent is Extent.SOME
    both = mapped({DE: PERMIT_ALL}, actions=(Action.INFER, Action.EMBED)).pairs["DE", "DE"].cells[PUBLIC]
    assert both.extent is Extent.ALL


def test_one_node_of_two_makes_it_some() -> None:
    other = node(DE, "two", controller="US")
    cedar = PERMIT_ALL + (
        '@id("f") forbid (principal, action, resource) when { resource.controller == Jurisdiction::"US" };'
    )
    nodes = (*NODES[:1], Subject(other.id, other.facts))
    assert mapped({DE: cedar}, nodes=nodes).pairs["DE", "DE"].cells[PUBLIC].extent is Extent.SOME
    apart = mapped({DE: cedar}, nodes=nodes, by=By.NODE, actions=(Action.INFER,))
    assert apart.pairs["DE", str(NODES[0].node)].cells[PUBLIC].extent is Extent.ALL
    assert apart.pairs["DE", str(other.id)].cells[PUBLIC].extent is Extent.NO


def test_a_receiver_is_where_the_node_stands() -> None:
    abroad = node(DE, "abroad", location="FR")
    found = mapped({DE: PERMIT_ALL}, nodes=(Subject(abroad.id, abroad.facts),))
    assert found.pairs["DE", "FR"].highest is SPECIAL
    assert found.targets == ("DE", "FR")  # what it releases goes home


def test_releases_go_the_other_way() -> None:
    """France asks, and what Germany's node holds is released to it."""
    released = '@id("p") permit (principal in Jurisdiction::"FR", action == Action::"release", resource);'
    found = mapped({DE: released, FR: PERMIT_ALL}, nodes=NODES[:2])
    assert found.pairs["DE", "FR"].cells[PERSONAL].permitted[Action.RELEASE] is Extent.ALL
    assert found.pairs["FR", "DE"].cells[PERSONAL].permitted[Action.RELEASE] is Extent.NO


def test_special_categories_do_not_spoil_what_is_said_of_personal_data() -> None:
    cedar = PERMIT_ALL + (
        '@id("f") forbid (principal, action, resource)'
        ' when { context.dataClasses.contains("special-category") };'
    )
    cells = mapped({DE: cedar}, actions=(Action.INFER,)).pairs["DE", "DE"].cells
    assert (cells[PERSONAL].extent, cells[SPECIAL].extent) == (Extent.ALL, Extent.NO)


def test_what_flowed_is_counted_by_class_and_what_may_not_is_told() -> None:
    policies = {**example_policies(), US: '@id("f") forbid (principal, action, resource);'}
    both = log.context(("personal", "public"))
    found = mapped(
        policies,
        log.serve("a", "fr", "de"),
        log.serve("b", "fr", "de", context=both),
        log.serve("c", "us", "de"),
        log.serve("d", "us", "de", refused="POLICY_SENDER_DENIES"),
    )
    pair = found.pairs["DE", "FR"]
    assert {c: pair.cells[c].count for c in (PERSONAL, PUBLIC)} == {PERSONAL: 2, PUBLIC: 1}
    assert (pair.highest_flowed, pair.count) == (PERSONAL, 3)
    assert (found.pairs["DE", "US"].count, found.pairs["DE", "US"].against) == (1, 1)
    assert found.against >= 1


def test_a_flow_to_a_place_without_a_node_is_against_the_policies() -> None:
    found = mapped({DE: PERMIT_ALL}, log.serve("a", "us", "de"), nodes=NODES[:1])
    assert found.pairs["DE", "US"].against == 1
    assert "US" in found.places


def test_what_cannot_be_placed_is_counted() -> None:
    found = mapped(
        {DE: PERMIT_ALL},
        log.serve("a", "de", "de", context=log.context(())),
        {**log.serve("b", "de", "de"), "caller": "nobody"},
        log.serve("c", "de", "de", action="embed"),
        actions=(Action.INFER,),
    )
    assert found.unplaced == 3
    assert found.pairs["DE", "DE"].count == 0


def test_by_node_a_flow_belongs_to_the_node_that_took_it() -> None:
    found = mapped({DE: PERMIT_ALL}, log.serve("a", "de", "de"), by=By.NODE, actions=(Action.INFER,))
    assert found.pairs["DE", log.node("de")].cells[PERSONAL].flowed == {Action.INFER: 1}
    assert found.places == ("DE", *(str(n.node) for n in NODES))


def test_pairs_that_say_the_same_are_put_together() -> None:
    found = mapped({DE: PERMIT_ALL, FR: PERMIT_ALL, US: PERMIT_ALL}, log.serve("a", "us", "fr"))
    together = [(source, [pair.target for pair in pairs]) for source, pairs in alike(found.pairs.values())]
    assert together == [
        ("DE", ["DE"]), ("DE", ["FR", "US"]),
        ("FR", ["DE"]), ("FR", ["FR"]), ("FR", ["US"]),
        ("US", ["DE", "FR"]), ("US", ["US"]),
    ]  # fmt: skip
