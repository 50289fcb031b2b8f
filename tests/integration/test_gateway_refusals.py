"""What a node refuses before its engine sees anything (I2, I3, I4), and that nothing of it is told (I1)."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import context_pb2, inference_pb2
from tests.support.mesh import Caller, Mesh, Node, context, mesh_of

PROMPT = "Patient Wilhelmine Zufallsname complains of photophobia"
SECRETS = [word for word in PROMPT.split() if len(word) > 3]
CLINICAL = context(["special-category"])
PUBLIC = context(["public"])


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "US") as made:
        await made["DE"].node("fra-1")
        await made["US"].node("nyc-1")
        yield made


def de(mesh: Mesh) -> Node:
    return mesh["DE"].nodes["fra-1"]


def us(mesh: Mesh) -> Node:
    return mesh["US"].nodes["nyc-1"]


def entry_of(node: Node) -> dict[str, Any]:
    return next(entry for entry in reversed(node.entries) if entry["kind"] == "serve")


def check_nothing_was_told(node: Node, written: io.StringIO, reason: Reason) -> None:
    """The engine saw nothing, the refusal is on record (I7), no word of the prompt is anywhere (I1)."""
    assert node.engine.seen == 0
    entry = entry_of(node)
    assert (entry["outcome"], entry["reason"]) == ("refused", reason.code)
    told = written.getvalue() + json.dumps(node.entries)
    assert not [word for word in SECRETS if word in told]


Permits = Callable[[Mesh, Caller], bytes | None]


def _other_signer(mesh: Mesh, clinic: Caller) -> bytes:
    client = mesh["DE"].caller("clinic").source
    return clinic.permit(us(mesh), PUBLIC, by=client)


def _corrupted(mesh: Mesh, clinic: Caller) -> bytes:
    envelope = codec.envelope_from_bytes(clinic.permit(us(mesh), PUBLIC))
    envelope.statement = envelope.statement[:-1] + bytes([envelope.statement[-1] ^ 1])
    return envelope.SerializeToString()


BAD_PERMITS: dict[str, tuple[Permits, Reason]] = {
    "none": (lambda mesh, clinic: None, Reason.PERMIT_MISSING),
    "for another node": (lambda mesh, clinic: clinic.permit(de(mesh), PUBLIC), Reason.PERMIT_WRONG_NODE),
    "expired": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, issued_at=mesh.clock() - 61),
        Reason.PERMIT_EXPIRED,
    ),
    "two minutes ahead": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, issued_at=mesh.clock() + 120),
        Reason.PERMIT_NOT_YET_VALID,
    ),
    "changed context": (
        lambda mesh, clinic: clinic.permit(us(mesh), context(["public"], "care/other")),
        Reason.PERMIT_WRONG_CONTEXT,
    ),
    "another caller's": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, caller=mesh["DE"].id("/client/firm")),
        Reason.PERMIT_WRONG_CALLER,
    ),
    "another action": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, action=Action.EMBED),
        Reason.PERMIT_WRONG_ACTION,
    ),
    "another model": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, model="other"),
        Reason.PERMIT_WRONG_MODEL,
    ),
    "signed by a client": (_other_signer, Reason.PERMIT_WRONG_SIGNER),
    "corrupted": (_corrupted, Reason.PERMIT_MALFORMED),
    "good for an hour": (
        lambda mesh, clinic: clinic.permit(us(mesh), PUBLIC, ttl_s=3600),
        Reason.PERMIT_MALFORMED,
    ),
}


@pytest.mark.slow
async def test_each_bad_permit_has_its_own_reason(mesh: Mesh, written: io.StringIO):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    for name, (make, reason) in BAD_PERMITS.items():
        with pytest.raises(MeshError) as caught:
            await clinic.send(node, clinic.chat_request(PUBLIC, make(mesh, clinic), PROMPT))
        assert caught.value.reason is reason, name
        check_nothing_was_told(node, written, reason)
        assert entry_of(node)["permit_outcome"] == reason.code, name


@pytest.mark.slow
async def test_both_answers_are_recorded_and_the_permits_is_given(mesh: Mesh):
    """The context was changed after placement: permit and policy both refuse."""
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    with pytest.raises(MeshError) as caught:
        await clinic.send(node, clinic.chat_request(CLINICAL, clinic.permit(node, PUBLIC), PROMPT))
    assert caught.value.reason is Reason.PERMIT_WRONG_CONTEXT
    entry = entry_of(node)
    assert entry["permit_outcome"] == Reason.PERMIT_WRONG_CONTEXT.code
    assert entry["decision"]["permitted"] is False
    assert entry["decision"]["refused"][0]["reason"] == Reason.POLICY_SENDER_DENIES.code


@pytest.mark.slow
async def test_a_placer_that_errs_is_not_believed(mesh: Mesh, written: io.StringIO):
    """I2, I3: a well-formed permit of the caller's own node does not outweigh the policies."""
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, CLINICAL, PROMPT)
    assert caught.value.reason is Reason.POLICY_SENDER_DENIES
    assert caught.value.metadata["decision"] == entry_of(node)["id"]
    check_nothing_was_told(node, written, Reason.POLICY_SENDER_DENIES)


