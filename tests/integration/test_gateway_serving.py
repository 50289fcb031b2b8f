"""A node serves what both sides permit: streams, embeddings, models, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from mesh import codec
from mesh.core.errors import Reason
from mesh.core.types import Action
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import inference_pb2
from tests.support.mesh import Mesh, context, mesh_of


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR", "US") as made:
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "nyc-1")):
            await made[country].node(name)
        yield made


@pytest.mark.slow
async def test_placed_then_served(mesh: Mesh):
    clinic = mesh["DE"].caller("clinic")
    asked = context(["special-category"])
    placed = await clinic.place(asked)
    node = mesh["DE"].nodes["fra-1"]
    assert placed.decision.chosen == str(node.id)
    permit = placed.targets[0].permit.SerializeToString()
    events = await clinic.send(node, clinic.chat_request(asked, permit, max_tokens=3))
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        "delta",
        "delta",
        "delta",
        "finished",
    ]
    assert events[0].started.node == str(node.id)
    assert events[-1].finished.completion_tokens == 3
    assert node.engine.finished == 1


@pytest.mark.slow
async def test_completing_and_going_on_where_a_stream_broke_off(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    asked = context(["special-category"])

    async def complete(resume_text: str, tokens: int) -> str:
        permit = codec.envelope_from_bytes(clinic.permit(node, asked))
        request = inference_pb2.CompleteRequest(
            admission=inference_pb2.Admission(permit=permit, context=codec.context_to_pb(asked)),
            model="scripted",
            prompt="once upon a time",
            sampling=inference_pb2.Sampling(max_tokens=tokens),
            resume_text=resume_text,
        )
        return "".join([event.delta.text async for event in clinic.inference(node).Complete(request)])

    whole = await complete("", 8)
    first = await complete("", 3)
    assert whole == first + await complete(first, 5)


@pytest.mark.slow
async def test_embeddings(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    asked = context(["special-category"])

    def request(*texts: str, permit_for: Action = Action.EMBED) -> inference_pb2.EmbedRequest:
        permit = clinic.permit(node, asked, action=permit_for, model="")
        admission = inference_pb2.Admission(
            permit=codec.envelope_from_bytes(permit), context=codec.context_to_pb(asked)
        )
        return inference_pb2.EmbedRequest(admission=admission, texts=texts)

    answer = await clinic.inference(node).Embed(request("headache", "fever"))
    assert len(answer.embeddings) == 2
    assert sum(value**2 for value in answer.embeddings[0].values) == pytest.approx(1, abs=1e-5)
    assert (answer.node, answer.model_digest) == (str(node.id), node.engine.models[1].digest)
    for bad, reason in (
        (request(), Reason.REQUEST_INVALID),
        (request(*["x"] * 257), Reason.REQUEST_INVALID),
        (request("x", permit_for=Action.INFER), Reason.PERMIT_WRONG_ACTION),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clinic.inference(node).Embed(bad)
        assert from_rpc_error(caught.value).reason is reason
    assert node.engine.seen == 1


@pytest.mark.slow
async def test_no_model_named_means_the_one_that_can(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    asked = context(["special-category"])
    assert await clinic.chat(node, asked, permit=clinic.permit(node, asked, model=""), model="")
    served = [entry for entry in node.entries if entry.get("outcome") == "served"]
    assert served[-1]["model_digest"] == node.engine.models[0].digest


@pytest.mark.slow
async def test_sixteen_streams_at_once_say_what_one_says(mesh: Mesh):
    clinic, node = mesh["DE"].caller("clinic"), mesh["DE"].nodes["fra-1"]
    asked = context(["special-category"])
    alone = await clinic.chat(node, asked, max_tokens=40)
    texts = await asyncio.gather(*(clinic.chat(node, asked, max_tokens=40) for _ in range(16)))
    assert set(texts) == {alone}
    assert node.engine.active == 0
