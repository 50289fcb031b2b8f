"""One search of one index, step by step: opened, weighed, released.

The asker drives it, and the asker may be hostile. So the number of steps is bounded, ids can be released
only if they were ranked in this very search, and every step asks anew what the requester may see
(sight.py). What is released is charged before it is handed out.

Whether the requester may search here at all was decided before; here it is only how much of what it
gets. Index calls block and run in the holder's threads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import DEPTH, ReleaseLevel, ScoredId
from mesh.core.shards import (
    MAX_RELEASES,
    MAX_WEIGHS,
    Opened,
    ReleasedBatch,
    ShardQuestion,
    require_release,
    require_weights,
)
from mesh.core.types import DataClass
from node.index.analysis import Analyzer
from node.index.base import Where
from node.index.index import DocumentIndex
from node.index.stored import StoredChunk
from node.retrieval.budgets import Budgets
from node.retrieval.sight import Cutter, Sight

_T = TypeVar("_T")


class Run(Protocol):
    """Runs a blocking function in a thread."""

    def __call__(self, work: Callable[[], _T]) -> Awaitable[_T]:
        """Its result."""
        ...


class OpenShard:
    """Use `Holder.open`. One event loop; one step at a time."""

    def __init__(
        self,
        question: ShardQuestion,
        index: DocumentIndex,
        *,
        look: Callable[[], Awaitable[Sight]],
        run: Run,
        budgets: Budgets,
        cutter: Cutter,
        analyzer: Analyzer,
        threshold: int,
    ) -> None:
        self._question = question
        self._index = index
        self._look = look
        self._run = run
        self._budgets = budgets
        self._cutter = cutter
        self._analyzer = analyzer
        self._threshold = threshold
        self._ranked: set[bytes] = set()
        self._weighs = self._releases = 0
        self.sight: Sight
        """What the latest step went by. `sight.require_current` right before its answer is sent."""
        self.opened: Opened

    async def begin(self) -> None:
        """Statistics and the vector ranking, in `opened`."""
        question, index = self._question, self._index
        sight = await self._look()
        visible = sight.from_level(ReleaseLevel.REFERENCE)
        fields = question.filters.fields

        def ask() -> tuple[int, tuple[int, ...], tuple[ScoredId, ...], int, bool]:
            documents, frequencies = index.statistics(question.terms, visible)
            where = self._where(sight)
            ranking = (
                index.by_vector(question.vector, question.depth, where, question.exact)
                if question.vector
                else ()
            )
            counted = count_matching(
                index, question.terms, question.vector, Where(sight.counted(fields), fields)
            )
            approximate = bool(question.vector) and not question.exact and index.approximate
            return documents, frequencies, ranking, counted, approximate

        documents, frequencies, by_vector, counted, approximate = await self._run(ask)
        sight.require_current()
        self.sight = sight
        self._ranked.update(each.id for each in by_vector)
        told, withheld = coarse(documents, frequencies, self._threshold)
        count, inexact = coarse_count(counted, self._threshold)
        self.opened = Opened(
            documents=documents,
            frequencies=told,
            frequencies_withheld=withheld,
            by_vector=by_vector,
            counted=count,
            counted_inexact=inexact,
            highest=sight.highest,
            approximate=approximate,
        )

    async def weigh(self, weights: Sequence[float]) -> tuple[ScoredId, ...]:
        """The keyword ranking by these weights of the question's terms; REQUEST_INVALID, RELEASE_DENIED."""
        question, checked = self._question, tuple(weights)
        self._weighs += 1
        if self._weighs > MAX_WEIGHS:
            raise MeshError(Reason.REQUEST_INVALID, f"a search weighs at most {MAX_WEIGHS} times")
        require_weights(checked, len(question.terms))
        sight = await self._look()
        where = self._where(sight)
        ranking = await self._run(
            lambda: self._index.by_terms(question.terms, checked, question.depth, where)
        )
        sight.require_current()
        self.sight = sight
        self._ranked.update(each.id for each in ranking)
        return ranking

    async def release(self, ids: Sequence[bytes], level: ReleaseLevel) -> ReleasedBatch:
        """The chunks of these ids, each at the level that the newest records allow, at most `level`.

        What may not be released or is gone is left out. REQUEST_INVALID for ids that this search did not
        rank; BUDGET_EXHAUSTED, and then nothing of it; RELEASE_DENIED.
        """
        wanted = tuple(ids)
        self._releases += 1
        if self._releases > MAX_RELEASES:
            raise MeshError(Reason.REQUEST_INVALID, f"a search releases at most {MAX_RELEASES} times")
        require_release(wanted, level)
        if not self._ranked.issuperset(wanted):
            raise MeshError(Reason.REQUEST_INVALID, "ids: expected some that this search has ranked")
        sight = await self._look()
        visible = sight.from_level(ReleaseLevel.REFERENCE)
        matches = self._analyzer.matcher(self._question.terms)

        def read() -> list[tuple[StoredChunk, ReleaseLevel]]:
            found = self._index.chunks(wanted, visible)
            return [
                (chunk, min(level, sight.levels[chunk.group]))
                for each in wanted
                if (chunk := found.get(each)) is not None
            ]

        chosen = await self._run(read)
        charged = sum(least >= ReleaseLevel.SNIPPET for _, least in chosen)
        sight.require_current()
        # Before they are cut: who cannot pay for them cannot have the node work on them either.
        await self._budgets.charge(self._question.requester, charged)
        classes = frozenset[DataClass]().union(*(chunk.document.classes for chunk, _ in chosen))
        batch = await self._run(
            lambda: ReleasedBatch(
                tuple(self._cutter.cut(chunk, least, matches) for chunk, least in chosen), charged, classes
            )
        )
        sight.require_current()
        self.sight = sight
        return batch

    def _where(self, sight: Sight) -> Where:
        """What both rankings are of."""
        fields = self._question.filters.fields
        return Where(sight.filtered(ReleaseLevel.REFERENCE, fields), fields)


def count_matching(index: DocumentIndex, terms: Sequence[str], vector: Sequence[float], where: Where) -> int:
    """How many chunks have one of the terms; without terms, how many pass the filters. At most DEPTH."""
    if not where.groups:
        return 0
    if terms:
        return len(index.by_terms(terms, (1.0,) * len(terms), DEPTH, where))
    return len(index.by_vector(vector, DEPTH, where)) if vector else 0


def coarse(documents: int, frequencies: tuple[int, ...], threshold: int) -> tuple[tuple[int, ...], bool]:
    """The frequencies as they are told, and whether some may have been rounded.

    Below the threshold all but 0 are told as the threshold. That a term occurs exactly so often looks the
    same: the mark, too, is set for both.
    """
    floor = min(threshold, documents)
    told = tuple(max(frequency, floor) if frequency else 0 for frequency in frequencies)
    return told, threshold > 1 and any(0 < frequency <= floor for frequency in told)


def coarse_count(counted: int, threshold: int) -> tuple[int, bool]:
    """The count as it is told, and whether it is a lower bound or withheld."""
    if counted < threshold:
        return 0, True
    return counted, counted >= DEPTH
