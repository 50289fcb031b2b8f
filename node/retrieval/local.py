"""The asker's own node as one of those that it asks, in this process and through the same port.

What the client may ask was decided and recorded when its question came in (search_service.py), and is
judged again before each step like any other node's; budgets, levels and the evidence of what is released
are the holder's, as for a question from elsewhere (I7).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, Released, ReleaseLevel, ScoredId
from mesh.core.shards import Answered, Opened, ReleasedBatch, ShardAnswerQuestion, ShardQuestion
from mesh.core.targets import Permitted
from mesh.core.types import DataClass, RequestContext, SpiffeId
from node.gate import Gate
from node.retrieval.evidence import release_entry
from node.retrieval.holder import Holder, OpenShard


class LocalShard:
    """This node, for one question. Errors as of Holder."""

    def __init__(self, gate: Gate, holder: Holder) -> None:
        self._gate = gate
        self._holder = holder
        self._entry = gate.begin("shard")
        self._shard: OpenShard | None = None
        self._question: ShardQuestion | None = None

    async def connect(self, target: Permitted) -> None:
        """Nothing to connect."""
        self._require(target)

    async def open(self, target: Permitted, question: ShardQuestion) -> Opened:
        """See ShardPeer."""
        self._require(target)
        self._shard, self._question = await self._holder.open(question), question
        return self._shard.opened

    async def weigh(self, target: Permitted, weights: Sequence[float]) -> tuple[ScoredId, ...]:
        """See ShardPeer."""
        self._require(target)
        return await self._open[0].weigh(weights)

    async def release(self, target: Permitted, ids: Sequence[bytes], level: ReleaseLevel) -> ReleasedBatch:
        """See ShardPeer."""
        self._require(target)
        shard, question = self._open
        batch = await shard.release(ids, level)
        levels = [chunk.level for chunk in batch.chunks]
        asked = (question.requester, question.context, question.collection)
        await self._record(target, *asked, levels, batch.charged, batch.classes)
        shard.sight.require_current()
        return batch

    async def answer(
        self, target: Permitted, question: ShardAnswerQuestion
    ) -> AsyncGenerator[AnswerSentence | Answered, None]:
        """See ShardPeer."""
        self._require(target)
        found = await self._holder.respond(question)
        if found.sentences:
            levels = [sentence.level for sentence in found.sentences]
            asked = (question.requester, question.context, question.collection)
            await self._record(target, *asked, levels, found.answered.charged, found.classes)
        for sentence in found.sentences:
            found.sight.require_current()
            yield sentence
        yield found.answered

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
        found = await self._holder.fetch(requester, context, collection, chunk, level)
        released = found.released
        asked = (requester, context, collection)
        await self._record(target, *asked, [released.level], found.charged, found.classes)
        found.sight.require_current()
        return released

    async def aclose(self) -> None:
        """Nothing is under way that nobody waits for."""

    @property
    def _open(self) -> tuple[OpenShard, ShardQuestion]:
        if self._shard is None or self._question is None:
            raise RuntimeError("a search is opened before its next steps")
        return self._shard, self._question

    def _require(self, target: Permitted) -> None:
        if target.node != self._gate.node:
            raise MeshError(Reason.INTERNAL, "expected this very node")

    async def _record(
        self,
        target: Permitted,
        requester: SpiffeId,
        context: RequestContext,
        collection: str,
        levels: Sequence[ReleaseLevel],
        charged: int,
        classes: frozenset[DataClass],
    ) -> None:
        gate, served = self._gate, self._entry
        asked = target.decision_id
        await gate.record(
            release_entry(
                gate, served, gate.node, requester, collection, levels, charged, classes, context, asked
            )
        )
