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

from mesh.core.merging import Ranked, Statistics, check_ranking, check_statistics, fuse, merge, weights_of
from mesh.core.retrieval import DEPTH, ScoredId
from mesh.core.types import SpiffeId

Floats = NDArray[np.float64]
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
        self._corpus = corpus
        self._hits = list(zip(corpus.ids, homes, strict=True))
        self._vectors = corpus.vectors.astype(np.float64)
        lengths = np.array([sum(terms.values()) for terms in corpus.terms], np.float64)
        self._norms = corpus.k1 * (1 - corpus.b + corpus.b * lengths / corpus.average_length)

    def rank(self, question: Question, mode: str) -> list[Hit]:
        """The best DEPTH."""
        if mode == "vector":
            scores = (self._vectors * question.vector.astype(np.float64)).sum(axis=1)
            return self._best(dict(enumerate(scores.tolist())))
        if mode == "keyword":
            scores = np.zeros(len(self._hits))
            for term in sorted(question.counts):
                tf = np.array([terms.get(term, 0) for terms in self._corpus.terms], np.float64)
                df = int((tf > 0).sum())
                idf = math.log(1 + (len(tf) - df + 0.5) / (df + 0.5))
                scores += idf * question.counts[term] * (tf / (tf + self._norms))
            return self._best({i: score for i, score in enumerate(scores.tolist()) if score > 0})
        fused: dict[Hit, float] = {}
        for one in ("vector", "keyword"):
            for position, hit in enumerate(self.rank(question, one)):
                fused[hit] = fused.get(hit, 0.0) + 1 / (61 + position)
        return sorted(fused, key=lambda hit: (-fused[hit], hit))[:DEPTH]

    def _best(self, scores: Mapping[int, float]) -> list[Hit]:
        order = sorted(scores, key=lambda i: (-scores[i], self._hits[i]))
        return [self._hits[i] for i in order[:DEPTH]]


# --- nodes


class Shard:
    """Some of the chunks, on one node. `local_statistics` would be what it weighs by if left alone."""

    def __init__(self, corpus: Corpus, rows: Sequence[int], threshold: int = 0) -> None:
        self._rows = [(corpus.ids[i], corpus.vectors[i].astype(np.float64), corpus.terms[i]) for i in rows]
        self._corpus, self._threshold = corpus, threshold

    def statistics(self, terms: Sequence[str]) -> tuple[int, list[int]]:
        """How many chunks, and in how many each term is; what is rarer than the threshold is rounded up."""
        exact = [sum(term in each for _, _, each in self._rows) for term in terms]
        floor = min(self._threshold, len(self._rows))
        return len(self._rows), [max(df, floor) if df else 0 for df in exact]

    def by_vector(self, vector: NDArray[np.float32]) -> tuple[bytes, list[float]]:
        """Its ranking, in wire form."""
        wide = vector.astype(np.float64)
        return _wire({each: float((row * wide).sum()) for each, row, _ in self._rows})

    def by_terms(self, terms: Sequence[str], weights: Sequence[float]) -> tuple[bytes, list[float]]:
        """Its ranking, in wire form."""
        scores = {}
        for each, _, counts in self._rows:
            length = sum(counts.values())
            norm = self._corpus.k1 * (
                1 - self._corpus.b + self._corpus.b * length / self._corpus.average_length
            )
            score = 0.0
            for term, weight in zip(terms, weights, strict=True):
                if term in counts:
                    score += weight * (counts[term] / (counts[term] + norm))
            if score > 0:
                scores[each] = score
        return _wire(scores)


def _wire(scores: Mapping[bytes, float]) -> tuple[bytes, list[float]]:
    order = sorted(scores, key=lambda each: (-scores[each], each))[:DEPTH]
    return b"".join(order), [scores[each] for each in order]


def federated(
    shards: Mapping[SpiffeId, Shard], question: Question, mode: str, *, local_statistics: bool = False
) -> list[Hit]:
    """What an asker makes of the nodes' answers, with mesh.core.merging and nothing else.

    `local_statistics` is the mistake of letting every node weigh by its own.
    """
    terms = sorted(question.counts)
    stats: dict[SpiffeId, Statistics] = {}
    for node, shard in shards.items():
        documents, frequencies = shard.statistics(terms)
        stats[node] = check_statistics(documents, frequencies, len(terms))
    everywhere = weights_of(terms, question.counts, list(stats.values()))
    vector: dict[SpiffeId, tuple[ScoredId, ...]] = {}
    keyword: dict[SpiffeId, tuple[ScoredId, ...]] = {}
    for node, shard in shards.items():
        weights = weights_of(terms, question.counts, [stats[node]]) if local_statistics else everywhere
        vector[node] = check_ranking(*shard.by_vector(question.vector), DEPTH, cosine=True)
        keyword[node] = check_ranking(
            *shard.by_terms(terms, weights), DEPTH, cosine=False, highest=sum(weights)
        )
    merged: tuple[Ranked, ...]
    if mode == "vector":
        merged = merge(vector, DEPTH)
    elif mode == "keyword":
        merged = merge(keyword, DEPTH)
    else:
        merged = fuse(merge(vector, DEPTH), merge(keyword, DEPTH))[:DEPTH]
    return [(each.id, each.node) for each in merged]


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
    labels = np.zeros(len(points), np.int64)
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
