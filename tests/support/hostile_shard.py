"""A node that has been taken over: its certificate is real, what it answers is what a test wants.

async with taken_over(there, "FR") as hostile:
    hostile.opened = retrieval_pb2.ShardOpened(documents=1, frequencies=[2])
    result = await collect_search(...)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from mesh.identity.tls import server_credentials
from sovereign.mesh.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.support.federation import Federation


class HostileShard(retrieval_pb2_grpc.ShardServicer):
    """Answers each step of a search, a question and a fetch with what stands here."""

    def __init__(self) -> None:
        self.opened = retrieval_pb2.ShardOpened()
        self.ranked = retrieval_pb2.ShardRanked()
        self.released = retrieval_pb2.ShardReleased()
        self.answers: list[retrieval_pb2.ShardAnswerResponse] = []
        self.fetched = retrieval_pb2.ShardFetchResponse()
        self.refusal = ""  # refuse with these words instead
        self.asked: list[Any] = []

    async def Search(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        if self.refusal:
            await context.abort(grpc.StatusCode.INTERNAL, self.refusal)
        async for request in requests:
            self.asked.append(request)
            kind = request.WhichOneof("step")
            told = {"open": "opened", "weigh": "ranked", "release": "released"}[kind]
            yield retrieval_pb2.ShardSearchResponse(**{told: getattr(self, told)})

    async def Answer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for answer in self.answers:
            yield answer

    async def Fetch(self, request: Any, context: Any) -> Any:
        return self.fetched


@contextlib.asynccontextmanager
async def taken_over(there: Federation, country: str) -> AsyncIterator[HostileShard]:
    """The node of this country, replaced by one that has its certificate and keeps no rules."""
    node, hostile = there.nodes[country], HostileShard()
    await node.runtime.server.stop(0)
    server = grpc.aio.server()
    retrieval_pb2_grpc.add_ShardServicer_to_server(hostile, server)  # type: ignore[no-untyped-call]
    assert server.add_secure_port(node.endpoint, server_credentials(node.runtime.parts.source))
    await server.start()
    try:
        yield hostile
    finally:
        await server.stop(0)
