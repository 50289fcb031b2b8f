"""A corpus, what one central index would rank, and the same corpus spread over nodes that merge.

The central index is the oracle: brute force in float64, everything sorted, nothing shared with
mesh/core/merging.py. A `Shard` is an honest node of the plainest kind, speaking as nodes do on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesh.core.merging import Statistics, check_ranking, check_statistics, fuse, merge, weights_of
from mesh.core.retrieval import DEPTH, ScoredId
from mesh.core.types import SpiffeId

Hit = tuple[bytes, SpiffeId]  # ties go in this order


@dataclass(frozen=True)
class Corpus:
    """Chunks: `vectors` float32 [chunks, dimensions], `terms` how often each has each term."""

    ids: Sequence[bytes]
    vectors: NDArray[np.float32]
    terms: Sequence[Mapping[str, int]]
    average_length: float
    k1: float = 1.2
    b: float = 0.75


@dataclass(frozen=True)
class Question:
    """`vector` float32, `counts` how often the question has each term."""

    vector: NDArray[np.float32]
    counts: Mapping[str, int]


# --- one central index


class Central:
    """All chunks in one place; `homes[i]` is the node that chunk i would be on, for ties and names."""

    def __init__(self, corpus: Corpus, homes: Sequence[SpiffeId]) -> None:
        self._hits = list(zip(corpus.ids, homes, strict=True))
        self._vectors = corpus.vectors.astype(np.float64)
        lengths = np.array([sum(terms.values()) for terms in corpus.terms], np.float64)
        self._norms = corpus.k1 * (1 - corpus.b + corpus.b * lengths / corpus.average_length)
        words = {word for terms in corpus.terms for word in terms}
        self._tf = {word: np.zeros(len(lengths)) for word in words}
        for i, terms in enumerate(corpus.terms):
            for word, count in terms.items():
                self._tf[word][i] = count

    def rank(self, question: Question) -> dict[str, list[Hit]]:
        """The best DEPTH, for each mode."""
        cosines = (self._vectors * question.vector.astype(np.float64)).sum(axis=1).tolist()
        bm25 = np.zeros(len(self._hits))
        for term in sorted(question.counts):
            if term in self._tf:
                tf = self._tf[term]
                df = int((tf > 0).sum())
                idf = math.log(1 + (len(tf) - df + 0.5) / (df + 0.5))
                bm25 += idf * question.counts[term] * (tf / (tf + self._norms))
        vector = self._best(dict(enumerate(cosines)))
        keyword = self._best({i: score for i, score in enumerate(bm25.tolist()) if score > 0})
        fused: dict[Hit, float] = {}
        for ranking in (vector, keyword):
            for position, hit in enumerate(ranking):
                fused[hit] = fused.get(hit, 0.0) + 1 / (61 + position)
        hybrid = sorted(fused, key=lambda hit: (-fused[hit], hit))[:DEPTH]
        return {"vector": vector, "keyword": keyword, "hybrid": hybrid}

    def _best(self, scores: Mapping[int, float]) -> list[Hit]:
        order = sorted(scores, key=lambda i: (-scores[i], self._hits[i]))
        return [self._hits[i] for i in order[:DEPTH]]


# --- nodes


class Shard:
    """Some of the chunks, on one node: what is rarer than `threshold` it tells as the threshold."""

    def __init__(self, corpus: Corpus, rows: Sequence[int], threshold: int = 0) -> None:
        self._ids = [corpus.ids[i] for i in rows]
        self._vectors = corpus.vectors[list(rows)].astype(np.float64)
        self._threshold = threshold
        self._postings: dict[str, list[tuple[bytes, float]]] = {}
        for i in rows:
            length = sum(corpus.terms[i].values())
            norm = corpus.k1 * (1 - corpus.b + corpus.b * length / corpus.average_length)
            for term, tf in corpus.terms[i].items():
                self._postings.setdefault(term, []).append((corpus.ids[i], tf / (tf + norm)))

    def statistics(self, terms: Sequence[str]) -> tuple[int, list[int]]:
        """How many chunks, and in how many each term is."""
        floor = min(self._threshold, len(self._ids))
        exact = [len(self._postings.get(term, ())) for term in terms]
        return len(self._ids), [max(df, floor) if df else 0 for df in exact]

    def by_vector(self, vector: NDArray[np.float32]) -> tuple[bytes, list[float]]:
        """Its ranking, in wire form."""
        if not self._ids:
            return b"", []
        cosines = (self._vectors * vector.astype(np.float64)).sum(axis=1).tolist()
        return _wire(dict(zip(self._ids, cosines, strict=True)))

    def by_terms(self, terms: Sequence[str], weights: Sequence[float]) -> tuple[bytes, list[float]]:
        """Its ranking, in wire form. Sums go term by term, in the terms' order."""
        scores: dict[bytes, float] = {}
        for term, weight in zip(terms, weights, strict=True):
            for each, weighted in self._postings.get(term, ()):
                scores[each] = scores.get(each, 0.0) + weight * weighted
        return _wire({each: score for each, score in scores.items() if score > 0})


