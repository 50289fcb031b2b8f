"""The node as the holder of documents: what it says of them, to whom, and how much.

    shard = await holder.open(question)          # budget, levels, statistics, vector ranking
    ranking = await shard.weigh(weights)         # keyword ranking
    batch = await shard.release(ids, level)      # texts, at the level of the moment, charged

Rules kept here: nothing is looked up before the requester's budget has room; a collection is searched
only under the settings that the asker ranks by (COLLECTION_MISMATCH); how much of a document may leave is
decided by sight.py at the moment of sending, for the requester and not for the node that asks for it.

That the requester may search here at all is decided before (shard_service.py, or local.py at the asker's
own node), as is the evidence. Index calls block: they run in `threads` threads of the holder's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import Released, ReleaseLevel, require_collection_name
from mesh.core.shards import (
    Answered,
    Opened,
    ReleasedBatch,
    ShardAnswerQuestion,
    ShardQuestion,
    require_id,
    require_release,
)
from mesh.core.types import DataClass, RequestContext, SpiffeId
from node.index.analysis import analyzer_of
from node.index.index import DocumentIndex
from node.retrieval.budgets import Budgets
from node.retrieval.open_shard import OpenShard
from node.retrieval.responder import LocalAnswer, Responder
from node.retrieval.sight import Cutter, Sight, Sights

__all__ = [
    "Answered",
    "Fetched",
    "Holder",
    "OpenShard",
    "Opened",
    "ReleasedBatch",
    "ShardAnswerQuestion",
    "ShardQuestion",
]

_T = TypeVar("_T")


class Indexes(Protocol):
    """The node's indexes: node/index/library.py."""

    def get(self, name: str) -> DocumentIndex:
        """COLLECTION_UNKNOWN, COLLECTION_MISMATCH, INDEX_UNAVAILABLE."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """One passage, what its level went by, and its document's classes."""

    released: Released
    sight: Sight
    classes: frozenset[DataClass] = frozenset()

    @property
    def charged(self) -> int:
        """What it takes of the requester's budget."""
        return int(self.released.level >= ReleaseLevel.SNIPPET)


class Holder:
    """Of one node. One event loop; `close` when done. `threshold`: frequencies and counts below it are
    not told exactly (0: all are)."""

    def __init__(
        self,
        indexes: Indexes,
        *,
        sights: Sights,
        budgets: Budgets,
        cutter: Cutter,
        responder: Responder,
        threads: int = 2,
        threshold: int = 0,
    ) -> None:
        self._indexes = indexes
        self._sights = sights
        self._budgets = budgets
        self._cutter = cutter
        self._responder = responder
        self._threshold = threshold
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="index")

    async def open(self, question: ShardQuestion) -> OpenShard:
        """Begins a search: `opened` of what it returns is the first answer.

        COLLECTION_UNKNOWN, COLLECTION_MISMATCH, INDEX_UNAVAILABLE, REQUEST_INVALID for a vector of another
        length than the collection's, BUDGET_EXHAUSTED, RELEASE_DENIED.
        """
        index = self._find(question.collection, question.digest)
        if question.vector and len(question.vector) != index.spec.dimensions:
            raise MeshError(
                Reason.REQUEST_INVALID,
                f"vector: expected {index.spec.dimensions} numbers, as the collection has",
            )
        self._budgets.require_depth(question.depth)
        self._budgets.search(question.requester)
        shard = OpenShard(
            question,
            index,
            look=lambda: self._look(index, question.requester, question.context),
            run=self._run,
            budgets=self._budgets,
            cutter=self._cutter,
            analyzer=analyzer_of(index.spec.analyzer),
            threshold=self._threshold,
        )
        await shard.begin()
        return shard

    async def respond(self, question: ShardAnswerQuestion) -> LocalAnswer:
        """Sentences that rest on this node's own passages, charged, with the sight that they went by.

        Errors as `open`.
        """
        index = self._find(question.collection, question.digest)
        self._budgets.search(question.requester)
        return await self._responder.respond(
            question,
            index,
            look=lambda: self._look(index, question.requester, question.context),
            run=self._run,
            analyzer=analyzer_of(index.spec.analyzer),
            threshold=self._threshold,
        )

    async def fetch(
        self,
        requester: SpiffeId,
        context: RequestContext,
        collection: str,
        id: bytes,
        level: ReleaseLevel,
    ) -> Fetched:
        """One passage, at most at `level`, charged.

        REFERENCE_UNKNOWN if there is none that the requester may know of; RELEASE_DENIED if it may know of
        it and asks for its text, but gets none; BUDGET_EXHAUSTED.
        """
        require_collection_name(collection)
        require_id(id)
        require_release((id,), level)
        index = self._indexes.get(collection)
        self._budgets.search(requester)
        sight = await self._look(index, requester, context)
        visible = sight.from_level(ReleaseLevel.REFERENCE)

        def read() -> Fetched | None:
            chunk = index.chunks((id,), visible).get(id)
            if chunk is None:
                return None
            released = self._cutter.cut(chunk, min(level, sight.levels[chunk.group]), lambda _: False)
            return Fetched(released, sight, chunk.document.classes)

        found = await self._run(read)
        if found is None:
            raise MeshError(Reason.REFERENCE_UNKNOWN, "this node holds no such chunk for the caller")
        sight.require_current()
        if found.released.level < ReleaseLevel.SNIPPET <= level:
            raise MeshError(Reason.RELEASE_DENIED, "no more than the reference is released to the caller")
        await self._budgets.charge(requester, found.charged)
        sight.require_current()
        return found

    def close(self) -> None:
        """Starts nothing new in its threads; what runs finishes."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _find(self, collection: str, digest: str) -> DocumentIndex:
        index = self._indexes.get(collection)
        if index.spec.digest != digest:
            raise MeshError(
                Reason.COLLECTION_MISMATCH,
                "this node's documents are indexed by other settings than the question's",
            )
        return index

    async def _look(self, index: DocumentIndex, requester: SpiffeId, context: RequestContext) -> Sight:
        groups = await self._run(index.groups)
        return self._sights.look(requester, context, index.spec.name, groups)

    def _run(self, work: Callable[[], _T]) -> Awaitable[_T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)
