"""Every call is counted once, by the code that its caller got, and nothing that a caller invents is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.core.errors import MeshError, Reason
from mesh.rpc.observed import ObservedChannel
from mesh.rpc.server import MeshServer
from mesh.telemetry.instruments import Instruments
from mesh.telemetry.meters import CallMeter
from mesh.telemetry.metrics import NODE
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc, placement_pb2, placement_pb2_grpc
from tests.support.scraping import Page, page_of
from tests.support.waiting import DEADLINE_S, until

PLACEMENT, INFERENCE = "sovereign.mesh.v1.Placement", "sovereign.mesh.v1.Inference"


class Placement(placement_pb2_grpc.PlacementServicer):
    async def Place(self, request: placement_pb2.PlaceRequest, context: Any) -> placement_pb2.PlaceResponse:
        if request.model == "refuse":
            raise MeshError(Reason.OVERLOADED, "busy")
        if request.model == "break":
            raise ValueError("photophobia")
        if request.model == "wait":
            await asyncio.Event().wait()
        return placement_pb2.PlaceResponse()


class Inference(inference_pb2_grpc.InferenceServicer):
    async def Chat(self, request: inference_pb2.ChatRequest, context: Any) -> None:
        """In the reader-writer style."""
        await context.write(inference_pb2.ChatResponse())
        if request.model == "wait":
            await asyncio.Event().wait()
        if request.model == "refuse":
            raise MeshError(Reason.ENGINE_FAILED, "died")

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncIterator[inference_pb2.CompleteResponse]:
        """As a generator."""
        yield inference_pb2.CompleteResponse()
        if request.model == "wait":
            await asyncio.Event().wait()
        if request.model == "refuse":
            raise MeshError(Reason.ENGINE_FAILED, "died")


@dataclass
class Setup:
    """A server that is observed, and a client's channel to it that is observed as well."""

    made: Instruments
    channel: Any
    raw: grpc.aio.Channel

    @property
    def page(self) -> Page:
        return page_of(self.made.registry)

    @property
    def placement(self) -> Any:
        return placement_pb2_grpc.PlacementStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def inference(self) -> Any:
        return inference_pb2_grpc.InferenceStub(self.channel)  # type: ignore[no-untyped-call]

    def handled(self, service: str, method: str, code: str, side: str = "rpc") -> float:
        name = f"sovereign_mesh_{side}_handled_total"
        return self.page.value(name, service=service, method=method, code=code)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Instruments(NODE)
    meter = CallMeter(made)
    server = MeshServer(grpc.ssl_server_credentials([(b"", b"")]), new_id=lambda: "1", observer=meter)
    server.add(placement_pb2_grpc.add_PlacementServicer_to_server, Placement(), PLACEMENT)
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, Inference(), INFERENCE)
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as raw:
        channel: Any = ObservedChannel(raw, meter, time.monotonic)
        yield Setup(made, channel, raw)
    await server.stop(0)