@pytest.mark.slow
async def test_a_permit_is_good_once(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    permit = clinic.permit(node, PUBLIC)
    await clinic.chat(node, PUBLIC, permit=permit)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, permit=permit)
    assert caught.value.reason is Reason.PERMIT_REPLAYED
    assert node.engine.seen == 1


@pytest.mark.slow
async def test_a_permit_of_a_revoked_placer_is_worth_nothing(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    permit = clinic.permit(node, PUBLIC)
    await mesh["DE"].revoke(de(mesh).id)
    await mesh.settled(node)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, permit=permit)
    assert caught.value.reason is Reason.PERMIT_WRONG_SIGNER


@pytest.mark.slow
async def test_narrowing_holds_at_the_receiver(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, context(["public"], allowed_jurisdictions=["DE"]))
    assert caught.value.reason is Reason.NARROWED_JURISDICTION


Change = Callable[[inference_pb2.ChatRequest], None]


def _grow(request: inference_pb2.ChatRequest, size: int) -> None:
    request.messages[0].content = "x" * size


BAD_REQUESTS: dict[str, tuple[Change, Reason]] = {
    "a little over 1 MiB": (lambda r: _grow(r, 1024 * 1024), Reason.REQUEST_TOO_LARGE),
    "3 MiB": (lambda r: _grow(r, 3 * 1024 * 1024), Reason.REQUEST_TOO_LARGE),
    "no messages": (lambda r: r.ClearField("messages"), Reason.REQUEST_INVALID),
    "257 messages": (
        lambda r: r.messages.extend([inference_pb2.ChatMessage(role="user")] * 256),
        Reason.REQUEST_INVALID,
    ),
    "unknown role": (lambda r: setattr(r.messages[0], "role", "root"), Reason.REQUEST_INVALID),
    "model name": (lambda r: setattr(r, "model", "m" * 129), Reason.REQUEST_INVALID),
    "too many tokens": (lambda r: setattr(r.sampling, "max_tokens", 8193), Reason.REQUEST_INVALID),
    "temperature": (lambda r: setattr(r.sampling, "temperature", 2.1), Reason.REQUEST_INVALID),
    "temperature NaN": (lambda r: setattr(r.sampling, "temperature", float("nan")), Reason.REQUEST_INVALID),
    "top_p": (lambda r: setattr(r.sampling, "top_p", -0.1), Reason.REQUEST_INVALID),
    "nine stops": (lambda r: r.sampling.stop.extend(["a"] * 9), Reason.REQUEST_INVALID),
    "an empty stop": (lambda r: r.sampling.stop.append(""), Reason.REQUEST_INVALID),
    "no context": (lambda r: r.admission.ClearField("context"), Reason.DATA_CLASS_MISSING),
    "unknown class": (
        lambda r: r.admission.context.data_classes.append("secret"),
        Reason.DATA_CLASS_UNKNOWN,
    ),
    "purpose": (lambda r: setattr(r.admission.context, "purpose", "Care Of"), Reason.CONTEXT_INVALID),
    "lower-case country": (
        lambda r: r.admission.context.narrowing.allowed_jurisdictions.append("de"),
        Reason.COUNTRY_UNKNOWN,
    ),
    "unassigned country": (
        lambda r: r.admission.context.narrowing.allowed_jurisdictions.append("XX"),
        Reason.COUNTRY_UNKNOWN,
    ),
    "another tenant": (
        lambda r: r.admission.context.CopyFrom(
            context_pb2.RequestContext(data_classes=["public"], purpose="care/triage", tenant="firm")
        ),
        Reason.TENANT_MISMATCH,
    ),
}


