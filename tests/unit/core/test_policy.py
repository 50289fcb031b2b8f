"""The policy engine: default deny, one question per class, and what its memory depends on (I3, I4)."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from mesh.core.jurisdictions import Groups
from mesh.core.policy import PolicyEngine, Verdict
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, Principal, RequestContext
from tests.support.snapshots import DE, FR, NOW, US, client, document, node, snapshot_of

DAY = datetime.datetime.fromtimestamp(NOW, datetime.UTC).date()
BERLIN = node(DE, "berlin")


def judge(
    cedar: str,
    *classes: str,
    engine: PolicyEngine | None = None,
    who: Principal | None = None,
    at: object = BERLIN,
    on: datetime.date = DAY,
    groups: Groups | None = None,
    **context: str,
) -> Verdict:
    snapshot = snapshot_of([], {DE: cedar})
    if groups:
        snapshot = replace(snapshot, groups={DE: groups})
    asked = RequestContext.of(classes or ["public"], context.pop("purpose", "x"), **context)  # type: ignore[arg-type]
    return (engine or PolicyEngine()).judge(
        snapshot,
        DE,
        who or client(),
        Action.INFER,
        at.id,
        at.facts,
        asked,
        on,  # type: ignore[attr-defined]
    )


def permit(condition: str, policy_id: str = "p") -> str:
    return f'@id("{policy_id}") permit (principal, action, resource) when {{ {condition} }};'


def forbid(condition: str, policy_id: str = "f") -> str:
    return f'@id("{policy_id}") forbid (principal, action, resource) when {{ {condition} }};'


def test_a_permit_permits_and_is_named() -> None:
    assert judge(permit("true")) == Verdict(True, ("p",))


def test_i4_no_policies_deny() -> None:
    verdict = PolicyEngine().judge(
        snapshot_of([], {}),
        DE,
        client(),
        Action.INFER,
        BERLIN.id,
        BERLIN.facts,
        RequestContext.of(["public"], "x"),
        DAY,
    )
    assert (verdict.allowed, verdict.missing) == (False, True)


def test_i4_nothing_permits() -> None:
    verdict = judge(permit("false"))
    assert (verdict.allowed, verdict.policies, verdict.missing) == (False, (), False)
    assert "no policy of de.mesh.example permits infer with public data" in verdict.reason


def test_forbid_overrides_and_is_named() -> None:
    verdict = judge(permit("true") + forbid("true", "f2") + forbid("true", "f1"))
    assert (verdict.allowed, verdict.policies) == (False, ("f1", "f2"))
    assert "f1, f2 of de.mesh.example forbids" in verdict.reason


def test_i4_policies_that_cannot_be_read_deny() -> None:
    verdict = judge("permit (principal, action, resource);")
    assert not verdict.allowed
    assert "cannot be read" in verdict.reason


@pytest.mark.parametrize("effect", [permit, forbid])
def test_i4_a_policy_that_fails_denies_all(effect: object) -> None:
    """Cedar skips failing policies; a forbid that overflows must not open what it closes."""
    failing = effect("9223372036854775807 + 1 > 0", "overflow")  # type: ignore[operator]
    verdict = judge(permit("true") + failing)
    assert (verdict.allowed, verdict.policies) == (False, ())
    assert "failed while it was evaluated" in verdict.reason


def test_i4_an_undefined_group_denies_all() -> None:
    verdict = judge(permit("true") + forbid('resource in Group::"Allies"'))
    assert not verdict.allowed
    assert "Allies" in verdict.reason


def test_every_class_must_be_permitted() -> None:
    cedar = permit('context.dataClass == "confidential"')
    assert judge(cedar, "confidential").allowed
    verdict = judge(cedar, "confidential", "special-category")
    assert not verdict.allowed
    assert "personal data" in verdict.reason or "special-category data" in verdict.reason


def test_special_category_is_personal() -> None:
    assert not judge(permit("true") + forbid('context.dataClass == "personal"'), "special-category").allowed


def test_what_policies_see_of_the_request() -> None:
    assert judge(permit('context.purpose == "care/triage"'), purpose="care/triage").allowed
    assert judge(permit('context.transferBasis == "scc"'), transfer_basis="scc").allowed
    assert not judge(permit('context.transferBasis == "scc"')).allowed
    assert judge(permit('context.tenant == "clinic-a" && principal.tenant == "clinic-a"')).allowed
    assert judge(
        permit('context.dataClasses.containsAll(["public", "internal"])'), "public", "internal"
    ).allowed
    assert judge(permit('principal.home == Jurisdiction::"DE" && principal in Group::"EU"')).allowed
    assert not judge(permit('principal in Group::"EU"'), who=client(trust_domain=US)).allowed


def test_what_policies_see_of_the_node() -> None:
    odd = node(DE, "odd", location="FR", controller="US", admin_access=["DE", "NO"], assurances=["C5"])
    for condition in (
        'resource in Jurisdiction::"FR" && resource in Group::"EU"',
        'resource.location == Jurisdiction::"FR"',
        'resource.authority == Jurisdiction::"DE"',
        'resource.operatorDomicile == Jurisdiction::"DE"',
        'resource.controller == Jurisdiction::"US" && !(resource.controller in Group::"EU")',
        'resource.adminAccess.contains(Jurisdiction::"NO")',
        'resource.adminAccessWithin.contains(Group::"EEA")',
        '!resource.adminAccessWithin.contains(Group::"EU")',
        'resource.assurances.contains("C5")',
    ):
        assert judge(permit(condition), at=odd).allowed, condition


def test_conditional_membership_is_the_nodes_own() -> None:
    adequate = permit('resource in Group::"GDPR-adequate"')
    certified = node(US, "certified", assurances=["EU-US-DPF"])
    assert not judge(adequate, at=node(US, "plain")).allowed
    assert judge(adequate, at=certified).allowed
    assert not judge(permit('resource.location in Group::"GDPR-adequate"'), at=certified).allowed
    assert not judge(
        permit('resource.adminAccessWithin.contains(Group::"GDPR-adequate")'), at=certified
    ).allowed


def test_groups_are_those_of_the_day() -> None:
    london = node("gb.mesh.example", "london")
    engine = PolicyEngine()
    cedar = permit('resource in Group::"EU"')
    assert judge(cedar, at=london, on=datetime.date(2020, 1, 31), engine=engine).allowed
    assert not judge(cedar, at=london, on=datetime.date(2020, 2, 1), engine=engine).allowed


def test_an_authority_can_replace_its_groups() -> None:
    own = Groups.from_json(
        '{"groups": [{"name": "Allies", "description": "", "source": "",'
        ' "members": [{"country": "US", "from": "2020-01-01"}]}]}'
    )
    cedar = permit('resource in Group::"Allies"')
    assert not judge(cedar, at=node(US, "n")).allowed
    assert judge(cedar, at=node(US, "n"), groups=own).allowed
    assert "EU" in judge(permit('resource in Group::"EU"'), groups=own).reason


def test_memory_tells_apart_whatever_a_policy_can_see() -> None:
    engine = PolicyEngine()
    cases: list[tuple[str, dict[str, object], dict[str, object]]] = [
        ('context.purpose == "a"', {"purpose": "a"}, {"purpose": "b"}),
        ('context.transferBasis == "scc"', {"transfer_basis": "scc"}, {}),
        ('principal.tenant == "x"', {"who": client("x")}, {"who": client("y")}),
        ('principal in Jurisdiction::"DE"', {}, {"who": client(trust_domain=FR)}),
        (
            'resource.assurances.contains("C5")',
            {"at": node(DE, "n", assurances=["C5"])},
            {"at": node(DE, "n")},
        ),
        ('resource.controller == Jurisdiction::"DE"', {}, {"at": node(DE, "n", controller="US")}),
        ('resource.authority == Jurisdiction::"DE"', {}, {"at": node(FR, "n", location="DE")}),
        (
            'resource == Node::"spiffe://de.mesh.example/node/n1"',
            {"at": node(DE, "n1")},
            {"at": node(DE, "n2")},
        ),
        (
            'principal == Client::"spiffe://de.mesh.example/client/t/a"',
            {"who": client("t/a")},
            {"who": client("t/b")},
        ),
    ]
    for condition, yes, no in cases:
        for _ in range(2):  # asked, then remembered
            assert judge(permit(condition), engine=engine, **yes).allowed, condition  # type: ignore[arg-type]
            assert not judge(permit(condition), engine=engine, **no).allowed, condition  # type: ignore[arg-type]


def test_narrowing_and_names_do_not_split_the_memory() -> None:
    engine = PolicyEngine()
    snapshot = snapshot_of([], {DE: permit("true")})
    for i in range(50):
        context = RequestContext.of(["public"], "x", allowed_jurisdictions=["DE", "FR"][: i % 3])
        at = node(DE, f"n{i}")
        engine.judge(snapshot, DE, client(f"t/c{i}"), Action.INFER, at.id, at.facts, context, DAY)
    assert len(engine._verdicts) == 1


def test_a_changed_policy_is_a_new_question() -> None:
    engine = PolicyEngine()
    assert judge(permit("true"), engine=engine).allowed
    assert not judge(permit("false"), engine=engine).allowed


def test_many_nodes_in_order() -> None:
    nodes = [node(DE, f"n{i}", assurances=["C5"] if i % 2 else []) for i in range(10)]
    snapshot: Snapshot = replace(
        snapshot_of([]), policies={DE: document(permit('resource.assurances.contains("C5")'))}
    )
    verdicts = PolicyEngine().judge_many(
        snapshot,
        DE,
        client(),
        Action.INFER,
        [(n.id, n.facts) for n in nodes],
        RequestContext.of(["public"], "x"),
        DAY,
    )
    assert [v.allowed for v in verdicts] == [bool(i % 2) for i in range(10)]
