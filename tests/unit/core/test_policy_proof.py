"""Proofs about small policy sets: every construct of Cedar that is treated specially, what is declared
undecided, and the examples."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import Scope, World
from mesh.core.policy_mentions import SLOTS
from mesh.core.policy_proof import MAX_CONDITION, Proof, Query, prove, read_condition
from mesh.core.policy_view import Subject
from mesh.core.retrieval import ReleaseLevel
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass
from tests.support.snapshots import DE, FR, PERMIT_ALL, document, example_policies, node

ON = datetime.date(2026, 3, 1)
SCHEMA = Path(__file__).parents[3] / "mesh/core/data/mesh.cedarschema"
INFER = Scope(actions=(Action.INFER,), senders=(DE,))
ADMINISTERED_FROM_THE_US = 'resource.adminAccess.contains(Jurisdiction::"US")'
NODE_A = 'Node::"spiffe://de.mesh.example/node/a"'
UNDER_US_CONTROL = 'resource.controller == Jurisdiction::"US"'


def world(*nodes: Subject, trusting: bool = True, **policies: str) -> World:
    """Policies by country; over any node if none is given."""
    known = {f"{country}.mesh.example": document(text) for country, text in policies.items()}
    return World(Snapshot(0, DE, policies=known), ON, nodes or None, trusting)


def permit(*conditions: str, effect: str = "permit", name: str = "p") -> str:
    whens = "".join(f" when {{ {each} }}" for each in conditions)
    return f'@id("{name}") {effect} (principal, action, resource){whens};'


def proof(policies: str, condition: str = "", scope: Scope = INFER) -> Proof:
    return prove(PolicyEngine(), world(de=policies), Query(condition, scope))


def holds(policies: str, condition: str = "", scope: Scope = INFER) -> bool:
    return proof(policies, condition, scope).holds


def undecided(policies: str, condition: str = "", scope: Scope = INFER) -> str:
    with pytest.raises(MeshError) as caught:
        proof(policies, condition, scope)
    assert caught.value.reason is Reason.POLICY_UNDECIDED
    return caught.value.message


def test_special_category_data_from_de_never_reaches_a_node_that_a_us_entity_controls() -> None:
    """The examples, whatever nodes and other authorities there may be."""
    known = {td: document(text) for td, text in example_policies().items()}
    everywhere = World(Snapshot(0, DE, policies=known), ON)
    scope = Scope(classes=frozenset({DataClass.SPECIAL_CATEGORY}), senders=(DE,))
    found = prove(PolicyEngine(), everywhere, Query(UNDER_US_CONTROL, scope))
    assert found.holds
    assert found.any_node
    assert set(found.receivers) == set(known)
    assert found.combinations > 1_000
    # What is not about people may go there: the witness says by which policy.
    scope = Scope(classes=frozenset({DataClass.CONFIDENTIAL}), senders=(DE,), actions=(Action.INFER,))
    found = prove(PolicyEngine(), everywhere, Query(UNDER_US_CONTROL, scope))
    assert found.witness is not None
    assert "de-everything-at-home" in found.witness.grants[0].policies
    assert found.witness.subject.facts.controller == "US"


@pytest.mark.parametrize(
    ("condition", "never"),
    [
        ('context.purpose == "care"', 'context.purpose != "care"'),
        ('["care", "research"].contains(context.purpose)', 'context.purpose == "audit"'),
        ('context.purpose like "care/*"', '!(context.purpose like "care/*")'),
        ('context.purpose like "*/x" && context.purpose like "a*"', 'context.purpose like "b*"'),
        ('context.transferBasis == ""', 'context.transferBasis == "scc"'),
        ('principal.tenant == "clinic"', 'principal.tenant == "firm"'),
        ('context.tenant like "c*"', 'principal.tenant == "firm"'),
        ('resource.assurances.contains("C5")', '!resource.assurances.contains("C5")'),
        ('resource.assurances.containsAll(["C5", "A"])', '!resource.assurances.contains("A")'),
        ('resource.assurances.containsAny(["C5", "A"])', "resource.assurances.isEmpty()"),
        ('resource.assurances == ["C5"]', 'resource.assurances.contains("other")'),
        ('resource in Group::"EU"', 'resource.location == Jurisdiction::"US"'),
        ('resource in Group::"EU"', '!(resource in Group::"EEA")'),
        ('resource.location in Group::"EU"', '!(resource.location in Group::"EEA")'),
        ('resource is Node in Group::"EU"', 'resource.location == Jurisdiction::"CH"'),
        ("resource.authority == resource.location", "resource.authority != resource.location"),
        ("resource in principal.home", 'resource in Jurisdiction::"FR"'),
        ('resource.adminAccess.contains(Jurisdiction::"DE")', 'resource.adminAccess == [Jurisdiction::"FR"]'),
        ("resource.adminAccess == [resource.location]", "!resource.adminAccess.contains(resource.location)"),
        ('[Jurisdiction::"DE"].containsAll(resource.adminAccess)', ADMINISTERED_FROM_THE_US),
        ('resource.adminAccessWithin.contains(Group::"EU")', ADMINISTERED_FROM_THE_US),
        (f"resource == {NODE_A}", f"resource != {NODE_A}"),
        ('principal == Client::"spiffe://de.mesh.example/client/a/b"', 'principal.tenant == "c"'),
        ('if context.purpose == "a" then resource in Group::"EU" else false', 'context.purpose == "b"'),
        ('action == Action::"embed"', "true"),
        ('resource has location && context.purpose == "a"', 'context.purpose == "b"'),
        ('1 + 1 == 2 && context.purpose == "a"', 'context.purpose == "b"'),
        ('Jurisdiction::"US" in Group::"EU"', "true"),
    ],
)  # fmt: skip
def test_what_a_policy_demands_holds_and_what_it_lets_by_has_a_witness(condition: str, never: str) -> None:
    """I4: with the condition it never happens; without it, it does."""
    assert holds(permit(condition), never)
    assert not holds(PERMIT_ALL, never if never != "true" else "")
    assert holds(permit() + permit(f"!({condition})", effect="forbid", name="f"), never)


def test_unless_and_forbid_count() -> None:
    policies = PERMIT_ALL + (
        '@id("f") forbid (principal, action, resource) unless { resource.controller in Group::"EEA" };'
    )
    assert holds(policies, UNDER_US_CONTROL)
    assert not holds(policies, 'resource.controller == Jurisdiction::"NO"')


def test_a_text_that_nobody_thought_of_is_thought_of() -> None:
    """A forbid that lists purposes leaves every other one open."""
    listed = permit('["care", "research"].contains(context.purpose)', effect="forbid", name="f")
    found = proof(PERMIT_ALL + listed)
    assert found.witness is not None
    assert found.witness.asked.context.purpose not in ("care", "research")
    assert holds(PERMIT_ALL + listed, scope=Scope(actions=(Action.INFER,), purposes=("care",), senders=(DE,)))


def test_patterns_that_overlap_are_tried_together() -> None:
    policies = permit(
        'context.purpose like "a*"', '!(context.purpose like "*z")', 'context.purpose like "*m*"'
    )
    found = proof(policies)
    assert found.witness is not None
    assert re.fullmatch(r"a.*m.*[^z]|am", found.witness.asked.context.purpose)
    assert holds(policies, 'context.purpose like "*z"')


def test_a_caller_that_acts_for_nobody_is_thought_of() -> None:
    found = proof(permit('context.tenant == ""'))
    assert found.witness is not None
    assert found.witness.asked.principal.id.kind == "admin"


def test_a_caller_states_its_own_tenant_or_none() -> None:
    assert holds(PERMIT_ALL, "context.tenant != principal.tenant")


def test_conditional_membership_depends_on_the_assurance() -> None:
    policies = permit('resource in Group::"GDPR-adequate"')
    assert holds(
        policies, 'resource.location == Jurisdiction::"US" && !resource.assurances.contains("EU-US-DPF")'
    )
    assert not holds(policies, 'resource.location == Jurisdiction::"US"')


def test_several_classes_ride_together_only_where_the_set_is_looked_at() -> None:
    """Permitting a set and not the classes alone is seen."""
    together = permit('context.dataClasses.contains("public")', 'context.dataClasses.contains("personal")')
    found = proof(together, scope=Scope(frozenset({DataClass.PERSONAL}), actions=(Action.INFER,)))
    assert found.witness is not None
    assert {DataClass.PUBLIC, DataClass.PERSONAL} <= set(found.witness.asked.context.judged_classes)
    assert holds(
        permit('context.dataClass != "personal"'), scope=Scope(frozenset({DataClass.SPECIAL_CATEGORY}))
    )


def test_both_keys_are_needed() -> None:
    """I3: what one of the two refuses never flows; whose policies are not known is taken to permit."""
    scope = Scope(actions=(Action.INFER,), senders=(DE,))
    elsewhere = 'resource.authority == Jurisdiction::"FR"'
    closed = world(de=PERMIT_ALL, fr=permit(effect="forbid"))
    assert prove(PolicyEngine(), closed, Query(elsewhere, scope)).holds
    open_ = prove(PolicyEngine(), world(de=PERMIT_ALL), Query(elsewhere, scope))
    assert open_.witness is not None
    assert open_.witness.grants[1].assumed
    there = node(FR, "a")
    mesh = world(Subject(there.id, there.facts), trusting=False, de=PERMIT_ALL)
    assert prove(PolicyEngine(), mesh, Query(elsewhere, scope)).holds  # it has published none: it refuses


def test_others_may_send_too_unless_it_is_said_who() -> None:
    policies = permit('principal in Jurisdiction::"JP"')
    assert holds(policies)
    found = proof(policies, scope=Scope(actions=(Action.INFER,)))
    assert found.witness is not None
    assert found.witness.asked.principal.jurisdiction == "JP"


def test_over_the_nodes_that_there_are() -> None:
    nodes = [node(DE, "a"), node(DE, "b", controller="US")]
    mesh = world(*(Subject(n.id, n.facts) for n in nodes), trusting=False, de=PERMIT_ALL)
    found = prove(PolicyEngine(), mesh, Query(UNDER_US_CONTROL, INFER))
    assert found.witness is not None
    assert found.witness.subject.node == nodes[1].id
    assert prove(PolicyEngine(), mesh, Query('resource.controller == Jurisdiction::"CN"', INFER)).holds


def test_a_level_needs_every_step() -> None:
    """The passage alone opens nothing."""
    release = '@id("p") permit (principal, action == Action::"release", resource)'
    alone = release + ' when { context.level == "passage" };'
    scope = Scope(actions=(Action.RELEASE,), senders=(DE,))
    assert holds(alone, scope=scope)
    steps = alone.replace('context.level == "passage"', '["count", "snippet"].contains(context.level)')
    assert not holds(steps, scope=scope)
    above = Scope(actions=(Action.RELEASE,), senders=(DE,), levels=frozenset({ReleaseLevel.REFERENCE}))
    assert holds(steps, scope=above)


def test_owners_and_collections_are_open() -> None:
    policies = (
        '@id("p") permit (principal, action == Action::"release", resource) unless { context.owner == "x" };'
    )
    scope = Scope(actions=(Action.RELEASE,), senders=(DE,))
    assert holds(policies, 'context.owner == "x"', scope)
    assert not holds(policies, 'context.collection == "papers"', scope)


def test_policies_of_other_actions_do_not_matter() -> None:
    odd = '@id("odd") permit (principal, action == Action::"embed", resource) when { {a: 1}.a == 1 };'
    assert holds(permit('context.purpose == "a"') + odd, 'context.purpose == "b"')


def test_a_group_that_nobody_defined_refuses() -> None:
    assert holds(PERMIT_ALL + permit('resource in Group::"Atlantis"', name="g"))


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("{a: context.purpose}.a == \"x\"", "names itself"),
        ("{a: context.purpose} == {a: \"x\"}", "record"),
        ('Client::"spiffe://de.mesh.example/client/a/b".tenant == "x"', "names itself"),
        ('Node::"spiffe://de.mesh.example/node/a" in resource.location', "names"),
        ('Node::"spiffe://de.mesh.example/node/a" in Group::"EU"', "names"),
        ('Client::"spiffe://de.mesh.example/client/a/b" has tenant', "names itself"),
        ("resource.assurances.contains(context.purpose)", "assurances"),
    ],
)  # fmt: skip
def test_what_is_not_followed_is_undecided(condition: str, why: str) -> None:
    message = undecided(permit(condition, name="odd"))
    assert message.startswith("undecided, because policy odd ")
    assert why in message


def test_a_space_that_is_too_large_is_refused() -> None:
    conditions = [f'resource.assurances.contains("A{i}")' for i in range(20)]
    assert "combinations of assurances" in undecided(permit(*conditions))
    purposes = "".join(
        permit(f'context.{name} == "{name.lower()}-{i}"', name=f"{name}-{i}")
        for name in ("purpose", "transferBasis", "tenant")
        for i in range(60)
    )
    assert "kinds of requests" in undecided(purposes)


@pytest.mark.parametrize(
    "condition",
    [
        "true }; @id(\"x\") permit (principal, action, resource) when { true",
        "true } unless { false",
        "resource.controler == 1",
        "resource.location == Jurisdiction::\"ZZ\"",
        "context.dataClass == \"personal\"",
        "9223372036854775807 + 1 > 0",
        "context.level == \"count\"",
        "(" * 100 + "true" + ")" * 100,
        "true // and no more",
        "x" * (MAX_CONDITION + 1),
        "",
    ],
)  # fmt: skip
def test_a_condition_is_one_expression_about_the_flow(condition: str) -> None:
    if condition.startswith("true //"):
        assert read_condition(condition, (Action.INFER,))  # a comment ends with its line
        return
    with pytest.raises(MeshError) as caught:
        read_condition(condition, (Action.INFER,))
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_a_condition_speaks_of_groups_that_there_are() -> None:
    with pytest.raises(MeshError) as caught:
        proof(PERMIT_ALL, 'resource in Group::"Atlantis"')
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert "GDPR-adequate" in caught.value.message


def test_a_condition_may_speak_of_levels_where_only_release_is_asked_about() -> None:
    read_condition('context.level == "count"', (Action.RELEASE,))


def test_groups_of_each_authority_are_its_own() -> None:
    """FR's own groups know nothing but itself: its key keeps everybody else out."""
    own = Groups.from_json(
        '{"groups": [{"name": "EU", "description": "", "source": "",'
        ' "members": [{"country": "FR", "from": "2020-01-01"}]}]}'
    )
    policies = {DE: document(PERMIT_ALL), FR: document(permit('principal in Group::"EU"'))}
    scope = Query('resource.authority == Jurisdiction::"FR"', INFER)
    shipped = World(Snapshot(0, DE, policies=policies), ON)
    assert not prove(PolicyEngine(), shipped, scope).holds
    assert prove(PolicyEngine(), World(Snapshot(0, DE, policies=policies, groups={FR: own}), ON), scope).holds


def test_every_attribute_of_the_schema_is_followed() -> None:
    attributes = set(re.findall(r"^\s+(\w+): [A-Z]", SCHEMA.read_text(), re.M))
    assert attributes == {slot.partition(".")[2] for slot in SLOTS}


@pytest.mark.parametrize(
    "condition",
    [
        "resource.controller == principal.home",
        "resource.authority == resource.location && resource.location != resource.controller",
        "resource.adminAccess.contains(principal.home) && resource.controller != principal.home",
        "principal in resource.adminAccessWithin",
        'context.purpose == principal.tenant && context.purpose != "a"',
        "context.purpose == context.dataClass",
    ],
)
def test_attributes_that_meet_can_be_equal_and_differ(condition: str) -> None:
    assert not holds(permit(condition))


def test_each_action_is_asked_about() -> None:
    both = Scope(actions=(Action.INFER, Action.EMBED), senders=(DE,))
    assert not holds('@id("p") permit (principal, action == Action::"embed", resource);', scope=both)
    assert not holds(permit('action == Action::"embed"'), scope=both)
    assert holds(permit('action == Action::"search"'), scope=both)
