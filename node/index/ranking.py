"""Rankings as every node computes them: float64 scores over what is durable, ties by id.

A store's scores are float32 and the store may lag or be damaged. So it is only asked for candidates;
their scores are computed anew from the durable store, in one fixed order of operations, so that equal
chunks have equal scores on every node and whatever was asked together with them:

- vectors: the sum over the dimensions of float64 products of the float32 values (numpy's pairwise sum);
- terms: ((w1 * t1) + w2 * t2) + ..., terms in the asker's order, t = durable.term_weight.

`rank` asks the store for more while chunks that it left out could still belong into the ranking.
`scan` looks at everything and needs no store; it is what `rank` must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mesh.core.retrieval import CollectionSpec, ScoredId
from node.index.base import Scored, VectorStore, Where
from node.index.checks import MAX_DEPTH, MIN_WEIGHT
from node.index.durable import decode_terms, term_weight
from node.index.view import View

SLACK = 16  # asked for beyond the depth, so that ties at the end seldom need a second question
# How far a store's float32 may be off: 1e-5, and for a sum of terms in proportion to it. Its error is
# some 1e-7 in practice. What is off by more than the second is not a rounding error.
TOLERANCE, DAMAGE = 1e-5, 1e-2
_AT_ONCE = 2048
_KEPT = 8192


class StoreDisagreesError(Exception):
    """The vector store has what the durable store has not, or scores it otherwise: it is damaged."""


class Measure(Protocol):
    """What a chunk's score is. `columns` of its row are what it is computed from."""

    columns: str

    def scores(self, rows: Sequence[tuple[Any, ...]]) -> NDArray[np.float64]:
        """One score per row (id, *columns)."""
        ...

    def counts(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which scores rank at all."""
        ...

    def margin(self, score: float, of: float) -> float:
        """The error `of` (TOLERANCE or DAMAGE) for a score of this size."""
        ...

    def ask(self, store: VectorStore, need: int, where: Where) -> Sequence[Scored]:
        """The store's own search for it."""
        ...


class VectorMeasure:
    """Cosine with a question of unit length, float32, shape (dimensions,)."""

    columns = "c.vector"

    def __init__(self, question: NDArray[np.float32], *, exact: bool) -> None:
        self._question, self._exact = question.astype(np.float64), exact

    def scores(self, rows: Sequence[tuple[Any, ...]]) -> NDArray[np.float64]:
        """Cosines."""
        stored = np.frombuffer(b"".join(row[1] for row in rows), "<f4")
        vectors = stored.reshape(len(rows), len(self._question))
        # Not a matrix product: BLAS may sum equal rows in different orders, and a tie would be none.
        products: NDArray[np.float64] = vectors.astype(np.float64) * self._question
        found: NDArray[np.float64] = products.sum(axis=1)
        return found

    def counts(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """All."""
        return np.ones(len(scores), np.bool_)

    def margin(self, score: float, of: float) -> float:
        """The same for all cosines."""
        return of

    def ask(self, store: VectorStore, need: int, where: Where) -> Sequence[Scored]:
        """By vector."""
        return store.by_vector(self._question.tolist(), need, where, exact=self._exact)


class TermMeasure:
    """BM25 with the asker's weights, in the asker's order; `numbers` are the index's own, or None."""

    columns = "c.terms, c.length"

    def __init__(self, spec: CollectionSpec, numbers: Sequence[int | None], weights: Sequence[float]) -> None:
        self._spec = spec
        self._terms = [(n, w) for n, w in zip(numbers, weights, strict=True) if n is not None and w > 0]

    def scores(self, rows: Sequence[tuple[Any, ...]]) -> NDArray[np.float64]:
        """Sums of weight times weight; 0 for chunks with none of the terms."""
        sizes = [len(row[1]) // 8 for row in rows]
        pairs = decode_terms(b"".join(row[1] for row in rows))
        row_of = np.repeat(np.arange(len(rows)), sizes)
        lengths = np.array([row[2] for row in rows], np.float64)
        total = np.zeros(len(rows), np.float64)
        for number, weight in self._terms:
            at = np.flatnonzero(pairs[:, 0] == number)
            where = row_of[at]
            total[where] += weight * term_weight(self._spec, pairs[at, 1].astype(np.float64), lengths[where])
        return total

    def counts(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Those above 0."""
        return scores > 0

    def margin(self, score: float, of: float) -> float:
        """In proportion."""
        return of * abs(score)

    def ask(self, store: VectorStore, need: int, where: Where) -> Sequence[Scored]:
        """By terms, if any are left."""
        weights = {number: max(weight, MIN_WEIGHT) for number, weight in self._terms}
        return store.by_terms(weights, need, where) if weights else ()


def rank(
    view: View,
    measure: Measure,
    ask: Callable[[int], Sequence[Scored]],
    touched: Callable[[], Collection[bytes]],
    depth: int,
    where: Where,
) -> tuple[ScoredId, ...]:
    """The `depth` best, exactly as `scan` would have it if the store's search is exact.

    `ask(n)` is the store's own search. `touched()` are chunks that changed lately, of which the store may
    have another version than `view`: what it says of them is ignored, and they are always candidates.
    Raises StoreDisagreesError.
    """
    if depth == 0:
        return ()
    need = depth + SLACK
    while need <= MAX_DEPTH:
        found = ask(need)
        changed = frozenset(touched())
        settled = [each for each in found if each.id not in changed]
        candidates = dict.fromkeys([*(each.id for each in settled), *changed])
        rows = list(view.candidates(candidates, measure.columns, where))
        scores = measure.scores(rows)
        _check(rows, scores, measure, settled, strict=not view.any_expired())
        best = _best(rows, scores, measure, depth)
        if len(found) < need:
            return best
        if len(best) == depth:
            # Whatever the store left out scores, by its own reckoning, no more than the last it gave.
            cut = best[-1].score
            if found[-1].score < cut - measure.margin(cut, TOLERANCE):
                return best
        need *= 2
    return scan(view, measure, depth, where)


def scan(view: View, measure: Measure, depth: int, where: Where) -> tuple[ScoredId, ...]:
    """The `depth` best by looking at every chunk that may be found."""
    best: list[ScoredId] = []
    if depth > 0:
        for rows in view.every(measure.columns, where, _AT_ONCE):
            best += _best(rows, measure.scores(rows), measure, depth)
            if len(best) > _KEPT:
                best = _first(best, depth)
    return tuple(_first(best, depth))


def _best(
    rows: Sequence[tuple[Any, ...]], scores: NDArray[np.float64], measure: Measure, depth: int
) -> tuple[ScoredId, ...]:
    at = np.flatnonzero(measure.counts(scores))
    if len(at) > depth:
        cut = np.partition(scores[at], len(at) - depth)[len(at) - depth]
        at = at[scores[at] >= cut]
    return tuple(_first([ScoredId(rows[i][0], float(scores[i])) for i in at.tolist()], depth))


def _first(found: list[ScoredId], depth: int) -> list[ScoredId]:
    return sorted(found, key=lambda each: (-each.score, each.id))[:depth]


def _check(
    rows: Sequence[tuple[Any, ...]],
    scores: NDArray[np.float64],
    measure: Measure,
    settled: Sequence[Scored],
    *,
    strict: bool,
) -> None:
    """Whether what the store says of chunks that have not changed is so."""
    known = dict(zip((row[0] for row in rows), scores.tolist(), strict=True))
    for each in settled:
        score = known.get(each.id)
        if score is None:
            if strict:
                raise StoreDisagreesError("a chunk that is not there, or must not be found")
        elif not abs(each.score - score) <= measure.margin(score, DAMAGE):
            raise StoreDisagreesError("a score that is another")
