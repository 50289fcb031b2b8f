"""Admin over mutual TLS: who may, what changes, and that a bad request changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import codec
from mesh.core.errors import Reason
from mesh.core.records import RecordType
from mesh.core.snapshot import TrustBundle
from mesh.core.types import NodeFacts
from mesh.identity.keys import make_key_and_csr
from sovereign.mesh.v1 import admin_pb2, records_pb2
from tests.support.control_calls import FACTS, POLICY, ControlCalls, control_calls, refusal
from tests.support.identities import AuthorityForTests, root_certificate

DEADLINE_S = 10.0


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[ControlCalls]:
    async with control_calls(tmp_path) as calls:
        yield calls


# --- who may -------------------------------------------------------------------------------------

CALLS = [
    ("ApplyPolicy", admin_pb2.ApplyPolicyRequest(cedar=POLICY)),
    ("GetPolicy", admin_pb2.GetPolicyRequest()),
    ("CreateJoinToken", admin_pb2.CreateJoinTokenRequest(node="x", facts=codec.facts_to_pb(FACTS))),
    ("ListNodes", admin_pb2.ListNodesRequest()),
    ("UpdateNode", admin_pb2.UpdateNodeRequest(node="x", cordoned=True)),
    ("IssueCertificate", admin_pb2.IssueCertificateRequest(path="/client/t")),
    ("Revoke", admin_pb2.RevokeRequest(spiffe_ids=["spiffe://de.mesh.example/client/t"])),
    ("ApplyCollection", admin_pb2.ApplyCollectionRequest()),
    ("ListCollections", admin_pb2.ListCollectionsRequest()),
    ("Federate", admin_pb2.FederateRequest(drop="fr.mesh.example")),
    ("ListRecords", admin_pb2.ListRecordsRequest()),
    ("GetStatus", admin_pb2.GetStatusRequest()),
]


def test_every_method_of_the_service_is_tried():
    methods = {m.name for m in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods}
    assert {name for name, _ in CALLS} == methods


@pytest.mark.parametrize("path", ["/client/clinic", "/node/fra-1", "/control/other"])
async def test_only_administrators_administer(setup: ControlCalls, path: str):
    stub = setup.admin(setup.de.source(path))
    for name, request in CALLS:
        error = await refusal(getattr(stub, name)(request))
        assert error.reason is Reason.IDENTITY_NOT_ALLOWED, name
    assert setup.control.actions.entries == []


async def test_another_authoritys_administrator_is_none_here(setup: ControlCalls):
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle)))
    before = len(setup.control.actions.entries)
    stub = setup.admin(setup.fr.source("/admin/first", [setup.de.bundle]))
    for name, request in CALLS:
        error = await refusal(getattr(stub, name)(request))
        assert error.reason is Reason.IDENTITY_NOT_ALLOWED, name
    assert len(setup.control.actions.entries) == before


async def test_whoever_is_not_federated_does_not_get_through_the_handshake(setup: ControlCalls):
    error = await refusal(
        setup.admin(setup.fr.source("/admin/first", [setup.de.bundle])).GetStatus(
            admin_pb2.GetStatusRequest()
        )
    )
    assert error.reason in (Reason.UNREACHABLE, Reason.IDENTITY_UNTRUSTED)


async def test_a_revoked_administrator_is_cut_off(setup: ControlCalls):
    second = setup.admin(setup.de.source("/admin/second"))
    await second.GetStatus(admin_pb2.GetStatusRequest())
    await setup.admin().Revoke(admin_pb2.RevokeRequest(spiffe_ids=[str(setup.de.id("/admin/second"))]))
    error = await refusal(second.GetStatus(admin_pb2.GetStatusRequest()))
    assert error.reason is Reason.IDENTITY_REVOKED


# --- policies ------------------------------------------------------------------------------------


async def test_a_policy_is_checked_published_and_shown(setup: ControlCalls):
    dry = await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY, dry_run=True))
    assert setup.generation(RecordType.POLICY) == dry.generation == 0
    answer = await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
    assert answer.generation == 1
    assert answer.digest == dry.digest
    assert "de-everything-at-home" in answer.policy_ids
    shown = await setup.admin().GetPolicy(admin_pb2.GetPolicyRequest())
    assert (shown.cedar, shown.generation, shown.digest) == (POLICY, 1, answer.digest)


@pytest.mark.parametrize(
    ("cedar", "reason"),
    [
        ("permit(principal, action, resource", Reason.POLICY_MALFORMED),
        ("permit(principal, action, resource);", Reason.POLICY_MALFORMED),
        ('@id("x") permit(principal, action == Action::"fly", resource);', Reason.POLICY_MALFORMED),
        ("//" + "x" * 200_000, Reason.POLICY_TOO_LARGE),
    ],
    ids=["does not parse", "no id", "does not fit the schema", "too large"],
)
async def test_a_bad_policy_changes_nothing(setup: ControlCalls, cedar: str, reason: Reason):
    await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
    before = await setup.admin().GetPolicy(admin_pb2.GetPolicyRequest())
    error = await refusal(setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=cedar)))
    assert error.reason is reason
    assert setup.generation(RecordType.POLICY) == 1
    assert await setup.admin().GetPolicy(admin_pb2.GetPolicyRequest()) == before


async def test_no_policy_is_not_an_empty_one(setup: ControlCalls):
    assert (await refusal(setup.admin().GetPolicy(admin_pb2.GetPolicyRequest()))).reason is Reason.NOT_FOUND


async def test_I7_what_cannot_be_recorded_is_not_done(setup: ControlCalls):
    setup.control.actions.full = True
    error = await refusal(setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY)))
    assert error.reason is Reason.EVIDENCE_UNAVAILABLE
    assert setup.generation(RecordType.POLICY) == 0


# --- nodes ---------------------------------------------------------------------------------------


async def test_cordoning_keeps_the_facts_and_facts_keep_the_cordon(setup: ControlCalls):
    await setup.door().Enroll(admin_pb2.EnrollRequest(token=await setup.token(), csr=make_key_and_csr()[1]))
    answer = await setup.admin().UpdateNode(admin_pb2.UpdateNodeRequest(node="fra-1", cordoned=True))
    assert answer.facts.cordoned
    assert answer.facts.location == "DE"
    moved = codec.facts_to_pb(NodeFacts("FR", "DE", "DE", frozenset({"DE"}), dns_name="evil.example"))
    answer = await setup.admin().UpdateNode(admin_pb2.UpdateNodeRequest(node="fra-1", facts=moved))
    assert answer.facts.location == "FR"
    assert answer.facts.cordoned
    assert answer.facts.dns_name == "fra-1.node.de.mesh.example"
    answer = await setup.admin().UpdateNode(admin_pb2.UpdateNodeRequest(node="fra-1", cordoned=False))
    assert not answer.facts.cordoned
    assert answer.generation == 4
    done = [entry for entry in setup.control.actions.entries if entry["state"] == "done"]
    assert done[-1]["facts"]["location"] == "FR"


async def test_a_node_that_is_not_there_cannot_be_changed(setup: ControlCalls):
    request = admin_pb2.UpdateNodeRequest(node="fra-1", cordoned=True)
    assert (await refusal(setup.admin().UpdateNode(request))).reason is Reason.NOT_FOUND
    assert (
        await refusal(setup.admin().UpdateNode(admin_pb2.UpdateNodeRequest(node="fra-1")))
    ).reason is Reason.REQUEST_INVALID


# --- other authorities ---------------------------------------------------------------------------


async def test_bundles_are_accepted_and_dropped(setup: ControlCalls):
    accept = admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle))
    answer = await setup.admin().Federate(accept)
    assert [b.trust_domain for b in answer.bundles] == ["fr.mesh.example"]
    assert setup.fr.trust_domain in setup.plane.source.bundles
    answer = await setup.admin().Federate(admin_pb2.FederateRequest(drop="fr.mesh.example"))
    assert not answer.bundles
    assert setup.fr.trust_domain not in setup.plane.source.bundles
    error = await refusal(setup.admin().Federate(admin_pb2.FederateRequest(drop="fr.mesh.example")))
    assert error.reason is Reason.NOT_FOUND


async def test_bad_bundles_change_nothing(setup: ControlCalls):
    fr, de = codec.bundle_to_pb(setup.fr.bundle), codec.bundle_to_pb(setup.de.bundle)
    stolen = records_pb2.TrustBundle(trust_domain="us.mesh.example", roots=fr.roots)
    for bad in (
        de,
        stolen,
        records_pb2.TrustBundle(trust_domain="us.mesh.example"),
        records_pb2.TrustBundle(trust_domain="us.mesh.example", roots=[b"x"]),
    ):
        error = await refusal(setup.admin().Federate(admin_pb2.FederateRequest(accept=bad)))
        assert error.reason is Reason.BUNDLE_INVALID
    error = await refusal(setup.admin().Federate(admin_pb2.FederateRequest()))
    assert error.reason is Reason.REQUEST_INVALID
    assert setup.generation(RecordType.FEDERATION) == 0


async def test_a_jurisdiction_has_one_authority(setup: ControlCalls, tmp_path: Path):
    """Policies speak of jurisdictions: whoever founds a second "DE" elsewhere would pass for the first."""
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle)))
    before = setup.generation(RecordType.FEDERATION)
    for name in ("de.shadow.example", "fr.shadow.example", "fr.de.mesh.example", "fr"):
        shadow = AuthorityForTests(tmp_path / name, name)
        error = await refusal(
            setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(shadow.bundle)))
        )
        assert error.reason is Reason.BUNDLE_INVALID
        assert "already" in error.message
    assert setup.generation(RecordType.FEDERATION) == before
    again = TrustBundle(setup.fr.trust_domain, setup.fr.bundle.roots, 2)
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(again)))


async def test_a_trust_domain_begins_with_a_country(setup: ControlCalls):
    root = root_certificate("mesh.example")
    bundle = records_pb2.TrustBundle(trust_domain="mesh.example", roots=[root], sequence=1)
    error = await refusal(setup.admin().Federate(admin_pb2.FederateRequest(accept=bundle)))
    assert error.reason is Reason.BUNDLE_INVALID
    assert setup.generation(RecordType.FEDERATION) == 0


async def test_an_older_bundle_does_not_replace_a_newer_one(setup: ControlCalls):
    newer = TrustBundle(setup.fr.trust_domain, setup.fr.bundle.roots, 5)
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(newer)))
    error = await refusal(
        setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle)))
    )
    assert error.reason is Reason.BUNDLE_INVALID
