"""Joining, certificates and revocation over real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh import codec
from mesh.core.errors import Reason
from mesh.core.records import RecordType
from mesh.core.types import node_id
from mesh.identity.keys import make_csr, make_key_and_csr
from mesh.identity.leaf import read_leaf
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc, records_pb2
from tests.support.control_calls import FACTS, Clock, ControlCalls, control_calls, refusal

DEADLINE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def setup(tmp_path: Path, clock: Clock) -> AsyncIterator[ControlCalls]:
    async with control_calls(tmp_path, clock=clock, enrolments_per_minute=20) as calls:
        yield calls


# --- joining -------------------------------------------------------------------------------------


async def test_a_node_joins_and_only_then_shows(setup: ControlCalls):
    token = await setup.token()
    assert not (await setup.admin().ListNodes(admin_pb2.ListNodesRequest())).nodes
    key, csr = make_key_and_csr()
    answer = await setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=csr))
    assert answer.spiffe_id == str(node_id("de.mesh.example", "fra-1"))
    leaf = read_leaf(answer.certificate_chain[0])
    assert leaf.public_key == key.public_key()
    assert codec.bundle_from_pb(answer.bundles[0]) == setup.de.bundle
    (view,) = (await setup.admin().ListNodes(admin_pb2.ListNodesRequest())).nodes
    assert view.node == answer.spiffe_id
    assert view.facts.dns_name == "fra-1.node.de.mesh.example"
    assert list(view.facts.assurances) == ["C5"]
    assert not view.HasField("record")
    assert view.fresh
    assert token not in str(setup.control.actions.entries)


async def test_a_join_token_is_good_once(setup: ControlCalls):
    token = await setup.token()
    await setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))
    error = await refusal(
        setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))
    )
    assert error.reason is Reason.JOIN_TOKEN_INVALID


async def test_a_join_token_expires(setup: ControlCalls, clock: Clock):
    token = await setup.token(ttl=60)
    clock.ahead = 61
    error = await refusal(
        setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))
    )
    assert error.reason is Reason.JOIN_TOKEN_INVALID
    assert "expired" in error.message


async def test_a_new_token_takes_the_place_of_the_old_one(setup: ControlCalls):
    old, new = await setup.token(), await setup.token()
    csr = make_key_and_csr()[1]
    assert (
        await refusal(setup.door().Enroll(admin_pb2.EnrollRequest(token=old, csr=csr)))
    ).reason is Reason.JOIN_TOKEN_INVALID
    await setup.door().Enroll(admin_pb2.EnrollRequest(token=new, csr=csr))


@pytest.mark.parametrize("csr", [b"", b"nonsense", b"x" * 9000])
async def test_a_bad_csr_does_not_cost_the_token(setup: ControlCalls, csr: bytes):
    token = await setup.token()
    error = await refusal(setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=csr)))
    assert error.reason is Reason.CSR_INVALID
    await setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))


async def test_a_guessed_token_and_a_flood_are_refused(setup: ControlCalls):
    csr = make_key_and_csr()[1]
    reasons = []
    for _ in range(25):
        request = admin_pb2.EnrollRequest(token="smt1." + "0" * 16 + "." + "A" * 43, csr=csr)
        reasons.append((await refusal(setup.door().Enroll(request))).reason)
    assert reasons[:20] == [Reason.JOIN_TOKEN_INVALID] * 20
    assert Reason.OVERLOADED in reasons[20:]


async def test_the_door_serves_nothing_but_enrolment(setup: ControlCalls):
    door = setup.door()
    error = await refusal(door.Renew(admin_pb2.RenewRequest(csr=make_key_and_csr()[1])))
    assert error.reason is Reason.IDENTITY_MALFORMED
    channel = setup.channels[-1]
    admin = admin_pb2_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await admin.GetStatus(admin_pb2.GetStatusRequest())
    assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_whoever_enrols_trusts_only_the_authority_that_it_was_told_of(setup: ControlCalls):
    error = await refusal(setup.door(setup.fr.bundle).Enroll(admin_pb2.EnrollRequest(token="x", csr=b"x")))
    assert error.reason in (Reason.IDENTITY_UNTRUSTED, Reason.UNREACHABLE)
    assert setup.control.actions.entries == []


@pytest.mark.parametrize(
    "facts",
    [
        records_pb2.NodeFacts(),
        records_pb2.NodeFacts(location="de", operator_domicile="DE", controller="DE", admin_access=["DE"]),
        records_pb2.NodeFacts(location="XX", operator_domicile="DE", controller="DE", admin_access=["DE"]),
        records_pb2.NodeFacts(location="DE", operator_domicile="DE", controller="DE"),
    ],
    ids=["none", "lower case", "unassigned", "nobody administers it"],
)
async def test_facts_are_checked_when_they_are_stated(setup: ControlCalls, facts: records_pb2.NodeFacts):
    error = await refusal(
        setup.admin().CreateJoinToken(admin_pb2.CreateJoinTokenRequest(node="fra-1", facts=facts))
    )
    assert error.reason in (Reason.COUNTRY_UNKNOWN, Reason.RECORD_MALFORMED)


@pytest.mark.parametrize("name", ["", "FRA", "a/b", "../x", "x" * 64])
async def test_a_name_that_no_node_can_have_is_refused(setup: ControlCalls, name: str):
    request = admin_pb2.CreateJoinTokenRequest(node=name, facts=codec.facts_to_pb(FACTS))
    assert (await refusal(setup.admin().CreateJoinToken(request))).reason is Reason.IDENTITY_MALFORMED


# --- certificates --------------------------------------------------------------------------------


async def test_certificates_are_issued_for_clients_and_administrators_only(setup: ControlCalls):
    key, csr = make_key_and_csr()
    for path in ("/client/clinic", "/client/clinic/desk", "/admin/second"):
        answer = await setup.admin().IssueCertificate(
            admin_pb2.IssueCertificateRequest(csr=csr, path=path, ttl_seconds=60)
        )
        leaf = read_leaf(answer.certificate_chain[0])
        assert (leaf.id, leaf.public_key) == (setup.de.id(path), key.public_key())
    for path in (
        "/node/fra-1",
        "/authority",
        "/control/main",
        "/client",
        "/admin/a/b",
        "client/x",
        "/CLIENT/x",
    ):
        request = admin_pb2.IssueCertificateRequest(csr=csr, path=path)
        error = await refusal(setup.admin().IssueCertificate(request))
        assert error.reason in (Reason.IDENTITY_NOT_ALLOWED, Reason.IDENTITY_MALFORMED), path


async def test_a_renewal_keeps_the_name_and_wants_a_new_key(setup: ControlCalls):
    source = setup.de.source("/client/clinic/desk")
    key, csr = make_key_and_csr()
    answer = await setup.renewal(source).Renew(admin_pb2.RenewRequest(csr=csr))
    leaf = read_leaf(answer.certificate_chain[0])
    assert (leaf.id, leaf.public_key) == (source.id, key.public_key())
    assert leaf.serial != source.svid.serial


async def test_the_old_key_is_not_renewed(setup: ControlCalls):
    source = setup.de.source("/client/clinic")
    error = await refusal(setup.renewal(source).Renew(admin_pb2.RenewRequest(csr=make_csr(source.svid.key))))
    assert error.reason is Reason.CSR_INVALID


async def test_a_revoked_certificate_is_not_renewed(setup: ControlCalls):
    source = setup.de.source("/client/clinic")
    await setup.admin().Revoke(admin_pb2.RevokeRequest(serials=[source.svid.serial]))
    error = await refusal(setup.renewal(source).Renew(admin_pb2.RenewRequest(csr=make_key_and_csr()[1])))
    assert error.reason is Reason.IDENTITY_REVOKED


async def test_foreigners_are_renewed_at_home(setup: ControlCalls):
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle)))
    source = setup.fr.source("/client/firm", [setup.de.bundle])
    error = await refusal(setup.renewal(source).Renew(admin_pb2.RenewRequest(csr=make_key_and_csr()[1])))
    assert error.reason is Reason.IDENTITY_NOT_ALLOWED


async def test_revocations_add_up(setup: ControlCalls):
    names = [str(setup.de.id(f"/client/c{i}")) for i in range(3)]
    for name in names:
        await setup.admin().Revoke(admin_pb2.RevokeRequest(spiffe_ids=[name]))
    assert {str(i) for i in setup.plane.records.revocations.ids} == set(names)
    assert setup.generation(RecordType.REVOCATIONS) == 3


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (admin_pb2.RevokeRequest(), Reason.REQUEST_INVALID),
        (admin_pb2.RevokeRequest(spiffe_ids=["x"]), Reason.IDENTITY_MALFORMED),
        (
            admin_pb2.RevokeRequest(spiffe_ids=["spiffe://fr.mesh.example/client/x"]),
            Reason.IDENTITY_NOT_ALLOWED,
        ),
        (
            admin_pb2.RevokeRequest(spiffe_ids=["spiffe://de.mesh.example/authority"]),
            Reason.IDENTITY_NOT_ALLOWED,
        ),
        (
            admin_pb2.RevokeRequest(spiffe_ids=["spiffe://de.mesh.example/control/main"]),
            Reason.IDENTITY_NOT_ALLOWED,
        ),
        (admin_pb2.RevokeRequest(serials=["AB"]), Reason.REQUEST_INVALID),
    ],
    ids=["nobody", "no id", "a foreigner", "the authority", "this control plane", "upper case"],
)
async def test_what_cannot_be_revoked_changes_nothing(setup: ControlCalls, request_: Any, reason: Reason):
    assert (await refusal(setup.admin().Revoke(request_))).reason is reason
    assert setup.generation(RecordType.REVOCATIONS) == 0
