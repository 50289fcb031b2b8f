"""Merging: the ranking that one central index would give, from what the nodes say.

Rules kept here:

- Equal to the central ranking, not close to it. Scores are compared as they came, float64; order is by
  score, then by chunk id, then by node. Every node returns its true top `depth`, so the best `depth` of
  all are among what was returned.
- BM25 needs statistics of the whole: documents and frequencies are summed over the nodes, the weights
  that go back are idf x how often the question has the term, and a node's sums of products are then the
  central scores (DESIGN: Index and federation). Reciprocal rank fusion happens once, over the merged
  rankings: inside each node it would rank against that node's neighbours only.
- A peer's word is not taken as it comes. What no honest node can say (infinity, NaN, disorder,
  duplicates, more than asked for, ids nobody asked for, a text above its level) is PEER_MISBEHAVED, and
  then nothing of that answer is used. What a node could say honestly but does not mean (a false
  frequency, a score that is too good) cannot be seen from here.
- Two nodes may claim one id. They do not become one hit: a hit is an id at a node.

Pure. It knows nothing of how rankings travel, of documents or of policies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ID_BYTES, Released, ReleaseLevel, ScoredId
from mesh.core.types import SpiffeId

RRF_K = 60
MAX_COUNT = 2**53  # what a float64 holds exactly
MAX_TEXT_BYTES = 64 * 1024  # of one released chunk
MAX_LABEL_BYTES = 4 * 1024  # of its title, document and source
# Sums of rounded products stay this close to what they would be: a unit vector's cosine with itself
# need not be exactly 1.
_COSINE_LIMIT = 1.0001
_SUM_TOLERANCE = 1 + 1e-9


class Ranked(NamedTuple):
    """A chunk in a merged ranking: its 16-byte id, the node that holds it, and its score."""

    node: SpiffeId
    id: bytes
    score: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a node says of the chunks that the requester may see: how many there are, and in how many each
    of the question's terms occurs, in the terms' order. Raises PEER_MISBEHAVED if that cannot be."""

    documents: int
    frequencies: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.documents <= MAX_COUNT:
            _misbehaved("expected a number of chunks that can be")
        if not all(0 <= frequency <= self.documents for frequency in self.frequencies):
            _misbehaved("expected frequencies from 0 to the number of chunks")


def check_statistics(documents: int, frequencies: Iterable[int], terms: int) -> Statistics:
    """The statistics of a node that was asked about so many terms; raises PEER_MISBEHAVED."""
    found = Statistics(documents, tuple(frequencies))
    if len(found.frequencies) != terms:
        _misbehaved("expected one frequency for each term")
    return found


def idf(documents: int, frequency: int) -> float:
    """A term's inverse document frequency, as Lucene's BM25Similarity has it: never below 0."""
    return math.log(1.0 + (documents - frequency + 0.5) / (frequency + 0.5))


def weights_of(
    terms: Sequence[str], counts: Mapping[str, int], stats: Sequence[Statistics]
) -> tuple[float, ...]:
    """The weight of each of the question's terms, in their order, over all the nodes' chunks together.

    `counts` says how often the question has each term. Raises PEER_MISBEHAVED if some node's statistics
    are about another number of terms.
    """
    if any(len(each.frequencies) != len(terms) for each in stats):
        _misbehaved("expected one frequency for each term")
    documents = sum(each.documents for each in stats)
    return tuple(
        idf(documents, sum(each.frequencies[i] for each in stats)) * counts[term]
        for i, term in enumerate(terms)
    )


def check_ranking(
    ids: bytes, scores: Sequence[float], depth: int, *, cosine: bool, highest: float = math.inf
) -> tuple[ScoredId, ...]:
    """A node's ranking as it came: ids one after the other, and their scores.

    `depth` is what was asked for. Cosines lie between -1 and 1. Keyword scores lie above 0 and are at
    most `highest`, the sum of the question's weights: no term counts more than once its weight. Raises
    PEER_MISBEHAVED.
    """
    if len(ids) != ID_BYTES * len(scores):
        _misbehaved(f"expected one score for each id of {ID_BYTES} bytes")
    if len(scores) > depth:
        _misbehaved("expected no more hits than were asked for")
    if not all(math.isfinite(score) for score in scores):
        _misbehaved("expected finite scores")
    if cosine:
        if any(abs(score) > _COSINE_LIMIT for score in scores):
            _misbehaved("expected cosines from -1 to 1")
    elif any(not 0 < score <= highest * _SUM_TOLERANCE for score in scores):
        _misbehaved("expected scores above 0, and at most the sum of the weights")
    found = tuple(
        ScoredId(ids[i * ID_BYTES : (i + 1) * ID_BYTES], float(score)) for i, score in enumerate(scores)
    )
    if len({each.id for each in found}) != len(found):
        _misbehaved("expected each id once")
    if any((-one.score, one.id) > (-two.score, two.id) for one, two in itertools.pairwise(found)):
        _misbehaved("expected the best first, and equal scores by id")
    return found


