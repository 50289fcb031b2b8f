"""Release levels: two keys, steps, tenants, and what is not asked twice (I1, I3, I4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.policy import PolicyEngine, validate_policy
from mesh.core.release import ReleasePolicy
from mesh.core.retrieval import ReleaseGroup, ReleaseLevel
from mesh.core.snapshot import Heads, Snapshot
from mesh.core.types import Action, DataClass, Principal, RequestContext
from tests.support.snapshots import DE, FR, NOW, PERMIT_ALL, client, document, idle, node, snapshot_of

BERLIN = node(DE, "berlin")
CARE = RequestContext.of(["public"], "care/triage")
PUBLIC, PERSONAL = frozenset({DataClass.PUBLIC}), frozenset({DataClass.PERSONAL})
FRENCH = client("firm-c", FR)


def levels(
    cedar: str,
    groups: Sequence[ReleaseGroup],
    *,
    french: str = PERMIT_ALL,
    who: Principal = FRENCH,
    snapshot: Snapshot | None = None,
    release: ReleasePolicy | None = None,
    context: RequestContext = CARE,
) -> list[str]:
    snapshot = snapshot or snapshot_of([BERLIN], {DE: cedar, FR: french})
    found = (release or ReleasePolicy(PolicyEngine())).levels(
        snapshot, BERLIN.id, who, context, "papers", dict(enumerate(groups)), NOW
    )
    return [found[i].word for i in range(len(groups))]


def group(classes: frozenset[DataClass] = PUBLIC, owner: str = "", tenant: str = "") -> ReleaseGroup:
    return ReleaseGroup(tenant, owner, classes)


def allow(*names: str, when: str = "true") -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"""@id("allow") permit (principal, action == Action::"release", resource)
        when {{ [{listed}].contains(context.level) && {when} }};"""


def test_levels_are_steps() -> None:
    assert levels(allow("count", "reference"), [group()]) == ["reference"]
    assert levels(allow("count", "snippet", "passage"), [group()]) == ["count"]
    assert levels(allow("passage"), [group()]) == ["nothing"]


def test_i3_both_authorities_must_let_it_go() -> None:
    assert levels(PERMIT_ALL, [group()], french=allow("count", "reference")) == ["reference"]
    assert levels(allow("count"), [group()], french=PERMIT_ALL) == ["count"]
    nobody = snapshot_of([BERLIN], {DE: PERMIT_ALL})
    assert levels("", [group()], snapshot=nobody) == ["nothing"]


def test_every_class_of_the_documents_is_judged_and_not_those_of_the_question() -> None:
    public_only = allow("count", "reference", when='context.dataClass == "public"')
    mixed = group(PUBLIC | PERSONAL)
    special = group(frozenset({DataClass.SPECIAL_CATEGORY}))
    question = RequestContext.of(["special-category"], "care/triage")
    assert levels(public_only, [group(), mixed, special], context=question) == [
        "reference",
        "nothing",
        "nothing",
    ]
    implied = allow("count", when='context.dataClass == "special-category"')
    assert levels(implied, [special]) == ["nothing"]  # personal is implied, and not permitted


def test_i4_documents_without_a_class_are_not_there() -> None:
    assert levels(PERMIT_ALL, [group(frozenset())]) == ["nothing"]
    release = ReleasePolicy(PolicyEngine())
    snapshot = snapshot_of([BERLIN])
    verdict = release.explain(
        snapshot, BERLIN.id, FRENCH, CARE, "papers", group(frozenset()), ReleaseLevel.COUNT, NOW
    )
    assert not verdict.allowed


def test_policies_see_owner_collection_and_purpose() -> None:
    by_owner = allow("count", "reference", when='context.owner == "ward-1"')
    assert levels(by_owner, [group(owner="ward-1"), group(owner="ward-2"), group()]) == [
        "reference",
        "nothing",
        "nothing",
    ]
    assert levels(allow("count", when='context.collection == "papers"'), [group()]) == ["count"]
    assert levels(allow("count", when='context.collection == "letters"'), [group()]) == ["nothing"]
    assert levels(allow("count", when='context.purpose like "care/*"'), [group()]) == ["count"]


def test_i1_a_tenants_documents_are_for_that_tenant_at_home_whatever_policies_say() -> None:
    ours = group(tenant="clinic-a")
    assert levels(PERMIT_ALL, [ours], who=client("clinic-a", DE)) == ["passage"]
    assert levels(PERMIT_ALL, [ours], who=client("clinic-b", DE)) == ["nothing"]
    assert levels(PERMIT_ALL, [ours], who=client("clinic-a", FR)) == ["nothing"]
    assert levels(allow("count"), [ours], who=client("clinic-a", DE)) == ["count"]


def test_i4_stale_records_and_unknown_nodes_release_nothing() -> None:
    fresh = snapshot_of([BERLIN])
    stale = replace(fresh, heads={**fresh.heads, FR: Heads(NOW - 61, 60, {})})
    assert levels("", [group()], snapshot=stale) == ["nothing"]
    assert levels("", [group()], snapshot=stale, who=client("firm-b", DE)) == ["passage"]
    assert levels("", [group()], snapshot=replace(fresh, candidates={})) == ["nothing"]


def test_forbids_over_every_action_hold_for_release_too() -> None:
    cedar = (
        PERMIT_ALL
        + """@id("no") forbid (principal, action, resource)
        when { context.dataClass == "personal" };"""
    )
    assert levels(cedar, [group(), group(PERSONAL)]) == ["passage", "nothing"]


@pytest.mark.parametrize(
    "when",
    [
        'context.level == "passages"',
        '["snippet", "nothing"].contains(context.level)',
        '"Count" != context.level',
    ],
)
def test_i4_a_level_that_does_not_exist_is_no_policy(when: str) -> None:
    with pytest.raises(MeshError, match="as a release level, expected one of") as refused:
        validate_policy(
            f'@id("p") forbid (principal, action == Action::"release", resource) when {{ {when} }};'
        )
    assert refused.value.reason is Reason.POLICY_MALFORMED


def test_levels_are_for_release_alone() -> None:
    with pytest.raises(MeshError, match="level"):
        validate_policy('@id("p") forbid (principal, action, resource) when { context.level == "count" };')


def test_i4_nobody_places_a_release() -> None:
    snapshot = snapshot_of([BERLIN])
    decision = Placer().place(
        snapshot,
        idle([BERLIN]),
        principal=client(),
        action=Action.RELEASE,
        context=CARE,
        placer=BERLIN.id,
        now=NOW,
        decision_id="d",
    )
    assert not decision.permitted
    assert decision.refused[0].reason is Reason.POLICY_SENDER_DENIES


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each call of Cedar had."""
    sizes: list[int] = []
    ask = cedarpy.is_authorized_batch

    def counted(requests: list[Any], *rest: Any) -> Any:
        sizes.append(len(requests))
        return ask(requests, *rest)

    monkeypatch.setattr(cedarpy, "is_authorized_batch", counted)
    return sizes


