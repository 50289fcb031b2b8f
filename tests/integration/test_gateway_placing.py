"""Placement as nodes answer it: who may ask, what they get, and what is written down (I2, I3, I7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import MAX_PERMITS
from mesh.core.targets import permitted_targets
from mesh.core.types import Action
from mesh.identity.signing import open_envelope
from mesh.rpc import pace
from mesh.rpc.channels import ChannelPool
from node.engine.scripted import Script
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc
from tests.support.mesh import Mesh, Stream, context, mesh_of

PUBLIC = context(["public"])
CONFIDENTIAL = context(["confidential"])
CLINICAL = context(["special-category"])


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR", "US") as made:
        await made["DE"].node("fra-1", script=Script(per_token_s=0.01))
        await made["FR"].node("par-1")
        await made["US"].node("nyc-1")
        await made.settled()
        yield made


@pytest.mark.slow
async def test_permits_say_what_was_decided(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    placed = await clinic.place(CONFIDENTIAL)
    assert {target.node for target in placed.targets} == {
        str(mesh["DE"].id("/node/fra-1")),
        str(mesh["FR"].id("/node/par-1")),
    }
    for ranked, target in zip(placed.decision.ranked, placed.targets, strict=True):
        assert ranked.node == target.node
        statement = open_envelope(
            target.permit.SerializeToString(), node.runtime.board.snapshot.bundles, mesh.clock()
        )
        permit = codec.permit_from_payload(statement.payload)
        assert (permit.caller, str(permit.node), permit.context_digest) == (
            clinic.id,
            target.node,
            CONFIDENTIAL.digest,
        )
        assert statement.signer == node.id
        assert permit.decision_id == placed.decision.id
    entry = node.entries[-1]
    assert entry["kind"] == "place"
    assert entry["caller"] == str(clinic.id)
    assert entry["decision"]["id"] == placed.decision.id
    assert {each["reason"] for each in entry["decision"]["refused"]} == {Reason.POLICY_SENDER_DENIES.code}
    assert set(entry["decision"]["policies"]) >= {"de.mesh.example", "fr.mesh.example"}


@pytest.mark.slow
async def test_a_refusal_is_an_answer(mesh: Mesh):
    clinic = mesh["DE"].caller("clinic")
    placed = await clinic.place(context(["special-category"], allowed_jurisdictions=["US"]))
    assert not placed.decision.permitted
    assert not placed.targets
    assert {refusal.node for refusal in placed.decision.refused} == {str(node.id) for node in mesh.nodes}
    assert all(refusal.detail for refusal in placed.decision.refused)


@pytest.mark.slow
async def test_a_search_is_placed_at_home_and_its_permit_names_the_collection(mesh: Mesh):
    """A collection that is called like a model is no model."""
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    placed = await clinic.place(PUBLIC, action=Action.SEARCH, model="scripted")
    assert [ranked.node for ranked in placed.decision.ranked] == [str(node.id)]
    assert placed.decision.considered == 1
    (target,) = placed.targets
    assert target.model_digest == ""
    assert target.endpoints
    statement = open_envelope(
        target.permit.SerializeToString(), node.runtime.board.snapshot.bundles, mesh.clock()
    )
    permit = codec.permit_from_payload(statement.payload)
    assert (permit.action, permit.model, permit.caller) == (Action.SEARCH, "scripted", clinic.id)
    offers = codec.offers_from_pb(placed.targets)
    (permitted,) = permitted_targets(codec.decision_from_pb(placed.decision), offers)
    assert permitted.node == node.id
    # Nobody else's node asks on a foreign client's behalf.
    visitor = mesh["FR"].caller("firm")
    refused = await visitor.place(PUBLIC, action=Action.SEARCH, model="papers", at=node)
    assert not refused.decision.permitted
    assert {each.reason for each in refused.decision.refused} == {Reason.PLACER_NOT_ENTITLED.code}


@pytest.mark.slow
async def test_a_foreign_caller_gets_this_authoritys_nodes_only(mesh: Mesh):
    visitor = mesh["FR"].caller("firm")
    placed = await visitor.place(PUBLIC, at=mesh["DE"].nodes["fra-1"])
    assert {ranked.node for ranked in placed.decision.ranked} <= {str(mesh["DE"].id("/node/fra-1"))}
    reasons = {refusal.node: refusal.reason for refusal in placed.decision.refused}
    assert reasons == {str(mesh["FR"].id("/node/par-1")): Reason.PLACER_NOT_ENTITLED.code}
    # third parties' nodes and policies are not this authority's to tell, and are counted and recorded only
    assert placed.decision.refused_total == 2
    assert set(placed.decision.policy_digests) == {"de.mesh.example", "fr.mesh.example"}
    told = placed.SerializeToString()
    assert b"us.mesh.example" not in told
    logged = mesh["DE"].nodes["fra-1"].entries[-1]["decision"]["refused"]
    assert str(mesh["US"].id("/node/nyc-1")) in {each["node"] for each in logged}


@pytest.mark.slow
async def test_nobodys_questions_take_more_than_their_share(mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """A caller that always asks something new cannot keep others waiting; a flood is not even recorded."""
    monkeypatch.setattr(pace, "BURST_S", 0.0)
    node, busy = mesh["DE"].nodes["fra-1"], mesh["DE"].caller("busy/desk-1")
    await busy.place(PUBLIC)
    monkeypatch.setattr(pace, "SHARE", 0.0001)  # from now on, next to nothing flows off
    recorded = len(node.entries)
    for same in (busy, mesh["DE"].caller("busy/desk-2")):
        with pytest.raises(MeshError) as caught:
            await same.place(PUBLIC)
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.retry_after_s
    assert len(node.entries) == recorded
    assert (await mesh["DE"].caller("clinic").place(PUBLIC)).decision.permitted
    # one share for all tenants of another authority
    assert (await mesh["FR"].caller("firm-1").place(PUBLIC, at=node)).decision.permitted
    with pytest.raises(MeshError) as caught:
        await mesh["FR"].caller("firm-2").place(PUBLIC, at=node)
    assert caught.value.reason is Reason.OVERLOADED


@pytest.mark.slow
async def test_an_administrator_is_told_but_gets_no_permits(mesh: Mesh):
    admin = mesh["DE"].caller("/admin/root")
    placed = await admin.place(PUBLIC, explain=True)
    assert len(placed.decision.ranked) + len(placed.decision.refused) == 3
    assert not placed.targets
    with pytest.raises(MeshError) as caught:
        await mesh["FR"].caller("/admin/root").place(PUBLIC, at=mesh["DE"].nodes["fra-1"])
    assert caught.value.reason is Reason.IDENTITY_NOT_ALLOWED


@pytest.mark.slow
async def test_what_is_wrong_with_a_question_is_named_and_recorded(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    cases = [
        (clinic.place(PUBLIC, model="m" * 129), Reason.REQUEST_INVALID),
        (clinic.place(PUBLIC, model="m" * 70_000), Reason.REQUEST_TOO_LARGE),
        (clinic.place(PUBLIC, excluded=[node.id] * 65), Reason.REQUEST_INVALID),
        (clinic.place(context(["public"], tenant="firm")), Reason.TENANT_MISMATCH),
    ]
    for asking, reason in cases:
        with pytest.raises(MeshError) as caught:
            await asking
        assert caught.value.reason is reason
        assert node.entries[-1]["refused"] == reason.code


@pytest.mark.slow
async def test_an_excluded_node_is_left_out_and_said_so(mesh: Mesh):
    clinic, home = mesh["DE"].caller("clinic"), mesh["DE"].id("/node/fra-1")
    placed = await clinic.place(CONFIDENTIAL, excluded=[home])
    assert placed.decision.chosen == str(mesh["FR"].id("/node/par-1"))
    reasons = {refusal.node: refusal.reason for refusal in placed.decision.refused}
    assert reasons[str(home)] == Reason.NODE_EXCLUDED.code


@pytest.mark.slow
async def test_sixteen_at_once_are_spread(mesh: Mesh):
    """What was just promised counts, though no status shows it yet."""
    clinic = mesh["DE"].caller("clinic")
    placed = await asyncio.gather(*(clinic.place(CONFIDENTIAL) for _ in range(16)))
    chosen = [answer.decision.chosen for answer in placed]
    assert {chosen.count(node) for node in set(chosen)} == {8}
    assert all(len(answer.targets) <= MAX_PERMITS for answer in placed)


@pytest.mark.slow
async def test_a_pooled_channel_changes_with_the_certificate_and_drops_no_call(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    pool = ChannelPool(clinic.source, limit=2)
    name = "fra-1.node.de.mesh.example"

    def channel(endpoint: str = node.endpoint) -> object:
        return pool.channel(endpoint, dns_name=name, trust_domain="de.mesh.example")

    try:
        first = channel()
        assert channel() is first
        request = clinic.chat_request(PUBLIC, clinic.permit(node, PUBLIC), max_tokens=30, ignore_eos=True)
        stream = Stream(inference_pb2_grpc.InferenceStub(first).Chat(request))
        await stream.until_token()
        clinic.source.rotate(mesh["DE"].identity.svid(clinic.id.path))
        await asyncio.sleep(0)  # the change is taken up on the loop's next turn
        second = channel()
        assert second is not first
        assert await inference_pb2_grpc.InferenceStub(second).ListModels(inference_pb2.ListModelsRequest())
        while (event := await stream.next()) is not None:
            last = event
        assert last.finished.completion_tokens == 30
        # no more than the limit, the least recently used going first
        channel("127.0.0.1:1")
        assert channel() is second
        channel("127.0.0.1:2")
        assert channel() is second
        pool.drop(node.endpoint)
        assert channel() is not second
        with pytest.raises(MeshError) as caught:
            pool.channel("127.0.0.1:3", dns_name="x.node.xx.mesh.example", trust_domain="xx.mesh.example")
        assert caught.value.reason is Reason.IDENTITY_UNTRUSTED
    finally:
        await pool.aclose()
