"""Asking: one question to every node that may see it, and the ranking that one central index would give.

First each node says what it counts and ranks by the vector; then, with the term weights that these counts
give together, it ranks by terms; then the best hits of all are asked for their text, and only these. What
is merged is mesh/core/merging.py's to say; what becomes of each node, panel.py's.

Weights rest on the counts of everybody, so when a node drops out the others weigh again without it: the
result is the central ranking over exactly the nodes that it says have answered. Time for that is kept
back: a step takes at most a share of what is left, unless nothing can follow it.

Text, vector and terms of a question are payload (I1): they go to permitted nodes, and nowhere else.

A requester that knows a chunk's cosine with enough questions of its own can solve for the chunk's vector,
and a vector can be turned back into text. So exact scores are for requesters who get the passages anyway;
the others' scores follow from the ranks. (Nodes need exact ones to merge: see SECURITY.md.)
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import Ranked, Statistics, conflicts, fuse, merge, reciprocal_rank, weights_of
from mesh.core.placement import Placer
from mesh.core.questions import Partial, SearchDecided, SearchEvent, SearchQuestion, SearchResult, is_complete
from mesh.core.retrieval import DEPTH, CollectionSpec, Hit, Reference, Released, ReleaseLevel, SearchMode
from mesh.core.shards import MAX_RELEASES, MAX_WEIGHS, ShardQuestion
from mesh.core.types import Action, Principal, RequestContext, SpiffeId
from mesh.rpc.placement_service import View
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.span_attributes import SpanName
from node.index.analysis import analyzer_of
from node.index.embedding import TextEmbedder
from node.retrieval.panel import Emit, Member, Panel, Panels, Plan

_LOG = logging.getLogger(__name__)

# Of the time that is left, when more steps may have to follow.
_SHARE = 0.6


class Asker:
    """For one node. `clock` is Unix seconds."""

    def __init__(
        self,
        *,
        node: SpiffeId,
        view: View,
        placer: Placer,
        panels: Panels,
        embedder: TextEmbedder,
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._view = view
        self._placer = placer
        self._panels = panels
        self._embedder = embedder
        self._clock = clock

    def decide(self, requester: SpiffeId, context: RequestContext, collection: str, decision_id: str) -> Plan:
        """Who may be asked, from metadata alone (I2). To be recorded before anybody is.

        COLLECTION_UNKNOWN if this node's authority defines no such collection. Raises like Placer.place.
        """
        snapshot = self._view.snapshot
        spec = snapshot.collections.get(self._node.trust_domain, {}).get(collection)
        if spec is None:
            raise MeshError(
                Reason.COLLECTION_UNKNOWN, f"{self._node.trust_domain} defines no collection of this name"
            )
        with spans.span(SpanName.PLACE) as span:
            decision = self._placer.fan_out(
                snapshot,
                self._view.statuses,
                principal=Principal(requester),
                context=context,
                spec=spec,
                placer=self._node,
                now=self._clock(),
                decision_id=decision_id,
            )
            span.set(names.of_decision(decision, Action.SEARCH))
        return Plan(requester, context, spec, decision, snapshot)

    async def search(self, plan: Plan, question: SearchQuestion) -> AsyncGenerator[SearchEvent, None]:
        """SearchDecided, Partial as nodes answer if asked for, SearchResult last.

        Raises EMBEDDER_MISMATCH, REQUEST_INVALID (no words left to search by) or DEADLINE_EXCEEDED before
        the first event; afterwards, nodes that fail cost coverage. Closing it ends every call.
        """
        ends = asyncio.get_running_loop().time() + question.timeout_s
        try:
            async with asyncio.timeout_at(ends):
                wanted = await self._wanted(plan, question)
        except TimeoutError:
            raise MeshError(Reason.DEADLINE_EXCEEDED, "the question could not be embedded in time") from None
        yield SearchDecided(plan.decision)
        async with self._panels.convene(plan, question.timeout_s) as panel:
            search = _Search(panel, question, wanted, ends)
            async with aclosing(search.run()) as partials:
                async for partial in partials:
                    yield partial
            coverage = panel.coverage()
            yield SearchResult(search.hits, coverage, is_complete(coverage, plan.holders))

    async def _wanted(self, plan: Plan, question: SearchQuestion) -> _Wanted:
        """The question as nodes get it, and how often it has each term."""
        counts: Mapping[str, int] = {}
        vector: Sequence[float] = ()
        if question.mode is not SearchMode.VECTOR:
            counts = analyzer_of(plan.spec.analyzer).query_terms(question.query)
            if not counts and question.mode is SearchMode.KEYWORD:
                raise MeshError(
                    Reason.REQUEST_INVALID,
                    "query: expected a word that is not a stop word, or another mode than keyword",
                )
        if question.mode is not SearchMode.KEYWORD and plan.decision.permitted:
            vector = await self._embed(plan.spec, question.query)
        shard = ShardQuestion(
            requester=plan.requester,
            context=plan.context,
            collection=plan.spec.name,
            digest=plan.spec.digest,
            vector=tuple(vector),
            terms=tuple(counts),
            filters=question.filters,
            # One ranking is cut to k; two are fused over their whole depth.
            depth=DEPTH if question.mode is SearchMode.HYBRID else question.k,
            exact=question.exact,
        )
        return _Wanted(shard, counts)

    async def _embed(self, spec: CollectionSpec, text: str) -> list[float]:
        """As float32, which is what travels: every node is asked the very same, this one included."""
        embedder = self._embedder
        if embedder.dimensions != spec.dimensions or await embedder.digest() != spec.embedder_digest:
            raise MeshError(
                Reason.EMBEDDER_MISMATCH,
                "this node's embedder is not the collection's: ask a node that has it, or by keyword",
            )
        (vector,) = await embedder.embed([text], question=True)
        return array("f", vector).tolist()


@dataclass(frozen=True, slots=True)
class _Wanted:
    shard: ShardQuestion
    counts: Mapping[str, int]


class _Search:
    """One search under way. `hits` are there when `run` has ended."""

    def __init__(self, panel: Panel, question: SearchQuestion, wanted: _Wanted, ends: float) -> None:
        self._panel = panel
        self._question = question
        self._shard = wanted.shard
        self._counts = wanted.counts
        self._ends = ends
        self._releases = question.level > ReleaseLevel.REFERENCE
        self.hits: tuple[Hit, ...] = ()

    async def run(self) -> AsyncGenerator[Partial, None]:
        """The steps, again where a node dropped out, until what is left of the panel has taken them all."""
        panel = self._panel
        last = not self._shard.terms and not self._releases
        by_vector = bool(self._shard.vector)
        async with aclosing(panel.run(panel.live, self._open, self._time(last))) as opened:
            async for member, _ in opened:
                if by_vector and (partial := self._partial(member)) is not None:
                    yield partial
        while True:
            while stale := self._stale():
                alone = len(panel.live) == 1 and not self._releases
                async with aclosing(panel.run(stale, self._weigh, self._time(alone))) as weighed:
                    async for member, _ in weighed:
                        if not by_vector and (partial := self._partial(member)) is not None:
                            yield partial
            top = self._top(panel.live)
            wanted = self._to_release(top)
            if not wanted:
                break

            async def release(member: Member, _: Emit, wanted: Mapping[Member, list[bytes]] = wanted) -> None:
                await self._release(member, wanted[member])

            # Nothing is yielded in between: whoever stops listening cancels this very step.
            async for _ in panel.run(wanted, release, self._time(len(panel.live) == 1)):
                pass
        self.hits = self._shown(top)
        rankings = {member.node: member.opened.by_vector for member in panel.live if member.opened}
        for one, two in conflicts(rankings):
            _LOG.warning("%s and %s claim the same chunks", one, two)

    def _time(self, last: bool) -> float:
        left = max(0.0, self._ends - asyncio.get_running_loop().time())
        return left if last else left * _SHARE

    async def _open(self, member: Member, _: Emit) -> None:
        await member.peer.connect(member.target)
        opened = await member.peer.open(self._panel.permitted(member), self._shard)
        member.opened = opened
        member.highest, member.counted = opened.highest, opened.counted
        member.counted_inexact = opened.counted_inexact

    def _stale(self) -> list[Member]:
        """Those that have not weighed with the weights of everybody that is left; sets them."""
        live = self._panel.live
        if not self._shard.terms or not live:
            return []
        stats = [Statistics(m.opened.documents, m.opened.frequencies) for m in live if m.opened]
        weights = weights_of(self._shard.terms, self._counts, stats)
        stale = [member for member in live if member.weights != weights]
        for member in stale:
            member.weights = weights
        return stale

    async def _weigh(self, member: Member, _: Emit) -> None:
        if member.weighs == MAX_WEIGHS:
            raise MeshError(Reason.NODE_LOST, "too many other nodes dropped out: ask again")
        member.weighs += 1
        member.by_terms = await member.peer.weigh(self._panel.permitted(member), member.weights)

    async def _release(self, member: Member, ids: list[bytes]) -> None:
        member.releases += 1
        member.asked.update(ids)
        batch = await member.peer.release(self._panel.permitted(member), ids, self._question.level)
        member.charged += batch.charged
        member.released.update((chunk.id, chunk) for chunk in batch.chunks)

    def _to_release(self, top: Sequence[Ranked]) -> dict[Member, list[bytes]]:
        """What is still to be asked for, of nodes that may release anything and can be asked once more."""
        wanted: dict[Member, list[bytes]] = {}
        if not self._releases:
            return wanted
        for each in top:
            member = self._panel.members[each.node]
            more = member.highest > ReleaseLevel.REFERENCE and member.releases < MAX_RELEASES
            if more and each.id not in member.asked:
                wanted.setdefault(member, []).append(each.id)
        return wanted

    def _top(self, members: Sequence[Member]) -> tuple[Ranked, ...]:
        question, depth = self._question, self._shard.depth
        if question.level < ReleaseLevel.REFERENCE:
            return ()
        vector = merge({m.node: m.opened.by_vector for m in members if m.opened}, depth)
        if question.mode is SearchMode.VECTOR:
            return vector[: question.k]
        keyword = merge({m.node: m.by_terms for m in members}, depth)
        if question.mode is SearchMode.KEYWORD:
            return keyword[: question.k]
        return fuse(vector, keyword)[: question.k]

    def _partial(self, member: Member) -> Partial | None:
        """What is known after one node more: references, by the one ranking that is there."""
        if not self._question.partial or member.failure is not None:
            return None
        answered = [m for m in self._panel.live if m.opened is not None]
        if self._shard.vector:
            found = merge({m.node: m.opened.by_vector for m in answered if m.opened}, self._question.k)
        else:
            found = merge({m.node: m.by_terms for m in answered}, self._question.k)
        if self._question.level < ReleaseLevel.REFERENCE:
            found = ()
        return Partial(self._shown(found), member.coverage())

    def _shown(self, ranked: Sequence[Ranked]) -> tuple[Hit, ...]:
        """As the requester gets them; what a node has taken back since it ranked it is left out."""
        shown = []
        for each in ranked:
            member = self._panel.members[each.node]
            released = member.released.get(each.id)
            if released is None and each.id in member.asked:
                continue
            shown.append((each, released or Released(each.id, ReleaseLevel.REFERENCE)))
        exact = self._question.mode is SearchMode.HYBRID or all(
            released.level is ReleaseLevel.PASSAGE for _, released in shown
        )
        return tuple(
            Hit(
                rank,
                each.score if exact else reciprocal_rank(rank),
                Reference(each.node, self._shard.collection, each.id),
                released,
            )
            for rank, (each, released) in enumerate(shown, 1)
        )
