"""The merged ranking is the central one: the same ids in the same order, for the top 100."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import check_ranking, conflicts
from mesh.core.retrieval import ScoredId
from mesh.core.types import SpiffeId
from tests.property.generated import REPRODUCIBLE
from tests.support.shards import Central, Corpus, Question, at_random, by_topic, federated, spread

COUNTRIES = ("de", "fr", "us", "it")
NODES = [SpiffeId(f"{country}.mesh.example", f"/node/n{i}") for i in range(2) for country in COUNTRIES]
WORDS = [f"w{i}" for i in range(12)]


def corpus_of(size: int, seed: int, *, coarse: bool, few_ids: bool) -> Corpus:
    """`coarse` makes equal scores common, exact duplicates among them; `few_ids` lets nodes claim the same
    ids (never twice on one node: those are removed when the corpus is spread)."""
    random = np.random.default_rng(seed)
    if coarse:
        raw = random.integers(-1, 2, size=(size, 6)).astype(np.float64)
        raw[np.abs(raw).sum(axis=1) == 0, 0] = 1
    else:
        raw = random.normal(size=(size, 6))
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    terms: list[dict[str, int]] = []
    for _ in range(size):
        words = random.choice(WORDS, size=random.integers(0, 4 if coarse else 20), p=_zipf())
        counts: dict[str, int] = {}
        for word in words:
            counts[str(word)] = counts.get(str(word), 0) + 1
        terms.append(counts)
    ids = [
        bytes([0] * 14) + int(random.integers(0, 300)).to_bytes(2, "big") if few_ids else random.bytes(16)
        for _ in range(size)
    ]
    return Corpus(ids, vectors, terms, average_length=7.0)


def _zipf() -> list[float]:
    shares = [1 / (i + 1) for i in range(len(WORDS))]
    return [share / sum(shares) for share in shares]


def once_per_node(corpus: Corpus, homes: list[int]) -> tuple[Corpus, list[int]]:
    """Without the chunks whose id their node has already."""
    seen: set[tuple[bytes, int]] = set()
    kept = []
    for i, hit in enumerate(zip(corpus.ids, homes, strict=True)):
        if hit not in seen:
            kept.append(i)
            seen.add(hit)
    fewer = Corpus(
        [corpus.ids[i] for i in kept],
        corpus.vectors[kept],
        [corpus.terms[i] for i in kept],
        corpus.average_length,
    )
    return fewer, [homes[i] for i in kept]


@pytest.mark.slow
@settings(REPRODUCIBLE, max_examples=150)
@given(
    size=st.sampled_from([0, 1, 7, 60, 250, 450]),
    seed=st.integers(0, 2**32 - 1),
    coarse=st.booleans(),
    few_ids=st.booleans(),
    count=st.sampled_from([1, 3, 5, 8]),
    how=st.sampled_from(["random", "uneven", "topics", "one has all"]),
    counts=st.dictionaries(st.sampled_from([*WORDS, "unheard"]), st.integers(1, 3), max_size=6),
)
def test_the_merged_ranking_is_the_central_one(
    size: int, seed: int, coarse: bool, few_ids: bool, count: int, how: str, counts: dict[str, int]
) -> None:
    corpus = corpus_of(size, seed, coarse=coarse, few_ids=few_ids)
    if how == "topics":
        homes = by_topic(corpus.vectors, count, seed)
    elif how == "one has all":
        homes = [0] * size
    else:
        homes = at_random(size, count, seed, uneven=how == "uneven")
    corpus, homes = once_per_node(corpus, homes)
    nodes = NODES[:count]
    shards = spread(corpus, homes, nodes)
    central = Central(corpus, [nodes[home] for home in homes])
    vector = corpus_of(1, seed + 1, coarse=coarse, few_ids=False).vectors[0]
    question = Question(vector, counts)
    assert federated(shards, question) == central.rank(question)


@pytest.mark.slow
def test_what_would_not_be_the_central_ranking() -> None:
    """The comparison can fail: weighing by local statistics does, over nodes with topics of their own."""
    random = np.random.default_rng(1)
    corpus = corpus_of(300, 1, coarse=False, few_ids=False)
    homes = [0 if "w0" in terms else 1 for terms in corpus.terms]
    shards = spread(corpus, homes, NODES[:2])
    central = Central(corpus, [NODES[home] for home in homes])
    question = Question(random.normal(size=6).astype(np.float32) / 10, {"w0": 1, "w3": 1, "w5": 1})
    right = central.rank(question)
    assert federated(shards, question) == right
    wrong = federated(shards, question, local_statistics=True)
    assert wrong["vector"] == right["vector"]
    assert wrong["keyword"] != right["keyword"]
    assert wrong["hybrid"] != right["hybrid"]


@given(st.lists(st.tuples(st.sampled_from(NODES[:3]), st.integers(0, 5)), max_size=12, unique=True))
def test_conflicts_are_the_pairs_that_claim_the_same(claims: list[tuple[SpiffeId, int]]) -> None:
    rankings = {node: [ScoredId(bytes([n] * 16), 1.0) for m, n in claims if m == node] for node in NODES[:3]}
    assert conflicts(rankings) == {
        (one, two) for one, n in claims for two, m in claims if one < two and n == m
    }


@given(
    ids=st.binary(max_size=80),
    scores=st.lists(st.floats(), max_size=5),
    depth=st.integers(0, 6),
    cosine=st.booleans(),
)
def test_whatever_comes_as_a_ranking_it_is_one_or_the_peer_misbehaved(
    ids: bytes, scores: list[float], depth: int, cosine: bool
) -> None:
    padded = (ids + bytes(80))[: 16 * len(scores)] if len(ids) > 20 else ids
    try:
        found = check_ranking(padded, scores, depth, cosine=cosine, highest=2.0)
    except MeshError as error:
        if error.reason is not Reason.PEER_MISBEHAVED:
            raise
        return
    assert len(found) <= depth
    assert [each.score for each in found] == scores
    assert list(found) == sorted(set(found), key=lambda each: (-each.score, each.id))
