"""Every call has one id, in the log, in the error that its caller gets, and in what is decided about it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.rpc import call_telemetry
from mesh.rpc.server import MeshServer
from mesh.rpc.status import REQUEST_ID_KEY, from_rpc_error
from mesh.telemetry import calls, spans
from mesh.telemetry.calls import claim_id
from mesh.telemetry.line_budget import LineBudget
from mesh.telemetry.tracing import TRACEPARENT, Tracing
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc, placement_pb2, placement_pb2_grpc
from tests.support.collector import collector
from tests.support.waiting import until
from tests.unit.telemetry.test_tracing import NODE, PARENT, UNRECORDED

SECRET = "photophobia"
PLACE = "sovereign.mesh.v1.Placement/Place"
_LOG = logging.getLogger("servicer")


def ids() -> Any:
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):08d}-0000-7000-8000-000000000000"


class Placement(placement_pb2_grpc.PlacementServicer):
    """Says what it sees of the call, and does what the model's name says."""

    def __init__(self) -> None:
        self.new_id = ids()
        self.decided: list[str] = []
        self.background: list[asyncio.Task[None]] = []
        self.goes_on = asyncio.Event()

    async def Place(self, request: placement_pb2.PlaceRequest, context: Any) -> placement_pb2.PlaceResponse:
        _LOG.info("deciding")
        self.decided += [claim_id(lambda: "another"), claim_id(lambda: "another")]
        await asyncio.to_thread(_LOG.info, "in a thread")
        self.background.append(asyncio.create_task(self._later()))
        if request.model == "refuse":
            raise MeshError(Reason.NOT_PERMITTED, SECRET)
        if request.model == "break":
            raise ValueError(SECRET)
        if request.model == "wait":
            await asyncio.Event().wait()
        return placement_pb2.PlaceResponse()

    async def _later(self) -> None:
        _LOG.info("beside")
        await self.goes_on.wait()
        _LOG.info("afterwards")


class Inference(inference_pb2_grpc.InferenceServicer):
    async def Chat(self, request: inference_pb2.ChatRequest, context: Any) -> None:
        await context.write(inference_pb2.ChatResponse())
        _LOG.info("between two answers")
        await context.write(inference_pb2.ChatResponse())

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncIterator[inference_pb2.CompleteResponse]:
        """As a generator: what is logged in it belongs to its call as well."""
        yield inference_pb2.CompleteResponse()
        _LOG.info("between two answers")
        yield inference_pb2.CompleteResponse()
        raise MeshError(Reason.ENGINE_FAILED, "died")


class There:
    """A server, and what it wrote."""

    def __init__(self, channel: grpc.aio.Channel, placement: Placement, written: io.StringIO) -> None:
        self.place: Any = placement_pb2_grpc.PlacementStub(channel).Place
        self.inference: Any = inference_pb2_grpc.InferenceStub(channel)
        self.placement = placement
        self._written = written

    def lines(self, logger: str = "servicer") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._written.getvalue().splitlines()]
        return [line for line in found if line["logger"] == logger]

    async def access(self, count: int = 1) -> list[dict[str, Any]]:
        """The lines about calls, once there are so many: a call is over after its caller has been told."""
        await until(lambda: len(self.lines(call_telemetry.__name__)) >= count)
        return self.lines(call_telemetry.__name__)


async def serving(written: io.StringIO, **options: Any) -> AsyncIterator[There]:
    server = MeshServer(grpc.ssl_server_credentials([(b"", b"")]), new_id=ids(), **options)
    placement = Placement()
    server.add(placement_pb2_grpc.add_PlacementServicer_to_server, placement, "sovereign.mesh.v1.Placement")
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, Inference(), "sovereign.mesh.v1.Inference")
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield There(channel, placement, written)
    placement.goes_on.set()
    await asyncio.gather(*placement.background)
    await server.stop(0)


@pytest.fixture
async def there(written: io.StringIO) -> AsyncIterator[There]:
    async for made in serving(written):
        yield made


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_everything_that_is_written_during_a_call_names_it(there: There):
    await there.place(placement_pb2.PlaceRequest())
    await there.place(placement_pb2.PlaceRequest())
    found = [(line["message"], line["request_id"][:8], line["method"]) for line in there.lines()]
    for number in ("00000001", "00000002"):
        for message in ("deciding", "in a thread", "beside"):
            assert (message, number, PLACE) in found
    assert all("trace_id" not in line for line in there.lines())


async def test_a_task_that_outlives_its_call_no_longer_speaks_for_it(there: There):
    await there.place(placement_pb2.PlaceRequest())
    await there.access()
    there.placement.goes_on.set()
    await asyncio.gather(*there.placement.background)
    (line,) = [line for line in there.lines() if line["message"] == "afterwards"]
    assert "request_id" not in line
    assert calls.current() is None


async def test_the_first_decision_of_a_call_has_its_id(there: There):
    await there.place(placement_pb2.PlaceRequest())
    (line, *_) = there.lines()
    assert there.placement.decided == [line["request_id"], "another"]
    assert claim_id(lambda: "another") == "another"


