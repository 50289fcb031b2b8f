"""A node that keeps no rules: right certificate, right records, and answers as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from mesh import codec
from mesh.board import Board
from mesh.core.records import RecordKey, RecordType
from mesh.core.types import Model, NodeRecord, NodeStatus, Task
from mesh.identity.source import SvidSource
from mesh.identity.tls import server_credentials
from mesh.store.memory import MemoryStore
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc
from tests.support.mesh import DEADLINE_S, Mesh

Answers = Callable[[Any], AsyncIterator[Any]]


class FakeNode(inference_pb2_grpc.InferenceServicer):
    """`chat` yields what Chat answers, `embed` returns what Embed answers; `seen` counts requests."""

    def __init__(self, source: SvidSource) -> None:
        self.source = source
        self.id = source.id
        self.seen = 0
        self.requests: list[Any] = []
        self.chat: Answers | None = None
        self.embed: Callable[[Any], Any] | None = None
        self.port = 0

    async def Chat(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.seen += 1
        self.requests.append(request)
        assert self.chat is not None
        async for answer in self.chat(request):
            yield answer

    async def Embed(self, request: Any, context: Any) -> Any:
        self.seen += 1
        assert self.embed is not None
        return self.embed(request)

    def started(self, node: str = "", digest: str = "sha256:fake") -> Any:
        return inference_pb2.ChatResponse(
            started=inference_pb2.Started(node=node or str(self.id), decision_id="d", model_digest=digest)
        )


def delta(text: str, tokens: int = 1) -> Any:
    return inference_pb2.ChatResponse(delta=inference_pb2.Delta(text=text, tokens=tokens))


def finished(tokens: int, reason: str = "stop") -> Any:
    return inference_pb2.ChatResponse(
        finished=inference_pb2.Finished(reason=reason, prompt_tokens=1, completion_tokens=tokens)
    )


@contextlib.asynccontextmanager
async def fake_node(
    mesh: Mesh,
    country: str,
    name: str,
    *,
    served_as: SvidSource | None = None,
    digest: str = "sha256:fake",
    model: str = "scripted",
) -> AsyncIterator[FakeNode]:
    """Joins the mesh as country/name. `served_as` is whose certificate it shows instead of its own."""
    authority = mesh[country]
    node = FakeNode(authority.identity.source(f"/node/{name}", mesh.bundles))
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(node, server)
    node.port = server.add_secure_port("127.0.0.1:0", server_credentials(served_as or node.source))
    await server.start()
    board = Board(MemoryStore(mesh.board), authority.trust_domain, authority.identity.bundle, mesh.clock)
    running = asyncio.create_task(board.run())
    try:
        await board.wait_for(lambda _: board.connected, DEADLINE_S)
        models = (
            Model(model, digest, 4096, frozenset({Task.GENERATE})),
            Model(f"{model}-embedding", digest, 512, frozenset({Task.EMBED})),
        )
        record = NodeRecord((f"127.0.0.1:{node.port}",), models)
        await _publish(board, node, RecordType.NODE, codec.node_record_to_payload(record))
        # As idle as the others; among equals the first by name is chosen.
        status = NodeStatus(ready=True, in_flight=0, queued=0, capacity=100_000)
        await authority.state_facts(name)
        await _publish(board, node, RecordType.STATUS, codec.status_to_payload(status))
        for other in mesh.nodes:
            view = other.runtime.board
            await view.wait_for(
                lambda snapshot, view=view: node.id in snapshot.candidates and node.id in view.statuses,
                DEADLINE_S,
            )
        yield node
    finally:
        await server.stop(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _publish(board: Board, node: FakeNode, kind: RecordType, payload: bytes) -> None:
    key = RecordKey(node.id.trust_domain, kind, node.id.name)
    await board.publish(node.source.signer, key, payload, 600.0)
