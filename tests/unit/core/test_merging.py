"""What nodes may say to be merged, and what no honest node says: PEER_MISBEHAVED, and nothing is used."""

from __future__ import annotations

import math

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import (
    MAX_COUNT,
    MAX_TEXT_BYTES,
    Ranked,
    Statistics,
    check_ranking,
    check_released,
    check_statistics,
    fuse,
    idf,
    merge,
    weights_of,
)
from mesh.core.retrieval import Released, ReleaseLevel, ScoredId
from mesh.core.types import SpiffeId

A, B, C = (bytes([n] * 16) for n in (1, 2, 3))
BERLIN, PARIS = SpiffeId("de.mesh.example", "/node/berlin"), SpiffeId("fr.mesh.example", "/node/paris")
NAN, INF = math.nan, math.inf


def test_an_honest_ranking() -> None:
    assert check_ranking(A + B + C, [0.5, 0.25, 0.25], 3, cosine=True) == (
        ScoredId(A, 0.5),
        ScoredId(B, 0.25),
        ScoredId(C, 0.25),
    )
    assert check_ranking(b"", [], 10, cosine=False) == ()
    # Rounding may take a unit vector's cosine with itself, or a sum, a little above its limit.
    assert check_ranking(A, [1.0000001], 1, cosine=True)
    assert check_ranking(A, [-1.0000001], 1, cosine=True)
    assert check_ranking(A, [3.0000000000000004], 1, cosine=False, highest=3.0)


@pytest.mark.parametrize(
    ("ids", "scores", "cosine", "says"),
    [
        (A[:15], [0.5], True, "one score for each id"),
        (A + B, [0.5], True, "one score for each id"),
        (A, [0.5, 0.25], True, "one score for each id"),
        (A + B + C, [0.5, 0.25, 0.125], True, "no more hits"),
        (A, [NAN], True, "finite"),
        (A, [INF], True, "finite"),
        (A, [-INF], True, "finite"),
        (A + B, [NAN, 0.5], False, "finite"),
        (A, [INF], False, "finite"),
        (A, [1.001], True, "cosines"),
        (A, [-1.001], True, "cosines"),
        (A, [0.0], False, "above 0"),
        (A, [-0.5], False, "above 0"),
        (A, [2.1], False, "sum of the weights"),
        (A + A, [0.5, 0.25], True, "each id once"),
        (A + A, [0.5, 0.5], True, "each id once"),
        (A + B, [0.25, 0.5], True, "best first"),
        (B + A, [0.5, 0.5], True, "equal scores by id"),
    ],
)
def test_a_ranking_that_no_honest_node_gives(
    ids: bytes, scores: list[float], cosine: bool, says: str
) -> None:
    with pytest.raises(MeshError) as refused:
        check_ranking(ids, scores, 2, cosine=cosine, highest=2.0)
    assert refused.value.reason is Reason.PEER_MISBEHAVED
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("documents", "frequencies"),
    [(10, [11]), (-1, []), (10, [-1]), (MAX_COUNT + 1, [1]), (0, [1]), (10, [1, 2]), (10, [])],
)
def test_statistics_that_cannot_be(documents: int, frequencies: list[int]) -> None:
    with pytest.raises(MeshError) as refused:
        check_statistics(documents, frequencies, 1)
    assert refused.value.reason is Reason.PEER_MISBEHAVED


def test_weights_are_of_all_nodes_together() -> None:
    stats = [Statistics(6, (2, 0)), Statistics(4, (1, 4)), Statistics(0, (0, 0))]
    assert weights_of(["a", "b"], {"a": 1, "b": 3}, stats) == (idf(10, 3), 3 * idf(10, 4))
    assert idf(10, 3) == pytest.approx(math.log(1 + 7.5 / 3.5))
    assert idf(0, 0) > idf(1, 1) > 0
    assert idf(MAX_COUNT * 64, MAX_COUNT * 64) >= 0
    with pytest.raises(MeshError) as refused:
        weights_of(["a"], {"a": 1}, stats)
    assert refused.value.reason is Reason.PEER_MISBEHAVED


def test_merging_breaks_ties_by_id_and_then_by_node() -> None:
    rankings = {
        PARIS: (ScoredId(B, 0.5), ScoredId(A, 0.25)),
        BERLIN: (ScoredId(C, 0.75), ScoredId(B, 0.5), ScoredId(C, 0.1)),
    }
    assert merge(rankings, 4) == (
        Ranked(BERLIN, C, 0.75),
        Ranked(BERLIN, B, 0.5),
        Ranked(PARIS, B, 0.5),
        Ranked(PARIS, A, 0.25),
    )


def test_fusing_adds_up_what_both_rankings_say_of_one_hit_and_keeps_two_nodes_apart() -> None:
    vector = [Ranked(BERLIN, A, 0.9), Ranked(PARIS, A, 0.8), Ranked(BERLIN, B, 0.7)]
    keyword = [Ranked(BERLIN, B, 7.0), Ranked(BERLIN, C, 6.0)]
    fused = fuse(vector, keyword)
    assert [(each.node, each.id) for each in fused] == [(BERLIN, B), (BERLIN, A), (PARIS, A), (BERLIN, C)]
    assert fused[0].score == 1 / 63 + 1 / 61
    assert fused[2].score == fused[3].score == 1 / 62


def chunk(each: bytes = A, level: ReleaseLevel = ReleaseLevel.PASSAGE, **fields: str) -> Released:
    return Released(each, level, **fields)


def test_a_release_may_leave_out_but_not_add() -> None:
    passage = chunk(title="t", text="x" * MAX_TEXT_BYTES, document="d", source="s")
    assert check_released({A, B}, ReleaseLevel.PASSAGE, [passage]) == {A: passage}
    assert check_released({A, B}, ReleaseLevel.SNIPPET, []) == {}
    reference = chunk(level=ReleaseLevel.REFERENCE)
    assert check_released({A}, ReleaseLevel.SNIPPET, [reference]) == {A: reference}


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(C)],
        [chunk(), chunk()],
        [chunk(level=ReleaseLevel.NOTHING)],
        [chunk(level=ReleaseLevel.COUNT)],
        [chunk(level=ReleaseLevel.REFERENCE, text="x")],
        [chunk(level=ReleaseLevel.REFERENCE, title="x")],
        [chunk(level=ReleaseLevel.SNIPPET, document="x")],
        [chunk(level=ReleaseLevel.SNIPPET, source="x")],
        [chunk(text="x" * (MAX_TEXT_BYTES + 1))],
        [chunk(text="é" * (MAX_TEXT_BYTES // 2 + 1))],
        [chunk(source="x" * 5_000)],
    ],
)
def test_a_release_that_no_honest_node_gives(chunks: list[Released]) -> None:
    with pytest.raises(MeshError) as refused:
        check_released({A, B}, ReleaseLevel.PASSAGE, chunks)
    assert refused.value.reason is Reason.PEER_MISBEHAVED


def test_a_release_above_what_was_asked_for() -> None:
    with pytest.raises(MeshError) as refused:
        check_released({A}, ReleaseLevel.SNIPPET, [chunk()])
    assert refused.value.reason is Reason.PEER_MISBEHAVED
