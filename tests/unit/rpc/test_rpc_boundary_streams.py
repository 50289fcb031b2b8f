"""Handlers that take a stream of requests are held to the same boundary (I1)."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.rpc.server import MeshServer, ServerLimits
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.support.logged import errors_in

SECRET = "photophobia"
LIMIT = 4096
SEARCH = "/sovereign.mesh.v1.Shard/Search"
GOOD = retrieval_pb2.ShardSearchRequest(release=retrieval_pb2.ShardRelease())

_Requests = AsyncIterator[retrieval_pb2.ShardSearchRequest]


class Shard(retrieval_pb2_grpc.ShardServicer):
    """Answers each step; a step of `weigh` breaks it, one of `open` is refused."""

    async def Search(
        self, requests: _Requests, context: Any
    ) -> AsyncIterator[retrieval_pb2.ShardSearchResponse]:
        async for request in requests:
            step = request.WhichOneof("step")
            if step == "weigh":
                raise ValueError(f"cannot weigh {SECRET}")
            if step == "open":
                raise MeshError(Reason.BUDGET_EXHAUSTED, "spent", {}, 2.0)
            yield retrieval_pb2.ShardSearchResponse(released=retrieval_pb2.ShardReleased(charged=1))


class Sums(grpc.GenericRpcHandler):
    """Stream-unary, and stream-stream in the reader-writer style: no service of ours has these."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        parse = retrieval_pb2.ShardReleased.FromString
        if details.method == "/test.Sums/Sum":
            return grpc.stream_unary_rpc_method_handler(self._sum, parse, lambda total: b"%d" % total)
        if details.method == "/test.Sums/Echo":
            return grpc.stream_stream_rpc_method_handler(self._echo, parse, lambda one: b"%d" % one)
        return None

    async def _sum(self, requests: AsyncIterator[retrieval_pb2.ShardReleased], context: Any) -> int:
        total = 0
        async for request in requests:
            if request.charged == 13:
                raise ValueError(SECRET)
            if request.charged == 14:
                raise MeshError(Reason.REQUEST_INVALID, "not fourteen")
            total += request.charged
        return total

    async def _echo(self, requests: object, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request.charged)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = MeshServer(
        grpc.ssl_server_credentials([(b"", b"")]),
        new_id=lambda: "incident-7",
        limits=ServerLimits(max_request_bytes=LIMIT),
    )
    server.add(retrieval_pb2_grpc.add_ShardServicer_to_server, Shard(), "sovereign.mesh.v1.Shard")
    server.grpc.add_generic_rpc_handlers((Sums(),))
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(0)


async def ended_by(
    channel: grpc.aio.Channel, *messages: bytes, method: str = SEARCH
) -> tuple[int, MeshError]:
    """How many answers came before the refusal, and the refusal.

    Each message is written after the answer to the one before it: a caller that is still writing when the
    call ends is told by gRPC that its writing failed, and never learns how the call ended.
    """
    answers = 0
    call = channel.stream_stream(method)()
    try:
        for message in messages:
            await call.write(message)
            assert await call.read() is not grpc.aio.EOF
            answers += 1
    except grpc.aio.AioRpcError as error:
        return answers, from_rpc_error(error, began=bool(answers))
    finally:
        call.cancel()
    raise AssertionError("nothing was refused")


async def summed(channel: grpc.aio.Channel, *charged: int) -> bytes:
    messages = [retrieval_pb2.ShardReleased(charged=n).SerializeToString() for n in charged]
    return await channel.stream_unary("/test.Sums/Sum")(iter(messages))


async def test_what_is_well_formed_passes(channel: grpc.aio.Channel):
    stub: Any = retrieval_pb2_grpc.ShardStub(channel)
    assert [answer.released.charged async for answer in stub.Search(iter([GOOD, GOOD]))] == [1, 1]
    assert await summed(channel, 1, 2, 4) == b"7"


async def test_a_mesh_error_arrives_whole_in_the_middle_of_a_stream(channel: grpc.aio.Channel):
    opened = retrieval_pb2.ShardSearchRequest(open=retrieval_pb2.ShardOpen())
    answers, error = await ended_by(channel, GOOD.SerializeToString(), opened.SerializeToString())
    assert (answers, error.reason, error.message) == (1, Reason.BUDGET_EXHAUSTED, "spent")
    assert error.retry_after_s == 2.0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await summed(channel, 1, 14)
    assert from_rpc_error(caught.value).message == "not fourteen"


async def test_anything_else_is_an_incident_without_its_words(
    channel: grpc.aio.Channel, written: io.StringIO
):
    weigh = retrieval_pb2.ShardSearchRequest(weigh=retrieval_pb2.ShardWeigh())
    answers, error = await ended_by(channel, GOOD.SerializeToString(), weigh.SerializeToString())
    assert (answers, error.reason, error.metadata) == (1, Reason.INTERNAL, {"incident": "incident-7"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await summed(channel, 13)
    assert from_rpc_error(caught.value).reason is Reason.INTERNAL
    assert SECRET not in written.getvalue()
    assert written.getvalue().count("incident incident-7") == 2


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x0a\x05ab", b"\x1a\xff\xff\xff\xff\x0f"])
@pytest.mark.parametrize("method", [SEARCH, "/test.Sums/Echo"])
async def test_a_message_that_does_not_parse_is_the_callers_mistake(
    channel: grpc.aio.Channel, garbage: bytes, method: str, written: io.StringIO
):
    good = GOOD.SerializeToString() if method == SEARCH else b""
    answers, error = await ended_by(channel, good, garbage, good, method=method)
    assert (answers, error.reason) == (1, Reason.REQUEST_INVALID)
    assert errors_in(written) == []


async def test_a_message_that_is_too_large_is_refused_with_a_reason(channel: grpc.aio.Channel):
    large = retrieval_pb2.ShardSearchRequest(open=retrieval_pb2.ShardOpen(collection="a" * LIMIT))
    answers, error = await ended_by(channel, GOOD.SerializeToString(), large.SerializeToString())
    assert (answers, error.reason) == (1, Reason.REQUEST_TOO_LARGE)
    assert str(LIMIT) in error.message


async def test_a_caller_that_leaves_is_no_incident(channel: grpc.aio.Channel, written: io.StringIO):
    for _ in range(20):
        call = channel.stream_stream(SEARCH)()
        await call.write(GOOD.SerializeToString())
        assert await call.read() is not grpc.aio.EOF
        call.cancel()
    assert await summed(channel, 1) == b"1"
    assert errors_in(written) == []