def test_cedar_is_asked_once_for_each_authority_and_then_not_again(batches: list[int]) -> None:
    release = ReleasePolicy(PolicyEngine())
    classes = [frozenset({c}) for c in (DataClass.PUBLIC, DataClass.INTERNAL, DataClass.CONFIDENTIAL)]
    groups = [group(c, tenant=tenant) for c in classes for tenant in ("", "t")]
    snapshot = snapshot_of([BERLIN], {DE: PERMIT_ALL, FR: PERMIT_ALL})
    for _ in range(3):
        assert set(levels("", groups, snapshot=snapshot, release=release)) == {"passage", "nothing"}
    assert batches == [12, 12]  # 3 groups that may be seen x 4 levels, at each authority
    # The same engine with another memory of levels, and one group more: only that one is asked about.
    again = ReleasePolicy(release._engine)
    levels("", [*groups, group(PERSONAL)], snapshot=snapshot, release=again)
    assert batches == [12, 12, 4, 4]
    # What the question's own classes are makes no difference; its purpose does.
    levels(
        "", groups, snapshot=snapshot, release=release, context=RequestContext.of(["personal"], "care/triage")
    )
    assert len(batches) == 4
    levels("", groups, snapshot=snapshot, release=release, context=RequestContext.of(["public"], "research"))
    assert len(batches) == 6


def test_owners_cost_nothing_where_no_policy_looks_at_them(batches: list[int]) -> None:
    owners = [group(owner=f"ward-{i}") for i in range(50)]
    assert set(levels(PERMIT_ALL, owners, who=client())) == {"passage"}
    assert batches == [4]
    assert set(levels(allow("count", when='context.owner != "x"'), owners, who=client())) == {"count"}
    assert batches == [4, 200]


def test_a_policy_that_changes_is_noticed_and_so_is_a_client_that_a_policy_names() -> None:
    release = ReleasePolicy(PolicyEngine())
    before = snapshot_of([BERLIN], {DE: allow("count"), FR: PERMIT_ALL})
    assert levels("", [group()], snapshot=before, release=release) == ["count"]
    after = replace(before, policies={**before.policies, DE: document(allow("count", "reference"))})
    assert levels("", [group()], snapshot=after, release=release) == ["reference"]
    named = allow("count", when=f'principal == Client::"{FRENCH.id}"')
    pointed = replace(before, policies={**before.policies, DE: document(named)})
    assert levels("", [group()], snapshot=pointed, release=release) == ["count"]
    other = Principal(replace(FRENCH.id, path="/client/firm-c/other"))
    assert levels("", [group()], snapshot=pointed, release=release, who=other) == ["nothing"]


def test_an_explanation_names_the_policies_of_both() -> None:
    release = ReleasePolicy(PolicyEngine())
    snapshot = snapshot_of([BERLIN], {DE: allow("count"), FR: PERMIT_ALL})

    def explain(level: ReleaseLevel, **changes: str) -> tuple[bool, tuple[str, ...], str]:
        verdict = release.explain(snapshot, BERLIN.id, FRENCH, CARE, "papers", group(**changes), level, NOW)
        return verdict.allowed, verdict.policies, verdict.reason

    assert explain(ReleaseLevel.COUNT) == (True, ("allow", "all"), "")
    allowed, policies, why = explain(ReleaseLevel.PASSAGE)
    assert not allowed
    assert policies == ()
    assert why == f"no policy of {DE} permits release of public documents at reference"
    assert "tenant" in explain(ReleaseLevel.COUNT, tenant="t")[2]
