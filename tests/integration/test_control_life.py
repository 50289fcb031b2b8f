"""A control plane's life: placing, losing the board, restarting."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action, RequestContext
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import make_key_and_csr
from mesh.store.memory import MemoryBoard
from sovereign.mesh.v1 import admin_pb2, placement_pb2, placement_pb2_grpc
from tests.support.control import control_of
from tests.support.control_calls import POLICY, ControlCalls, control_calls, refusal
from tests.support.identities import AuthorityForTests

DEADLINE_S = 10.0


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[ControlCalls]:
    async with control_calls(tmp_path) as calls:
        yield calls


# --- the board, placement, life ------------------------------------------------------------------


async def test_records_are_listed_with_a_verdict(setup: ControlCalls):
    await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
    answer = await setup.admin().ListRecords(admin_pb2.ListRecordsRequest(prefix="de.mesh.example/"))
    found = {record.key: record for record in answer.records}
    assert found["/sovereign/v1/de.mesh.example/policy"].refused == ""
    assert found["/sovereign/v1/de.mesh.example/policy"].envelope.statement


async def test_the_status_says_whose_records_are_fresh(setup: ControlCalls):
    await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
    await setup.admin().Federate(admin_pb2.FederateRequest(accept=codec.bundle_to_pb(setup.fr.bundle)))
    answer = await setup.admin().GetStatus(admin_pb2.GetStatusRequest())
    assert answer.trust_domain == "de.mesh.example"
    assert answer.board_connected
    assert list(answer.fresh) == ["de.mesh.example"]
    assert list(answer.stale) == ["fr.mesh.example"]


async def test_it_places_like_a_node(setup: ControlCalls):
    await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
    stub: Any = placement_pb2_grpc.PlacementStub(  # type: ignore[no-untyped-call]
        setup.channel(setup.de.source("/client/clinic"))
    )
    context = codec.context_to_pb(RequestContext.of(["public"], "press/leaflet"))
    request = placement_pb2.PlaceRequest(context=context, action=codec.action_to_pb(Action.INFER))
    answer = await stub.Place(request)
    assert not answer.decision.permitted
    assert answer.decision.decided_by == "spiffe://de.mesh.example/control/main"
    assert setup.control.decisions.entries


async def test_without_the_board_nothing_is_changed(tmp_path: Path):
    """And a join token is not spent on what cannot be done."""
    board = MemoryBoard()
    async with control_calls(tmp_path, board=board) as setup:
        view = setup.plane.board
        await setup.admin().ApplyPolicy(admin_pb2.ApplyPolicyRequest(cedar=POLICY))
        enrol = admin_pb2.EnrollRequest(token=await setup.token(), csr=make_key_and_csr()[1])
        revoke = admin_pb2.RevokeRequest(spiffe_ids=[str(setup.de.id("/client/x"))])
        board.disconnect()
        await view.wait_for(lambda _: not view.connected, DEADLINE_S)
        assert (await refusal(setup.admin().Revoke(revoke))).reason is Reason.STORE_UNAVAILABLE
        assert (await refusal(setup.door().Enroll(enrol))).reason is Reason.STORE_UNAVAILABLE
        board.reconnect()
        await view.wait_for(lambda _: view.connected, DEADLINE_S)
        await setup.door().Enroll(enrol)


async def test_a_restart_goes_on_where_it_was(tmp_path: Path):
    """Open tokens and the policy in force outlive it; the first policy is published only once."""
    board = MemoryBoard()
    de = AuthorityForTests(tmp_path, "de.mesh.example")
    async with control_calls(tmp_path, board=board, authority=de, first_policy=POLICY) as setup:
        await setup.plane.board.wait_for(lambda s: de.trust_domain in s.policies, DEADLINE_S)
        token = await setup.token()
    de.ca = CertificateAuthority.load(de.directory)
    other = POLICY + "\n// another one\n"
    shutil.rmtree(tmp_path / "others")
    async with control_calls(tmp_path, board=board, authority=de, first_policy=other) as setup:
        await setup.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))
        shown = await setup.admin().GetPolicy(admin_pb2.GetPolicyRequest())
        assert (shown.cedar, shown.generation) == (POLICY, 1)


async def test_an_address_that_is_taken_is_said(setup: ControlCalls, tmp_path: Path):
    de = AuthorityForTests(tmp_path / "again", "de.mesh.example")
    with pytest.raises(MeshError) as error:
        async with control_of(de.ca, MemoryBoard(), tmp_path / "again", listen=(setup.plane.endpoint,)):
            pass
    assert error.value.reason is Reason.CONFIG_INVALID
