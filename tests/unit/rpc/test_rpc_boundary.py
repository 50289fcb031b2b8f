"""What leaves a servicer is a MeshError's status, or nothing that tells anything (I1)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.rpc.server import MeshServer
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    placement_pb2,
    placement_pb2_grpc,
)
from tests.support.logged import errors_in

SECRET = "photophobia"


class Placement(placement_pb2_grpc.PlacementServicer):
    async def Place(self, request: placement_pb2.PlaceRequest, context: Any) -> placement_pb2.PlaceResponse:
        if request.model == "refuse":
            raise MeshError(Reason.OVERLOADED, "busy", {"queue": "full"}, 1.5)
        if request.model == "break":
            raise ValueError(f"cannot handle {SECRET}")
        return placement_pb2.PlaceResponse()


class Inference(inference_pb2_grpc.InferenceServicer):
    async def Chat(self, request: inference_pb2.ChatRequest, context: Any) -> None:
        """In the reader-writer style."""
        await context.write(inference_pb2.ChatResponse())
        raise ValueError(SECRET)

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncIterator[inference_pb2.CompleteResponse]:
        """As a generator."""
        yield inference_pb2.CompleteResponse()
        raise MeshError(Reason.ENGINE_FAILED, "died")


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = MeshServer(grpc.ssl_server_credentials([(b"", b"")]), new_id=lambda: "incident-7")
    server.add(placement_pb2_grpc.add_PlacementServicer_to_server, Placement(), "sovereign.mesh.v1.Placement")
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, Inference(), "sovereign.mesh.v1.Inference")
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(0)


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def refusal_of_stream(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return from_rpc_error(caught.value, began=True)


async def test_a_mesh_error_arrives_whole(channel: grpc.aio.Channel):
    stub: Any = placement_pb2_grpc.PlacementStub(channel)
    error = await refusal(stub.Place(placement_pb2.PlaceRequest(model="refuse")))
    assert (error.reason, error.message, error.metadata, error.retry_after_s) == (
        Reason.OVERLOADED,
        "busy",
        {"queue": "full"},
        1.5,
    )


async def test_anything_else_is_an_incident_without_its_words(
    channel: grpc.aio.Channel, written: io.StringIO
):
    stub: Any = placement_pb2_grpc.PlacementStub(channel)
    error = await refusal(stub.Place(placement_pb2.PlaceRequest(model="break")))
    assert error.reason is Reason.INTERNAL
    assert error.metadata == {"incident": "incident-7"}
    stub = inference_pb2_grpc.InferenceStub(channel)
    error = await refusal_of_stream(stub.Chat(inference_pb2.ChatRequest()))
    assert error.reason is Reason.INTERNAL
    assert SECRET not in written.getvalue()
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    incidents = [line["message"] for line in told if "incident-7" in line["message"]]
    assert len(incidents) == 2
    assert all("ValueError" in message and "test_rpc_boundary.py" in message for message in incidents)


async def test_a_generator_is_held_to_it_as_well(channel: grpc.aio.Channel):
    stub: Any = inference_pb2_grpc.InferenceStub(channel)
    error = await refusal_of_stream(stub.Complete(inference_pb2.CompleteRequest()))
    assert error.reason is Reason.ENGINE_FAILED


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x0a\x05ab", b"\x1a\xff\xff\xff\xff\x0f"])
async def test_what_does_not_parse_is_the_callers_mistake(channel: grpc.aio.Channel, garbage: bytes):
    raw = channel.unary_unary("/sovereign.mesh.v1.Placement/Place")
    assert (await refusal(raw(garbage))).reason is Reason.REQUEST_INVALID


async def test_a_method_that_is_not_there(channel: grpc.aio.Channel):
    raw = channel.unary_unary("/sovereign.mesh.v1.Placement/Displace")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_caller_that_leaves_is_no_incident(channel: grpc.aio.Channel, written: io.StringIO):
    stub: Any = inference_pb2_grpc.InferenceStub(channel)
    for _ in range(20):
        call = stub.Complete(inference_pb2.CompleteRequest())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            async for _ in call:
                pass
    assert errors_in(written) == []
