"""A node of tests/support/mesh.py with an index in front of which the Shard service stands, and who asks it.

    async with serving(node, tmp_path) as shards:
        shards.put("d1", "The pump is quiet.")
        asker = Asker(mesh, mesh["FR"].nodes["par-1"].runtime.parts.source, shards)
        call = asker.search(requester)

The index, the release policies, certificates, permits and evidence are the real ones; the server has a
port of its own.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mesh import codec
from mesh.codec import retrieval as wire
from mesh.core.errors import MeshError
from mesh.core.permits import PERMIT_TTL_S, Permit
from mesh.core.policy import PolicyEngine
from mesh.core.records import RecordType
from mesh.core.release import ReleasePolicy
from mesh.core.retrieval import Filters, ReleaseLevel, ScoredId
from mesh.core.shards import Opened, ReleasedBatch, ShardQuestion
from mesh.core.types import Action, DataClass, RequestContext, SpiffeId
from mesh.identity.source import SvidSource
from mesh.identity.tls import dial, server_credentials
from mesh.rpc.server import MeshServer
from mesh.rpc.status import from_rpc_error
from node.admission import Admission
from node.index.analysis import Analyzer
from node.index.documents import DocumentMeta
from node.index.index import DocumentIndex
from node.index.stored import NewChunk
from node.index.stores import StoreSettings
from node.retrieval.budgets import BudgetLimits, Budgets
from node.retrieval.shard_service import SERVICE_NAME, ShardService
from node.retrieval.sight import Sights
from node.streams import Streams
from sovereign.mesh.v1 import inference_pb2, retrieval_pb2, retrieval_pb2_grpc
from tests.support.mesh import Mesh, Node
from tests.support.retrieval import SECRET, SPEC, make_holder, vector_of
from tests.support.waiting import DEADLINE_S

INTERNAL = RequestContext.of(["internal"], "care/triage")


@dataclass
class ShardServer:
    """What a test wants to look at."""

    node: Node
    index: DocumentIndex
    streams: Streams
    admission: Admission
    address: str

    def put(self, id: str, *texts: str, classes: Iterable[str] = ("internal",), **meta: Any) -> None:
        document = DocumentMeta(id=id, classes=frozenset(DataClass(c) for c in classes), **meta)
        chunks = [NewChunk(text, vector_of(text)) for text in texts]
        self.index.put(document, "sha256:" + hashlib.sha256(id.encode()).hexdigest(), chunks)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.node.entries if entry["kind"] == kind]


@asynccontextmanager
async def serving(
    node: Node,
    directory: Path,
    *,
    limits: BudgetLimits | None = None,
    streams: Streams | None = None,
    step_timeout_s: float = 30.0,
) -> AsyncIterator[ShardServer]:
    """The node's Shard service on a loopback port."""
    runtime = node.runtime
    clock, source = runtime.parts.clock, runtime.parts.source
    folder = Path(tempfile.mkdtemp(dir=directory))
    index = DocumentIndex.create(folder / "index", SPEC, SECRET, StoreSettings(kind="memory"), clock)
    budgets = Budgets(folder / "budgets.db", limits or BudgetLimits(), source.id.trust_domain, clock)
    sights = Sights(ReleasePolicy(PolicyEngine()), runtime.board, source.id, clock, time.monotonic)
    holder = make_holder(index, sights, budgets, node=source.id)
    admission = Admission(slots=4, queue=16, queue_timeout_s=DEADLINE_S, clock=time.monotonic)
    counted = streams or Streams()
    service = ShardService(
        runtime.gate, holder, admission, runtime.admission, streams=counted, step_timeout_s=step_timeout_s
    )
    server = MeshServer(server_credentials(source), new_id=runtime.new_id)
    server.add(retrieval_pb2_grpc.add_ShardServicer_to_server, service, SERVICE_NAME)
    [port] = server.listen(["127.0.0.1:0"])
    await server.start()
    try:
        yield ShardServer(node, index, counted, admission, f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
        holder.close()
        budgets.close()
        index.close()


class Asker:
    """A node (or whoever `source` is) that asks, as near to the wire as possible."""

    def __init__(self, mesh: Mesh, source: SvidSource, at: ShardServer) -> None:
        self.mesh, self.source, self.at = mesh, source, at
        target = at.node.id
        name = f"{target.name}.node.{target.trust_domain}"
        self._channel = dial(source, at.address, target.trust_domain, name)
        mesh.on_close(self._channel.close)
        self.stub: Any = retrieval_pb2_grpc.ShardStub(self._channel)  # type: ignore[no-untyped-call]
        self.channel = self._channel

    def admission(
        self,
        requester: SpiffeId,
        asked: RequestContext = INTERNAL,
        *,
        by: SvidSource | None = None,
        caller: SpiffeId | None = None,
        collection: str = SPEC.name,
        action: Action = Action.SEARCH,
    ) -> inference_pb2.Admission:
        """Context and permit, right or wrong as the test wants; signed by the asker unless told otherwise."""
        now = self.mesh.clock()
        permit = Permit(
            self.mesh.new_id(), caller or requester, self.at.node.id, action, asked.digest, collection
        )
        envelope = (by or self.source).signer.sign(
            RecordType.PERMIT,
            self.mesh.new_id(),
            1,
            now,
            now + PERMIT_TTL_S,
            codec.permit_to_payload(permit),
        )
        return inference_pb2.Admission(
            permit=codec.envelope_from_bytes(envelope), context=codec.context_to_pb(asked)
        )

    def search(
        self,
        requester: SpiffeId,
        text: str = "pump",
        asked: RequestContext = INTERNAL,
        *,
        admission: inference_pb2.Admission | None = None,
        **changes: Any,
    ) -> Call:
        """Begins a search; `opened` of what it returns is its first answer."""
        values: dict[str, Any] = {
            "collection": SPEC.name,
            "digest": SPEC.digest,
            "vector": vector_of(text),
            "terms": tuple(Analyzer("english-1").query_terms(text)),
            "filters": Filters(),
            "depth": 100,
        }
        question = ShardQuestion(requester, asked, **{**values, **changes})
        admitted = admission or self.admission(requester, asked, collection=question.collection)
        call = Call(self.stub.Search(timeout=DEADLINE_S), question)
        call.first = wire.shard_open_to_pb(question, admitted)
        return call


class Call:
    """One search, step by step. Refusals are raised as MeshError."""

    def __init__(self, call: Any, question: ShardQuestion) -> None:
        self.raw = call
        self.question = question
        self.first = retrieval_pb2.ShardSearchRequest()

    async def step(self, request: retrieval_pb2.ShardSearchRequest) -> retrieval_pb2.ShardSearchResponse:
        """Sends one step and waits for its answer."""
        try:
            await self.raw.write(request)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        except Exception:  # the call has ended: reading says how
            pass
        return await self.answer()

    async def answer(self) -> retrieval_pb2.ShardSearchResponse:
        """The next answer."""
        try:
            message = await self.raw.read()
            if message is grpc.aio.EOF:
                raise await _ended(self.raw)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return message

    async def open(self) -> Opened:
        message = await self.step(self.first)
        return wire.opened_from_pb(message.opened, self.question)

    async def weigh(self, weights: Sequence[float]) -> tuple[ScoredId, ...]:
        message = await self.step(wire.weigh_to_pb(weights))
        return wire.ranked_from_pb(message.ranked, self.question.depth, weights)

    async def release(self, ids: Sequence[bytes], level: ReleaseLevel) -> ReleasedBatch:
        message = await self.step(wire.release_to_pb(ids, level))
        return wire.released_from_pb(message.released, ids, level)

    async def done(self) -> None:
        """Says that nothing more comes, and waits for the end."""
        await self.raw.done_writing()
        assert await self.raw.read() is grpc.aio.EOF
        assert await self.raw.code() is grpc.StatusCode.OK


async def _ended(call: Any) -> Exception:
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return AssertionError("it ended without an answer")
    return from_rpc_error(
        grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details(), None
        )
    )


async def refusal(act: Any) -> MeshError:
    """The MeshError that awaiting this raises."""
    try:
        await act
    except MeshError as error:
        return error
    except grpc.RpcError as error:
        return from_rpc_error(error)
    raise AssertionError("nothing was refused")
