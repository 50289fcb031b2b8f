"""Shard: what nodes ask this node's index, on behalf of clients of their own authority.

The peer is a node; the requester is a client of the same trust domain, and the permit is bound to that
client. The peer only carries the question: policies, levels and budgets are the requester's. In this
order: who is on the connection; may it speak for the requester; the permit and the node's own decision
(node/gate.py, I2, I3); room; then the index. The decision is on disk before anything is answered, and
again, by counts and levels, whatever texts leave, before they do (I7). Right before each answer the
levels that it went by are held against the newest records (I1).

Bounded for whoever asks: streams open at once, by all and by one asker, silent ones as well; the size of
every message; the time between two steps; how many steps (open_shard.py); work at once, shared among
askers (node/admission.py). An asker is a tenant at home, a whole authority abroad.

Evidence has entries of kind "shard" (outcome "served", with how many release groups the requester may see
at which level; or "refused", also after it was served, with the step) and "release" (how many chunks or
sentences left, at which level, of documents of which classes). No query, term, vector, text or document id
is in either.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from mesh.codec import retrieval as codec
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import Action, DataClass, SpiffeId
from mesh.identity.peer import Peer
from mesh.rpc.callers import NODE, require_speaks_for
from mesh.rpc.pace import Pace, asker_of
from node.admission import Admission
from node.gate import Asked, Entry, Gate
from node.live_calls import LiveCall
from node.retrieval.evidence import release_entry
from node.retrieval.holder import Holder, OpenShard
from node.streams import Streams
from sovereign.mesh.v1 import inference_pb2, retrieval_pb2, retrieval_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Shard"

STEP_TIMEOUT_S = 30.0

_Context = grpc.aio.ServicerContext[Any, Any]
_Steps = AsyncIterator[retrieval_pb2.ShardSearchRequest]


class ShardService(retrieval_pb2_grpc.ShardServicer):
    """Serves one holder. `admission` bounds index work, `generating` answers: the engine's own queue."""

    def __init__(
        self,
        gate: Gate,
        holder: Holder,
        admission: Admission,
        generating: Admission,
        *,
        streams: Streams | None = None,
        step_timeout_s: float = STEP_TIMEOUT_S,
    ) -> None:
        self._gate = gate
        self._holder = holder
        self._admission = admission
        self._generating = generating
        self._streams = streams or Streams()
        self._silent = Streams()  # those that have not said yet for whom they ask: counted by peer
        self._step_timeout_s = step_timeout_s
        self._pace = Pace()

    async def Search(self, requests: _Steps, context: _Context) -> None:
        """One question, step by step; see retrieval.proto."""
        entry = self._begin("search")
        async with self._refusals(entry):
            peer = self._gate.identify(context, entry, (NODE,))
            with self._silent.one(asker_of(peer.id, self._gate.node.trust_domain)):
                first = await self._next(requests)
            peer = self._gate.identify(context, entry, (NODE,))  # that may have taken a while
            if first is None or first.WhichOneof("step") != "open":
                raise MeshError(Reason.REQUEST_INVALID, "step: expected open first")
            codec.check_shard_request(first)
            entry["bytes"] = first.ByteSize()
            question = codec.shard_open_from_pb(first.open)
            asked = self._decide(peer, question.requester, first.open.admission, question.collection, entry)
        asker = self._asker(asked)
        async with self._gate.watch(asked, entry) as call, self._refusals(entry):
            with self._streams.one(asker):
                with await self._admission.enter(asker):
                    self._gate.spend(asked)
                    shard = await self._holder.open(question)
                await self._record_served(entry, shard.sight.summary())
                shard.sight.require_current()
                await self._gate.send(context, call, codec.opened_to_pb(shard.opened))
                while (step := await self._next(requests)) is not None:
                    await self._step(step, shard, asked, context, call, entry)

    async def Answer(self, request: retrieval_pb2.ShardAnswerRequest, context: _Context) -> None:
        """An answer from this node's own passages; see retrieval.proto."""
        entry = self._begin("answer")
        async with self._refusals(entry):
            peer = self._gate.identify(context, entry, (NODE,))
            codec.check_shard_request(request)
            entry["bytes"] = request.ByteSize()
            question = codec.shard_answer_from_pb(request)
            asked = self._decide(peer, question.requester, request.admission, question.collection, entry)
        async with self._gate.watch(asked, entry) as call, self._refusals(entry):
            began = self._gate.monotonic()
            try:
                turn = await self._generating.enter(self._asker(asked))
            finally:
                self._gate.observer.queued(self._gate.monotonic() - began)
            with turn:
                self._gate.spend(asked)
                found = await self._holder.respond(question)
            await self._record_served(entry, found.sight.summary())
            if found.sentences:
                levels = (sentence.level for sentence in found.sentences)
                await self._record_release(asked, entry, levels, found.answered.charged, found.classes)
            for sentence in found.sentences:
                found.sight.require_current()
                await self._gate.send(context, call, codec.sentence_to_pb(sentence))
            found.sight.require_current()
            await self._gate.send(context, call, codec.answered_to_pb(found.answered))

    async def Fetch(
        self, request: retrieval_pb2.ShardFetchRequest, context: _Context
    ) -> retrieval_pb2.ShardFetchResponse:
        """One passage; see retrieval.proto."""
        entry = self._begin("fetch")
        async with self._refusals(entry):
            peer = self._gate.identify(context, entry, (NODE,))
            codec.check_shard_request(request)
            entry["bytes"] = request.ByteSize()
            requester, chunk, level = codec.shard_fetch_from_pb(request)
            asked = self._decide(peer, requester, request.admission, request.collection, entry)
        async with self._gate.watch(asked, entry), self._refusals(entry):
            with await self._admission.enter(self._asker(asked)):
                self._gate.spend(asked)
                found = await self._holder.fetch(requester, asked.context, request.collection, chunk, level)
            released = found.released
            await self._record_served(entry, found.sight.summary())
            await self._record_release(asked, entry, (released.level,), found.charged, found.classes)
            found.sight.require_current()
            return retrieval_pb2.ShardFetchResponse(chunk=codec.chunk_to_pb(released))

    async def _step(
        self,
        step: retrieval_pb2.ShardSearchRequest,
        shard: OpenShard,
        asked: Asked,
        context: _Context,
        call: LiveCall,
        entry: Entry,
    ) -> None:
        codec.check_shard_request(step)
        kind = entry["step"] = step.WhichOneof("step")
        if kind == "weigh":
            weights = codec.weigh_from_pb(step.weigh)
            with await self._admission.enter(self._asker(asked)):
                ranking = await shard.weigh(weights)
            answer = codec.ranked_to_pb(ranking)
        elif kind == "release":
            ids, level = codec.release_from_pb(step.release)
            with await self._admission.enter(self._asker(asked)):
                batch = await shard.release(ids, level)
            levels = (chunk.level for chunk in batch.chunks)
            await self._record_release(asked, entry, levels, batch.charged, batch.classes)
            answer = codec.released_to_pb(batch)
        else:
            raise MeshError(Reason.REQUEST_INVALID, "step: expected weigh or release after open")
        shard.sight.require_current()
        await self._gate.send(context, call, answer)

    async def _next(self, requests: _Steps) -> retrieval_pb2.ShardSearchRequest | None:
        """The asker's next step; None when it has no more. DEADLINE_EXCEEDED if it takes too long."""
        try:
            async with asyncio.timeout(self._step_timeout_s):
                return await anext(requests, None)
        except TimeoutError:
            raise MeshError(
                Reason.DEADLINE_EXCEEDED, f"no step came for {self._step_timeout_s:g} s"
            ) from None

    def _begin(self, rpc: str) -> Entry:
        return {**self._gate.begin("shard"), "rpc": rpc}

    def _decide(
        self,
        peer: Peer,
        requester: SpiffeId,
        admission: inference_pb2.Admission,
        collection: str,
        entry: Entry,
    ) -> Asked:
        entry["requester"] = str(requester)
        require_speaks_for(peer, requester)
        asker, began = asker_of(requester, self._gate.node.trust_domain), self._gate.monotonic()
        self._pace.require(asker, began)
        try:
            return self._gate.decide(peer, requester, admission, Action.SEARCH, collection, entry)
        finally:
            ended = self._gate.monotonic()
            self._pace.spend(asker, ended - began, ended)

    def _asker(self, asked: Asked) -> str:
        return asker_of(asked.principal.id, self._gate.node.trust_domain)

    @contextlib.asynccontextmanager
    async def _refusals(self, entry: Entry) -> AsyncIterator[None]:
        """Records what is refused within."""
        try:
            yield
        except MeshError as refusal:
            await self._gate.refuse(entry, refusal)
            raise

    async def _record_served(self, entry: Entry, levels: dict[str, int]) -> None:
        await self._gate.record({**entry, "outcome": "served", "levels": levels})

    async def _record_release(
        self,
        asked: Asked,
        entry: Entry,
        levels: Iterable[ReleaseLevel],
        charged: int,
        classes: Iterable[DataClass],
    ) -> None:
        await self._gate.record(
            release_entry(
                self._gate,
                entry,
                asked.peer.id,
                asked.principal.id,
                asked.subject,
                levels,
                charged,
                classes,
                asked.context,
                asked.presented.permit.decision_id,
            )
        )
