"""Every limit that the protos state, one step past it, on the wire; and clocks two minutes apart.

What is wrong with permits, records, certificates and policies otherwise is in test_gateway_refusals,
unit/board/test_board, test_tls_handshake and test_control_admin.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import admin_pb2, context_pb2, placement_pb2, placement_pb2_grpc
from tests.support.control_calls import FACTS, POLICY, ControlCalls, control_calls, refusal
from tests.support.mesh import Caller, Mesh, Node, context, mesh_of

PUBLIC = context(["public"])
COUNTRIES = ["DE", "FR", "IT", "ES", "PL", "NL", "BE", "AT", "SE", "DK"]

Fields = dict[str, Any]
BAD_CONTEXTS: dict[str, tuple[Fields, Fields, Reason]] = {
    "17 classes": ({"data_classes": ["public"] * 17}, {}, Reason.CONTEXT_INVALID),
    "a class in capitals": ({"data_classes": ["Public"]}, {}, Reason.DATA_CLASS_UNKNOWN),
    "a class and more": ({"data_classes": ["public\n"]}, {}, Reason.DATA_CLASS_UNKNOWN),
    "no purpose": ({"purpose": ""}, {}, Reason.CONTEXT_INVALID),
    "a purpose of 129": ({"purpose": "x" * 129}, {}, Reason.CONTEXT_INVALID),
    "a purpose in Cyrillic": ({"purpose": "c\u0430re"}, {}, Reason.CONTEXT_INVALID),
    "a purpose and a new line": ({"purpose": "care\n"}, {}, Reason.CONTEXT_INVALID),
    "a basis of 129": ({"transfer_basis": "x" * 129}, {}, Reason.CONTEXT_INVALID),
    "a tenant with a slash": ({"tenant": "clinic/a"}, {}, Reason.CONTEXT_INVALID),
    "somebody else's tenant": ({"tenant": "firm"}, {}, Reason.TENANT_MISMATCH),
    "a lower-case country": ({}, {"allowed_jurisdictions": ["de"]}, Reason.COUNTRY_UNKNOWN),
    "an unassigned country": ({}, {"allowed_jurisdictions": ["ZZ"]}, Reason.COUNTRY_UNKNOWN),
    "a group for a country": ({}, {"allowed_jurisdictions": ["EU"]}, Reason.COUNTRY_UNKNOWN),
    "a country and a space": ({}, {"allowed_jurisdictions": ["DE "]}, Reason.COUNTRY_UNKNOWN),
    "33 assurances": ({}, {"required_assurances": [f"A{i}" for i in range(33)]}, Reason.CONTEXT_INVALID),
    "an assurance of 65": ({}, {"required_assurances": ["A" * 65]}, Reason.CONTEXT_INVALID),
}


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE") as mesh:
        yield mesh


async def placed(caller: Caller, node: Node, asked: context_pb2.RequestContext, **more: Any) -> MeshError:
    stub: Any = placement_pb2_grpc.PlacementStub(caller.channel(node))  # type: ignore[no-untyped-call]
    request = placement_pb2.PlaceRequest(context=asked, **{"action": context_pb2.ACTION_INFER, **more})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Place(request)
    return from_rpc_error(caught.value)


@pytest.mark.slow
async def test_each_limit_of_a_context_at_the_placer_and_at_the_node(mesh: Mesh):
    node, clinic = await mesh["DE"].node("fra-1"), mesh["DE"].caller("clinic")
    for name, (fields, narrowing, reason) in BAD_CONTEXTS.items():
        asked = context_pb2.RequestContext(
            **{"data_classes": ["public"], "purpose": "care", **fields},
            narrowing=context_pb2.Narrowing(**narrowing),
        )
        assert (await placed(clinic, node, asked)).reason is reason, name
        request = clinic.chat_request(PUBLIC, clinic.permit(node, PUBLIC))
        request.admission.context.CopyFrom(asked)
        with pytest.raises(MeshError) as caught:
            await clinic.send(node, request)
        assert caught.value.reason is reason, name
        offered = [*fields.values(), *narrowing.values()]
        assert not any(str(value) in str(caught.value) for value in offered if len(str(value)) > 3), name
    assert node.engine.seen == 0


@pytest.mark.slow
async def test_each_limit_of_a_placement(mesh: Mesh):
    node, clinic = await mesh["DE"].node("fra-1"), mesh["DE"].caller("clinic")
    asked = codec.context_to_pb(PUBLIC)
    for fields, reason in (
        ({"action": context_pb2.ACTION_UNSPECIFIED}, Reason.REQUEST_INVALID),
        ({"action": 99}, Reason.REQUEST_INVALID),
        ({"excluded_nodes": ["not a name"]}, Reason.IDENTITY_MALFORMED),
        ({"excluded_nodes": ["spiffe://de.mesh.example/node/fra-1/"]}, Reason.IDENTITY_MALFORMED),
        ({"excluded_nodes": ["spiffe://de.mesh.example/node/%66ra-1"]}, Reason.IDENTITY_MALFORMED),
        ({"excluded_nodes": ["SPIFFE://de.mesh.example/node/fra-1"]}, Reason.IDENTITY_MALFORMED),
        ({"excluded_nodes": ["spiffe://DE.mesh.example/node/fra-1"]}, Reason.IDENTITY_MALFORMED),
    ):
        assert (await placed(clinic, node, asked, **fields)).reason is reason, fields


@pytest.mark.slow
async def test_a_permit_replayed_later_and_under_a_clock_that_steps(tmp_path: Path):
    """Used, used again, used after its time, and after a clock that was set back."""
    offset = 0.0
    async with mesh_of(tmp_path, "DE", clock=lambda: time.time() + offset) as mesh:
        node, clinic = await mesh["DE"].node("fra-1"), mesh["DE"].caller("clinic")
        permit = clinic.permit(node, PUBLIC)
        assert await clinic.chat(node, PUBLIC, permit=permit)
        for step, reason in (
            (0.0, Reason.PERMIT_REPLAYED),
            (59.0, Reason.PERMIT_REPLAYED),
            (70.0, Reason.PERMIT_EXPIRED),
        ):
            offset = step
            with pytest.raises(MeshError) as caught:
                await clinic.chat(node, PUBLIC, permit=permit)
            assert caught.value.reason is reason
        # another one makes the node forget what has expired; then its clock is set back
        assert await clinic.chat(node, PUBLIC)
        offset = 0.0
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC, permit=permit)
        assert caught.value.reason is Reason.PERMIT_EXPIRED
        assert node.engine.seen == 2


@pytest.mark.slow
async def test_a_permit_of_a_placer_whose_clock_is_two_minutes_off(mesh: Mesh):
    node, clinic = await mesh["DE"].node("fra-1"), mesh["DE"].caller("clinic")
    for skew, reason in ((120, Reason.PERMIT_NOT_YET_VALID), (-120, Reason.PERMIT_EXPIRED)):
        permit = clinic.permit(node, PUBLIC, issued_at=mesh.clock() + skew)
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC, permit=permit)
        assert caught.value.reason is reason
        assert "clock" in caught.value.message
    # within the tolerance it serves
    assert await clinic.chat(node, PUBLIC, permit=clinic.permit(node, PUBLIC, issued_at=mesh.clock() + 20))


# --- the control plane ---------------------------------------------------------------------------


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[ControlCalls]:
    async with control_calls(tmp_path) as calls:
        yield calls


async def test_each_limit_of_the_control_plane_changes_nothing(setup: ControlCalls):
    facts, who = codec.facts_to_pb(FACTS), "spiffe://de.mesh.example/client/c"
    admin = setup.admin()
    names = [f"{who}{number}" for number in range(4097)]
    for method, request, reason in (
        ("ApplyPolicy", admin_pb2.ApplyPolicyRequest(cedar=POLICY + " " * 131_072), Reason.POLICY_TOO_LARGE),
        ("CreateJoinToken", admin_pb2.CreateJoinTokenRequest(node="n" * 64, facts=facts), None),
        ("CreateJoinToken", admin_pb2.CreateJoinTokenRequest(node="../../x", facts=facts), None),
        ("CreateJoinToken", admin_pb2.CreateJoinTokenRequest(node="a/b", facts=facts), None),
        ("UpdateNode", admin_pb2.UpdateNodeRequest(node="a\nb", cordoned=True), None),
        ("IssueCertificate", admin_pb2.IssueCertificateRequest(path="/client/t", csr=b"x" * 8193), None),
        ("IssueCertificate", admin_pb2.IssueCertificateRequest(path="/node/fra-1", csr=b"x"), None),
        ("IssueCertificate", admin_pb2.IssueCertificateRequest(path="/control/main", csr=b"x"), None),
        ("IssueCertificate", admin_pb2.IssueCertificateRequest(path="/authority", csr=b"x"), None),
        ("Revoke", admin_pb2.RevokeRequest(spiffe_ids=names), Reason.REQUEST_INVALID),
        ("Revoke", admin_pb2.RevokeRequest(serials=["a" * 41]), Reason.REQUEST_INVALID),
        ("Revoke", admin_pb2.RevokeRequest(serials=["AB"]), Reason.REQUEST_INVALID),
        ("ListRecords", admin_pb2.ListRecordsRequest(prefix="x" * 300), Reason.RECORD_WRONG_KEY),
    ):
        error = await refusal(getattr(admin, method)(request))
        assert error.reason is (reason or error.reason), method
        assert error.reason is not Reason.INTERNAL, method
    assert setup.control.actions.entries == []