def check_released(
    asked: Collection[bytes], level: ReleaseLevel, chunks: Iterable[Released]
) -> dict[bytes, Released]:
    """What a node released, by id. It may leave out what was asked for; it may not add to it.

    `level` is the most that was asked for. Raises PEER_MISBEHAVED for ids nobody asked for, an id twice,
    a level above `level` or below "reference", what does not belong to the level, or too much text.
    """
    found: dict[bytes, Released] = {}
    for chunk in chunks:
        if chunk.id not in asked:
            _misbehaved("expected only ids that were asked for")
        if chunk.id in found:
            _misbehaved("expected each id once")
        if not ReleaseLevel.REFERENCE <= chunk.level <= level:
            _misbehaved("expected a level that was asked for")
        if chunk.level < ReleaseLevel.SNIPPET and (chunk.title or chunk.text):
            _misbehaved("expected no text below the level of snippets")
        if chunk.level < ReleaseLevel.PASSAGE and (chunk.document or chunk.source):
            _misbehaved("expected no document below the level of passages")
        if len(chunk.text.encode()) > MAX_TEXT_BYTES or any(
            len(label.encode()) > MAX_LABEL_BYTES for label in (chunk.title, chunk.document, chunk.source)
        ):
            _misbehaved(f"expected at most {MAX_TEXT_BYTES} bytes of text and {MAX_LABEL_BYTES} of a label")
        found[chunk.id] = chunk
    return found


def merge(rankings: Mapping[SpiffeId, Sequence[ScoredId]], depth: int) -> tuple[Ranked, ...]:
    """The best `depth` of all rankings: by score, then id, then node."""
    everything = [Ranked(node, each.id, each.score) for node, ranking in rankings.items() for each in ranking]
    return tuple(sorted(everything, key=_best_first)[:depth])


def reciprocal_rank(rank: int, k: int = RRF_K) -> float:
    """What a rank, from 1, is worth: 1 / (k + rank)."""
    return 1.0 / (k + rank)


def fuse(vector: Sequence[Ranked], keyword: Sequence[Ranked], k: int = RRF_K) -> tuple[Ranked, ...]:
    """Reciprocal rank fusion of the two merged rankings: the sum of 1 / (k + rank), ranks from 1.

    All that is in either, best first. (G. Cormack, C. Clarke, S. Buettcher, "Reciprocal Rank Fusion
    outperforms Condorcet and individual rank learning methods", SIGIR 2009.)
    """
    scores: dict[tuple[SpiffeId, bytes], float] = {}
    for ranking in (vector, keyword):
        for rank, each in enumerate(ranking, 1):
            hit = (each.node, each.id)
            scores[hit] = scores.get(hit, 0.0) + reciprocal_rank(rank, k)
    return tuple(sorted((Ranked(*hit, score) for hit, score in scores.items()), key=_best_first))


def conflicts(rankings: Mapping[SpiffeId, Sequence[ScoredId]]) -> frozenset[tuple[SpiffeId, SpiffeId]]:
    """The pairs of nodes that claim some id both. Honest nodes never do: an id comes from a node's secret.

    It says who, not what: people are to be told, and ids are no business of a log.
    """
    claimed: dict[bytes, list[SpiffeId]] = {}
    for node in sorted(rankings):
        for each in rankings[node]:
            claimed.setdefault(each.id, []).append(node)
    return frozenset(
        (one, two) for nodes in claimed.values() for i, one in enumerate(nodes) for two in nodes[i + 1 :]
    )


def _best_first(each: Ranked) -> tuple[float, bytes, SpiffeId]:
    return -each.score, each.id, each.node


def _misbehaved(expected: str) -> NoReturn:
    raise MeshError(Reason.PEER_MISBEHAVED, f"a node's answer: {expected}")