@pytest.mark.slow
async def test_each_bad_request_has_its_reason(mesh: Mesh, written: io.StringIO):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    for name, (change, reason) in BAD_REQUESTS.items():
        request = clinic.chat_request(PUBLIC, clinic.permit(node, PUBLIC), PROMPT)
        change(request)
        with pytest.raises(MeshError) as caught:
            await clinic.send(node, request)
        assert caught.value.reason is reason, name
        if name != "3 MiB":  # which the transport refuses before anybody could record it
            check_nothing_was_told(node, written, reason)


@pytest.mark.slow
async def test_what_is_no_request_at_all_is_refused(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    raw = clinic.channel(node).unary_stream("/sovereign.mesh.v1.Inference/Chat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in raw(b"\x0a\xff\xff\xff"):
            pass
    assert from_rpc_error(caught.value).reason is Reason.REQUEST_INVALID


@pytest.mark.slow
async def test_a_model_that_nobody_serves_here(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, model="gpt-9", permit=clinic.permit(node, PUBLIC, model="gpt-9"))
    assert caught.value.reason is Reason.MODEL_NOT_SERVED
    # the embedder is there, but it cannot chat
    embedder = "scripted-embedding"
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, model=embedder, permit=clinic.permit(node, PUBLIC, model=embedder))
    assert caught.value.reason is Reason.MODEL_NOT_SERVED
    assert node.engine.seen == 0


@pytest.mark.slow
async def test_a_prompt_that_does_not_fit(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), us(mesh)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, "word " * 5000)
    assert caught.value.reason is Reason.PROMPT_TOO_LONG


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/admin/root", "/node/fra-2", "/control/main"])
async def test_only_clients_may_send_payload(mesh: Mesh, path: str):
    somebody, node = mesh["DE"].caller(path), de(mesh)
    with pytest.raises(MeshError) as caught:
        await somebody.chat(node, PUBLIC)
    assert caught.value.reason is Reason.IDENTITY_NOT_ALLOWED
    assert node.engine.seen == 0


@pytest.mark.slow
async def test_revoked_by_name_or_by_serial(mesh: Mesh):
    by_name, by_serial = mesh["DE"].caller("clinic"), mesh["DE"].caller("firm")
    again = mesh["DE"].caller("firm")
    await mesh["DE"].revoke(by_name.id, serials=[by_serial.source.svid.serial])
    await mesh.settled(de(mesh))
    for caller in (by_name, by_serial):
        with pytest.raises(MeshError) as caught:
            await caller.chat(de(mesh), PUBLIC)
        assert caught.value.reason is Reason.IDENTITY_REVOKED
        with pytest.raises(MeshError) as caught:
            await caller.place(PUBLIC)
        assert caught.value.reason is Reason.IDENTITY_REVOKED
    assert de(mesh).engine.seen == 0
    assert await again.chat(de(mesh), PUBLIC)


@pytest.mark.slow
async def test_a_cordoned_node_takes_nothing_new(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), de(mesh)
    await mesh["DE"].state_facts("fra-1", cordoned=True)
    await mesh.settled(node)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC)
    assert caught.value.reason is Reason.NODE_CORDONED


@pytest.mark.slow
async def test_stale_records_stop_what_crosses_the_border_and_nothing_else_i4(tmp_path: Path):
    import time

    ahead = [0.0]
    async with mesh_of(tmp_path, "DE", "US", clock=lambda: time.time() + ahead[0]) as mesh:
        home, away = await mesh["DE"].node("fra-1"), await mesh["US"].node("nyc-1")
        clinic = mesh["DE"].caller("clinic")
        await mesh.settled()
        assert await clinic.chat(away, PUBLIC)
        ahead[0] = 90.0  # nobody has signed heads since
        with pytest.raises(MeshError) as caught:
            await clinic.chat(away, PUBLIC)
        assert caught.value.reason is Reason.RECORDS_STALE
        assert await clinic.chat(home, CLINICAL)
        for authority in mesh.authorities.values():
            await authority.sign_heads()
        await mesh.settled()
        assert await clinic.chat(away, PUBLIC)