async def ended_with(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_what_went_well(setup: Setup):
    await setup.placement.Place(placement_pb2.PlaceRequest())
    assert [event async for event in setup.inference.Chat(inference_pb2.ChatRequest())]
    assert [event async for event in setup.inference.Complete(inference_pb2.CompleteRequest())]
    for service, method in ((PLACEMENT, "Place"), (INFERENCE, "Chat"), (INFERENCE, "Complete")):
        await until(lambda s=service, m=method: setup.handled(s, m, "OK") == 1)
        await until(lambda s=service, m=method: setup.handled(s, m, "OK", "rpc_client") == 1)
        labels = {"service": service, "method": method}
        assert setup.page.value("sovereign_mesh_rpc_started_total", **labels) == 1
        assert setup.page.value("sovereign_mesh_rpc_in_flight", **labels) == 0
        assert setup.page.value("sovereign_mesh_rpc_duration_seconds_count", **labels) == 1
        assert 0 < setup.page.value("sovereign_mesh_rpc_duration_seconds_sum", **labels) < DEADLINE_S
    assert not setup.page.all("sovereign_mesh_refusals_total")


async def test_refusals_have_a_code_and_a_reason(setup: Setup):
    await ended_with(setup.placement.Place(placement_pb2.PlaceRequest(model="refuse")))
    await ended_with(setup.placement.Place(placement_pb2.PlaceRequest(model="break")))
    for call in (
        setup.inference.Chat(inference_pb2.ChatRequest(model="refuse")),
        setup.inference.Complete(inference_pb2.CompleteRequest(model="refuse")),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
    for service, method, code, reason in (
        (PLACEMENT, "Place", "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (PLACEMENT, "Place", "INTERNAL", "INTERNAL"),
        (INFERENCE, "Chat", "UNAVAILABLE", "ENGINE_FAILED"),
        (INFERENCE, "Complete", "UNAVAILABLE", "ENGINE_FAILED"),
    ):
        await until(lambda s=service, m=method, c=code: setup.handled(s, m, c) == 1)
        await until(lambda s=service, m=method, c=code: setup.handled(s, m, c, "rpc_client") == 1)
        labels = {"service": service, "method": method, "reason": reason}
        assert setup.page.value("sovereign_mesh_refusals_total", **labels) == 1


@pytest.mark.slow
async def test_callers_that_leave_and_callers_whose_time_is_up(setup: Setup):
    # Reads one message first where there is one: then the call has begun for sure.
    chat = setup.inference.Chat(inference_pb2.ChatRequest(model="wait"))
    generated = setup.inference.Complete(inference_pb2.CompleteRequest(model="wait"))
    for call in (chat, generated):
        await call.read()
    for method in ("Chat", "Complete"):
        assert setup.page.value("sovereign_mesh_rpc_in_flight", method=method) == 1
    for call in (chat, generated):
        call.cancel()
    for method in ("Chat", "Complete"):
        await until(lambda m=method: setup.handled(INFERENCE, m, "CANCELLED") == 1)
        await until(lambda m=method: setup.handled(INFERENCE, m, "CANCELLED", "rpc_client") == 1)
        assert setup.page.value("sovereign_mesh_rpc_in_flight", method=method) == 0
    late = setup.placement.Place(placement_pb2.PlaceRequest(model="wait"), timeout=0.2)
    assert await ended_with(late) is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: setup.handled(PLACEMENT, "Place", "DEADLINE_EXCEEDED") == 1)
    assert setup.handled(PLACEMENT, "Place", "DEADLINE_EXCEEDED", "rpc_client") == 1
    assert not setup.page.all("sovereign_mesh_refusals_total")


@pytest.mark.slow
async def test_invented_methods_make_one_series(setup: Setup):
    invented = setup.raw.unary_unary("/sovereign.mesh.v1.Placement/Displace")
    assert await ended_with(invented(b"")) is grpc.StatusCode.UNIMPLEMENTED
    series = setup.page.series

    async def invent(number: int) -> None:
        for path in (
            f"/sovereign.mesh.v1.Placement/M{number}",
            f"/tenant-{number}.Service/Chat",
            f"/{number}",
        ):
            await ended_with(setup.raw.unary_unary(path)(b""))

    for start in range(0, 1000, 50):
        await asyncio.gather(*(invent(number) for number in range(start, start + 50)))
    assert setup.page.series == series
    assert setup.handled("other", "other", "UNIMPLEMENTED") == 3001


async def test_services_of_grpc_itself_are_counted_as_well(setup: Setup):
    stub: Any = health_pb2_grpc.HealthStub(setup.raw)  # type: ignore[no-untyped-call]
    await stub.Check(health_pb2.HealthCheckRequest())
    await until(lambda: setup.handled("grpc.health.v1.Health", "Check", "OK") == 1)


async def test_a_peer_that_is_not_there(setup: Setup):
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nobody:
        channel: Any = ObservedChannel(nobody, CallMeter(other := Instruments(NODE)), time.monotonic)
        stub: Any = placement_pb2_grpc.PlacementStub(channel)  # type: ignore[no-untyped-call]
        assert await ended_with(stub.Place(placement_pb2.PlaceRequest())) is grpc.StatusCode.UNAVAILABLE
        assert channel.get_state() is not grpc.ChannelConnectivity.READY
    name = "sovereign_mesh_rpc_client_handled_total"
    await until(lambda: page_of(other.registry).value(name, code="UNAVAILABLE", method="Place") == 1)
