"""The port to one node's index, as an asker sees it, and the one that reaches another node by gRPC.

Nothing is sent without a `Permitted` target, and every send takes one anew: who asks judges again before
each (I1). What comes back is read by mesh/codec, which believes nothing that no honest node says. A
`ShardPeer` serves one question: it is opened once, and `aclose` ends its call whatever its state.

The asker's own node is asked through the same port (node/retrieval/local.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc

from mesh.codec import retrieval as wire
from mesh.codec.search import admission_to_pb
from mesh.core.answers import MAX_SENTENCES_OF_A_NODE
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, Released, ReleaseLevel, ScoredId
from mesh.core.shards import Answered, Opened, ReleasedBatch, ShardAnswerQuestion, ShardQuestion
from mesh.core.targets import Permitted
from mesh.core.types import RequestContext, SpiffeId
from mesh.rpc.channels import ChannelPool
from mesh.rpc.reach import CONNECT_TIMEOUT_S, channel_to, reach
from mesh.rpc.status import from_rpc_error
from mesh.telemetry import spans
from sovereign.mesh.v1 import retrieval_pb2_grpc


class ShardPeer(Protocol):
    """One node for one question. Every method raises MeshError, PEER_MISBEHAVED among them."""

    async def connect(self, target: Permitted) -> None:
        """Gets ready to send, and sends nothing yet."""
        ...

    async def open(self, target: Permitted, question: ShardQuestion) -> Opened:
        """Begins a search: statistics and the vector ranking."""
        ...

    async def weigh(self, target: Permitted, weights: Sequence[float]) -> tuple[ScoredId, ...]:
        """The keyword ranking by these weights of the question's terms."""
        ...

    async def release(self, target: Permitted, ids: Sequence[bytes], level: ReleaseLevel) -> ReleasedBatch:
        """The text of hits that were ranked in this search."""
        ...

    def answer(
        self, target: Permitted, question: ShardAnswerQuestion
    ) -> AsyncGenerator[AnswerSentence | Answered, None]:
        """Sentences derived from the node's own passages; `Answered` last."""
        ...

    async def fetch(
        self,
        target: Permitted,
        requester: SpiffeId,
        context: RequestContext,
        collection: str,
        chunk: bytes,
        level: ReleaseLevel,
    ) -> Released:
        """One passage."""
        ...

    async def aclose(self) -> None:
        """Ends whatever is under way."""
        ...


class ShardPeers(Protocol):
    """Makes peers."""

    def peer(self, node: SpiffeId, timeout_s: float) -> ShardPeer:
        """For one question to this node, which may take so long at most."""
        ...


# A stub of the Shard service at the target, connected.
Dial = Callable[[Permitted], Awaitable[Any]]


def pooled(pool: ChannelPool) -> Dial:
    """Reaches nodes over the pool's channels."""

    async def dial(target: Permitted) -> Any:
        endpoint = await reach(pool, target, CONNECT_TIMEOUT_S)
        return retrieval_pb2_grpc.ShardStub(channel_to(pool, target, endpoint))

    return dial


class MeshShards:
    """The nodes of the mesh: the own one in this process, the others by gRPC."""

    def __init__(self, own: SpiffeId, local: Callable[[], ShardPeer], dial: Dial) -> None:
        self._own = own
        self._local = local
        self._dial = dial

    def peer(self, node: SpiffeId, timeout_s: float) -> ShardPeer:
        """See ShardPeers."""
        return self._local() if node == self._own else RemoteShard(node, self._dial, timeout_s)