def _wire(scores: Mapping[bytes, float]) -> tuple[bytes, list[float]]:
    order = sorted(scores, key=lambda each: (-scores[each], each))[:DEPTH]
    return b"".join(order), [scores[each] for each in order]


def federated(
    shards: Mapping[SpiffeId, Shard], question: Question, *, local_statistics: bool = False
) -> dict[str, list[Hit]]:
    """What an asker makes of the nodes' answers for each mode, with mesh.core.merging and nothing else.

    `local_statistics` is the mistake of letting every node weigh by its own.
    """
    terms = sorted(question.counts)
    stats: dict[SpiffeId, Statistics] = {}
    for node, shard in shards.items():
        documents, frequencies = shard.statistics(terms)
        stats[node] = check_statistics(documents, frequencies, len(terms))
    everywhere = weights_of(terms, question.counts, list(stats.values()))
    vectors: dict[SpiffeId, tuple[ScoredId, ...]] = {}
    keywords: dict[SpiffeId, tuple[ScoredId, ...]] = {}
    for node, shard in shards.items():
        weights = weights_of(terms, question.counts, [stats[node]]) if local_statistics else everywhere
        vectors[node] = check_ranking(*shard.by_vector(question.vector), DEPTH, cosine=True)
        ranking = shard.by_terms(terms, weights)
        keywords[node] = check_ranking(*ranking, DEPTH, cosine=False, highest=sum(weights))
    vector, keyword = merge(vectors, DEPTH), merge(keywords, DEPTH)
    hybrid = fuse(vector, keyword)[:DEPTH]
    return {
        mode: [(each.id, each.node) for each in ranking]
        for mode, ranking in (("vector", vector), ("keyword", keyword), ("hybrid", hybrid))
    }


def spread(
    corpus: Corpus, homes: Sequence[int], nodes: Sequence[SpiffeId], threshold: int = 0
) -> dict[SpiffeId, Shard]:
    """The corpus over the nodes: chunk i on `nodes[homes[i]]`. Nodes may be left with nothing."""
    return {
        node: Shard(corpus, [i for i, home in enumerate(homes) if home == number], threshold)
        for number, node in enumerate(nodes)
    }


def by_topic(vectors: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """k-means, so that each node has a topic of its own; sizes come as they come."""
    points = vectors.astype(np.float64)
    if len(points) <= count:
        return [i % count for i in range(len(points))]
    random = np.random.default_rng(seed)
    centres = points[random.choice(len(points), count, replace=False)]
    labels: NDArray[np.int64] = np.zeros(len(points), np.int64)
    for _ in range(20):
        labels = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
        for number in range(count):
            if (labels == number).any():
                centres[number] = points[labels == number].mean(axis=0)
    return [int(label) for label in labels]


def at_random(size: int, count: int, seed: int, *, uneven: bool = False) -> list[int]:
    """By chance; `uneven` gives each node half of what the one before it gets."""
    shares = np.array([0.5**number if uneven else 1.0 for number in range(count)])
    found = np.random.default_rng(seed).choice(count, size=size, p=shares / shares.sum())
    return [int(number) for number in found]