@pytest.mark.parametrize("model", ["refuse", "break"])
async def test_the_caller_learns_the_id_of_what_failed(there: There, model: str):
    error = await refusal(there.place(placement_pb2.PlaceRequest(model=model)))
    assert from_rpc_error(error).request_id == there.lines()[0]["request_id"]
    (line,) = await there.access()
    assert line["request_id"] == there.lines()[0]["request_id"]
    assert (line["level"], line["method"], line["caller"]) == ("info", PLACE, "none of nobody")
    assert (line["code"], line["reason"]) == (
        ("PERMISSION_DENIED", "NOT_PERMITTED") if model == "refuse" else ("INTERNAL", "INTERNAL")
    )
    assert line["took_ms"] >= 0


async def test_a_peers_word_for_an_id_is_believed_only_in_the_form_of_one():
    for said in (SECRET, "0" * 36, "", "01A21FE9-FBA9-7FAF-A19E-ACD178E2ACEF"):
        error = grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE,
            grpc.aio.Metadata(),
            grpc.aio.Metadata((REQUEST_ID_KEY, said)),
            "gone",
        )
        assert from_rpc_error(error).request_id == ""


async def test_the_line_of_a_call_that_went_well_is_for_debugging(there: There):
    await there.place(placement_pb2.PlaceRequest())
    (line,) = await there.access()
    assert (line["level"], line["code"]) == ("debug", "OK")
    assert "reason" not in line


async def test_a_caller_that_leaves_is_no_refusal(there: There):
    call = there.place(placement_pb2.PlaceRequest(model="wait"))
    await until(lambda: there.placement.background)
    call.cancel()
    (line,) = await there.access()
    assert (line["level"], line["code"]) == ("debug", "CANCELLED")


async def test_streams_of_either_style(there: There):
    async for _ in there.inference.Chat(inference_pb2.ChatRequest()):
        pass
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in there.inference.Complete(inference_pb2.CompleteRequest()):
            pass
    chat, complete = there.lines()
    ended, failed = await there.access(2)
    assert (chat["request_id"], chat["method"]) == (ended["request_id"], "sovereign.mesh.v1.Inference/Chat")
    assert complete["request_id"] == failed["request_id"]
    assert (ended["code"], failed["reason"]) == ("OK", "ENGINE_FAILED")


async def test_a_flood_of_refusals_writes_a_bounded_number_of_lines(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0

    class ByTheTestsClock(LineBudget):
        def take(self, _: float) -> int | None:
            return super().take(now)

    monkeypatch.setattr(call_telemetry, "LINES_PER_SECOND", 3)
    monkeypatch.setattr(call_telemetry, "LineBudget", ByTheTestsClock)
    async for there in serving(written):
        there.placement.goes_on.set()
        for _ in range(10):
            await refusal(there.place(placement_pb2.PlaceRequest(model="refuse")))
        assert len(await there.access(3)) == 3
        await asyncio.gather(*there.placement.background)
        now = 5.0
        await refusal(there.place(placement_pb2.PlaceRequest(model="refuse")))
        assert (await there.access(4))[3]["suppressed"] == 7


async def test_with_traces_on_lines_name_the_trace(written: io.StringIO):
    async with collector() as kept:
        tracing: Tracing = kept.tracing(NODE)
        async for there in serving(written, tracing=tracing, home="de.mesh.example"):
            await there.place(placement_pb2.PlaceRequest(), metadata=((TRACEPARENT, PARENT),))
            await there.access()
            await there.place(placement_pb2.PlaceRequest(), metadata=((TRACEPARENT, SECRET),))
            # A caller without a certificate is nobody's own: its flag does not count.
            await there.place(placement_pb2.PlaceRequest(), metadata=((TRACEPARENT, UNRECORDED),))
            await there.access(3)
        await kept.flushed()
        first, second, third = kept.named(PLACE)
        assert (first.trace, third.trace) == (PARENT[3:35], UNRECORDED[3:35])
        assert second.trace != first.trace
        assert second.parent == ""
        deciding = [line for line in there.lines() if line["message"] == "deciding"]
        assert [(line["trace_id"], line["span_id"]) for line in deciding] == [
            (each.trace, each.id) for each in (first, second, third)
        ]
        assert first.attributes["sovereign.mesh.request.id"] == deciding[0]["request_id"]
        assert first.attributes["sovereign.mesh.caller.kind"] == "none"
    assert spans.current() is spans.NO_SPAN


async def test_refusals_and_failures_of_the_server_differ_in_their_span(written: io.StringIO):
    async with collector() as kept:
        async for there in serving(written, tracing=kept.tracing(NODE)):
            await refusal(there.place(placement_pb2.PlaceRequest(model="refuse")))
            await refusal(there.place(placement_pb2.PlaceRequest(model="break")))
            await there.access(2)
        await kept.flushed()
        refused, broke = kept.named(PLACE)
        assert (refused.status, broke.status) == (0, 2)
        assert refused.attributes["error.type"] == "NOT_PERMITTED"
        assert refused.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"
        assert broke.attributes["error.type"] == "INTERNAL"
        assert SECRET.encode() not in b"".join(kept.received)