class RemoteShard:
    """Another node. `timeout_s` is for all of its call, so that the other end knows it, too."""

    def __init__(self, node: SpiffeId, dial: Dial, timeout_s: float) -> None:
        self._node = node
        self._dial = dial
        self._timeout_s = timeout_s
        self._stub: Any = None
        self._call: Any = None
        self._question: ShardQuestion | None = None

    async def connect(self, target: Permitted) -> None:
        """Through the handshake, which proves that it is the node that was permitted."""
        self._require(target)
        self._stub = await self._dial(target)

    async def open(self, target: Permitted, question: ShardQuestion) -> Opened:
        """See ShardPeer."""
        self._require(target)
        admission = admission_to_pb(target.permit, question.context)
        self._question = question
        self._call = self._stub.Search(timeout=self._timeout_s, metadata=spans.outgoing())
        answer = await self._step("opened", wire.shard_open_to_pb(question, admission))
        return wire.opened_from_pb(answer, question)

    async def weigh(self, target: Permitted, weights: Sequence[float]) -> tuple[ScoredId, ...]:
        """See ShardPeer."""
        self._require(target)
        depth = self._asked.depth
        return wire.ranked_from_pb(await self._step("ranked", wire.weigh_to_pb(weights)), depth, weights)

    async def release(self, target: Permitted, ids: Sequence[bytes], level: ReleaseLevel) -> ReleasedBatch:
        """See ShardPeer."""
        self._require(target)
        return wire.released_from_pb(await self._step("released", wire.release_to_pb(ids, level)), ids, level)

    async def answer(
        self, target: Permitted, question: ShardAnswerQuestion
    ) -> AsyncGenerator[AnswerSentence | Answered, None]:
        """See ShardPeer."""
        self._require(target)
        admission = admission_to_pb(target.permit, question.context)
        request = wire.shard_answer_to_pb(question, admission)
        self._call = self._stub.Answer(request, timeout=self._timeout_s, metadata=spans.outgoing())
        sentences = 0
        while True:
            message = await self._read(began=sentences > 0)
            kind = message.WhichOneof("event")
            if kind == "finished":
                yield wire.answered_from_pb(message.finished)
                return
            sentences += 1
            if kind != "sentence" or sentences > MAX_SENTENCES_OF_A_NODE:
                raise _misbehaved(f"at most {MAX_SENTENCES_OF_A_NODE} sentences, and then the end")
            yield wire.sentence_from_pb(message.sentence, self._node, question.collection)

    async def fetch(
        self,
        target: Permitted,
        requester: SpiffeId,
        context: RequestContext,
        collection: str,
        chunk: bytes,
        level: ReleaseLevel,
    ) -> Released:
        """See ShardPeer."""
        self._require(target)
        admission = admission_to_pb(target.permit, context)
        request = wire.shard_fetch_to_pb(requester, collection, chunk, level, admission)
        self._call = self._stub.Fetch(request, timeout=self._timeout_s, metadata=spans.outgoing())
        try:
            answer = await self._call
        except grpc.RpcError as error:
            raise _failure(error, began=False) from None
        return wire.fetched_from_pb(answer, chunk, level)

    async def aclose(self) -> None:
        """Cancels the call; the node stops what it does for it."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    @property
    def _asked(self) -> ShardQuestion:
        if self._question is None:
            raise RuntimeError("a search is opened before its next steps")
        return self._question

    async def _step(self, kind: str, request: Any) -> Any:
        with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):
            await self._call.write(request)  # if the call has ended, reading says how
        message = await self._read(began=kind != "opened")
        if message.WhichOneof("step") != kind:
            raise _misbehaved(f'the step "{kind}"')
        return getattr(message, kind)

    async def _read(self, *, began: bool) -> Any:
        try:
            message = await self._call.read()
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                code = await self._call.code()
                if code is not grpc.StatusCode.OK:
                    raise grpc.aio.AioRpcError(
                        code,
                        await self._call.initial_metadata(),
                        await self._call.trailing_metadata(),
                        await self._call.details(),
                        None,
                    )
                raise _misbehaved("an answer before the end of the call")
        except grpc.RpcError as error:
            raise _failure(error, began=began) from None
        return message

    def _require(self, target: Permitted) -> None:
        if target.node != self._node:
            raise RuntimeError("a peer is sent only what is permitted for its own node")


def _failure(error: grpc.RpcError, *, began: bool) -> MeshError:
    failure = from_rpc_error(error, began=began)
    if failure.reason is Reason.CANCELLED:
        # Not by this side, which no longer reads then: the node is going down.
        return MeshError(Reason.NODE_LOST, "the node cancelled the call")
    return failure


def _misbehaved(expected: str) -> MeshError:
    return MeshError(Reason.PEER_MISBEHAVED, f"a node's answer: expected {expected}")
