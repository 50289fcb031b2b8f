"""Shard messages: what arrives is a well-formed value or a stable refusal, on both sides."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import codec as base
from mesh.codec import retrieval as codec
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import (
    AnswerSentence,
    Filters,
    Reference,
    Released,
    ReleaseLevel,
    ScoredId,
)
from mesh.core.shards import Answered, Opened, ReleasedBatch, ShardAnswerQuestion, ShardQuestion
from mesh.core.types import RequestContext, SpiffeId
from sovereign.mesh.v1 import inference_pb2, retrieval_pb2

CONTEXT = RequestContext.of(["internal"], "care/triage", tenant="firm")
REQUESTER = SpiffeId("fr.mesh.example", "/client/firm")
NODE = SpiffeId("de.mesh.example", "/node/fra-1")
DIGEST = "sha256:" + "a" * 64
ONE, TWO = bytes(15) + b"\x01", bytes(15) + b"\x02"
ADMISSION = inference_pb2.Admission(context=base.context_to_pb(CONTEXT))
SECRET = "photophobia"


def question(**changes: Any) -> ShardQuestion:
    values: dict[str, Any] = {
        "requester": REQUESTER,
        "context": CONTEXT,
        "collection": "notes",
        "digest": DIGEST,
        "vector": (0.6015625, 0.798828125),  # exact in float32
        "terms": ("pump", "ward"),
        "filters": Filters({"owner": frozenset({"a", "b"})}),
        "depth": 100,
        "exact": True,
    }
    return ShardQuestion(**{**values, **changes})


def opened(**changes: Any) -> retrieval_pb2.ShardOpened:
    values: dict[str, Any] = {
        "documents": 5,
        "frequencies": [1, 5],
        "by_vector": retrieval_pb2.ShardRanked(ids=ONE + TWO, scores=[0.5, 0.25]),
        "highest": retrieval_pb2.RELEASE_LEVEL_PASSAGE,
    }
    return retrieval_pb2.ShardOpened(**{**values, **changes})


def refusal(act: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        act()
    assert SECRET not in str(caught.value)
    return caught.value


# ---- What one side writes, the other reads


def test_a_question_survives_the_wire():
    message = codec.shard_open_to_pb(question(), ADMISSION)
    again = retrieval_pb2.ShardSearchRequest.FromString(message.SerializeToString())
    codec.check_shard_request(again)
    assert codec.shard_open_from_pb(again.open) == question()


def test_a_real_embedding_survives_the_wire():
    raw = [math.sin(i) for i in range(384)]
    norm = math.sqrt(sum(x * x for x in raw))
    message = codec.shard_open_to_pb(question(vector=tuple(x / norm for x in raw)), ADMISSION)
    assert len(codec.shard_open_from_pb(message.open).vector) == 384


def test_weights_and_releases_survive_the_wire():
    weights = (0.1, 1e300, 0.0)
    assert codec.weigh_from_pb(codec.weigh_to_pb(weights).weigh) == weights
    message = codec.release_to_pb([ONE, TWO], ReleaseLevel.SNIPPET).release
    assert codec.release_from_pb(message) == ((ONE, TWO), ReleaseLevel.SNIPPET)


def test_a_question_to_be_answered_and_a_fetch_survive_the_wire():
    asked = ShardAnswerQuestion(REQUESTER, CONTEXT, "notes", DIGEST, "Who?", Filters())
    assert codec.shard_answer_from_pb(codec.shard_answer_to_pb(asked, ADMISSION)) == asked
    message = codec.shard_fetch_to_pb(REQUESTER, "notes", ONE, ReleaseLevel.PASSAGE, ADMISSION)
    assert codec.shard_fetch_from_pb(message) == (REQUESTER, ONE, ReleaseLevel.PASSAGE)


def test_answers_survive_the_wire():
    said = Opened(5, (1, 5), True, (ScoredId(ONE, 0.5),), 3, True, ReleaseLevel.PASSAGE, True)
    assert codec.opened_from_pb(codec.opened_to_pb(said).opened, question()) == said
    ranking = (ScoredId(TWO, 1.5), ScoredId(ONE, 0.1))
    assert codec.ranked_from_pb(codec.ranked_to_pb(ranking).ranked, 100, (1.0, 1.0)) == ranking
    chunk = Released(ONE, ReleaseLevel.PASSAGE, "title", "text", "document", "source")
    batch = ReleasedBatch((chunk,), 1)
    message = codec.released_to_pb(batch).released
    assert codec.released_from_pb(message, [ONE, TWO], ReleaseLevel.PASSAGE) == batch
    fetched = retrieval_pb2.ShardFetchResponse(chunk=codec.chunk_to_pb(chunk))
    assert codec.fetched_from_pb(fetched, ONE, ReleaseLevel.PASSAGE) == chunk
    sentence = AnswerSentence("It is so.", (Reference(NODE, "notes", ONE),), ReleaseLevel.SNIPPET, True, 0.5)
    assert codec.sentence_from_pb(codec.sentence_to_pb(sentence).sentence, NODE, "notes") == sentence
    answered = Answered(ReleaseLevel.COUNT, 7, False, 2)
    assert codec.answered_from_pb(codec.answered_to_pb(answered).finished) == answered


# ---- Hostile questions


def open_pb(**changes: Any) -> retrieval_pb2.ShardOpen:
    message = codec.shard_open_to_pb(question(), ADMISSION).open
    for name in changes:
        message.ClearField(name)
    message.MergeFrom(retrieval_pb2.ShardOpen(**changes))
    return message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"requester": SECRET}, Reason.IDENTITY_MALFORMED),
        ({"collection": "../" + SECRET}, Reason.REQUEST_INVALID),
        ({"collection_digest": SECRET * 20}, Reason.REQUEST_INVALID),
        ({"vector": [math.nan, 1.0]}, Reason.REQUEST_INVALID),
        ({"vector": [math.inf, 1.0]}, Reason.REQUEST_INVALID),
        ({"vector": [3e38, 3e38]}, Reason.REQUEST_INVALID),
        ({"vector": [1.0, 0.1]}, Reason.REQUEST_INVALID),
        ({"vector": [0.0, 0.0]}, Reason.REQUEST_INVALID),
        ({"vector": [1.0] + [0.0] * 8192}, Reason.REQUEST_INVALID),
        ({"terms": ["b" + SECRET, "a"]}, Reason.REQUEST_INVALID),
        ({"terms": [SECRET, SECRET]}, Reason.REQUEST_INVALID),
        ({"terms": [SECRET + "\x00"]}, Reason.REQUEST_INVALID),
        ({"terms": [""]}, Reason.REQUEST_INVALID),
        ({"terms": ["ä" * 33]}, Reason.REQUEST_INVALID),
        ({"terms": [f"t{n:03}" for n in range(65)]}, Reason.REQUEST_INVALID),
        ({"depth": 0}, Reason.REQUEST_INVALID),
        ({"depth": 101}, Reason.REQUEST_INVALID),
        ({"depth": 2**32 - 1}, Reason.REQUEST_INVALID),
        ({"filters": [retrieval_pb2.Filter(field="tenant", any_of=[SECRET])]}, Reason.FILTER_UNKNOWN),
        ({"filters": [retrieval_pb2.Filter(field="owner")]}, Reason.REQUEST_INVALID),
        ({"filters": [retrieval_pb2.Filter(field="owner", any_of=["a"])] * 2}, Reason.REQUEST_INVALID),
        ({"filters": [retrieval_pb2.Filter(field="owner", any_of=["a"])] * 17}, Reason.REQUEST_INVALID),
        ({"filters": [retrieval_pb2.Filter(field="owner", any_of=["a"] * 65)]}, Reason.REQUEST_INVALID),
        ({"filters": [retrieval_pb2.Filter(field="owner", any_of=["a" * 257])]}, Reason.REQUEST_INVALID),
    ],
)
def test_a_question_that_breaks_a_bound_is_refused(changes: dict[str, Any], reason: Reason):
    assert refusal(lambda: codec.shard_open_from_pb(open_pb(**changes))).reason is reason


def test_a_question_says_its_data_classes_or_is_refused():
    assert refusal(lambda: codec.shard_open_from_pb(retrieval_pb2.ShardOpen())).reason in (
        Reason.IDENTITY_MALFORMED,
        Reason.DATA_CLASS_MISSING,
    )


def test_a_question_that_is_too_large():
    message = codec.shard_open_to_pb(question(), ADMISSION)
    message.open.collection_digest = "x" * (64 * 1024)
    assert refusal(lambda: codec.check_shard_request(message)).reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize("weights", [[math.nan], [math.inf], [-0.1], [1.0] * 65])
def test_weights_that_cannot_be(weights: list[float]):
    message = retrieval_pb2.ShardWeigh(weights=weights)
    assert refusal(lambda: codec.weigh_from_pb(message)).reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    "message",
    [
        retrieval_pb2.ShardRelease(ids=[ONE], level=0),
        retrieval_pb2.ShardRelease(ids=[ONE], level=1),
        retrieval_pb2.ShardRelease(ids=[ONE], level=5),
        retrieval_pb2.ShardRelease(ids=[ONE], level=-1),
        retrieval_pb2.ShardRelease(ids=[ONE, ONE], level=2),
        retrieval_pb2.ShardRelease(ids=[ONE[:-1]], level=2),
        retrieval_pb2.ShardRelease(ids=[ONE + b"x"], level=2),
        retrieval_pb2.ShardRelease(ids=[n.to_bytes(16, "big") for n in range(101)], level=2),
    ],
)
def test_a_release_that_cannot_be(message: retrieval_pb2.ShardRelease):
    assert refusal(lambda: codec.release_from_pb(message)).reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("text", ["", "  \n", "a\x00b", "ä" * 1025])
def test_a_question_to_be_answered_that_cannot_be(text: str):
    message = retrieval_pb2.ShardAnswerRequest(
        admission=ADMISSION, requester=str(REQUESTER), collection="notes", question=text
    )
    assert refusal(lambda: codec.shard_answer_from_pb(message)).reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("changes", [{"id": ONE[:3]}, {"collection": "/"}, {"level": 1}, {"level": 77}])
def test_a_fetch_that_cannot_be(changes: dict[str, Any]):
    message = codec.shard_fetch_to_pb(REQUESTER, "notes", ONE, ReleaseLevel.PASSAGE, ADMISSION)
    for name, value in changes.items():
        setattr(message, name, value)
    assert refusal(lambda: codec.shard_fetch_from_pb(message)).reason is Reason.REQUEST_INVALID


# ---- Hostile answers


@pytest.mark.parametrize(
    "message",
    [
        opened(documents=2**60),
        opened(frequencies=[1]),
        opened(frequencies=[1, 2, 3]),
        opened(frequencies=[1, 6]),
        opened(frequencies=[1] * 1000),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE, scores=[math.inf])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE, scores=[math.nan])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE, scores=[1.5])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE, scores=[0.5, 0.5])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE[1:], scores=[0.5])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=ONE + ONE, scores=[0.5, 0.5])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=TWO + ONE, scores=[0.5, 0.5])),
        opened(by_vector=retrieval_pb2.ShardRanked(ids=bytes(101 * 16), scores=[0.5] * 101)),
        opened(counted=101),
        opened(highest=9),
    ],
)
def test_what_no_honest_node_says_first(message: retrieval_pb2.ShardOpened):
    assert refusal(lambda: codec.opened_from_pb(message, question())).reason is Reason.PEER_MISBEHAVED


def test_a_vector_ranking_that_was_not_asked_for():
    error = refusal(lambda: codec.opened_from_pb(opened(), question(vector=())))
    assert error.reason is Reason.PEER_MISBEHAVED


@pytest.mark.parametrize("score", [0.0, -1.0, math.inf, math.nan, 2.1])
def test_a_keyword_score_that_cannot_be(score: float):
    message = retrieval_pb2.ShardRanked(ids=ONE, scores=[score])
    error = refusal(lambda: codec.ranked_from_pb(message, 100, (1.0, 1.0)))
    assert error.reason is Reason.PEER_MISBEHAVED


def chunk_pb(**changes: Any) -> retrieval_pb2.ReleasedChunk:
    return retrieval_pb2.ReleasedChunk(**{"id": ONE, "level": 3, "text": "x", **changes})


@pytest.mark.parametrize(
    "message",
    [
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(id=bytes(16))]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(), chunk_pb()]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb()] * 1000),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(level=4)]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(level=2)]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(level=1, text="")]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(document="d")]),
        retrieval_pb2.ShardReleased(chunks=[chunk_pb(text="x" * 65 * 1024)]),
        retrieval_pb2.ShardReleased(charged=3),
    ],
)
def test_a_release_that_was_not_asked_for(message: retrieval_pb2.ShardReleased):
    error = refusal(lambda: codec.released_from_pb(message, [ONE, TWO], ReleaseLevel.SNIPPET))
    assert error.reason is Reason.PEER_MISBEHAVED


def test_a_fetch_that_brings_nothing():
    error = refusal(
        lambda: codec.fetched_from_pb(retrieval_pb2.ShardFetchResponse(), ONE, ReleaseLevel.PASSAGE)
    )
    assert error.reason is Reason.PEER_MISBEHAVED


@pytest.mark.parametrize(
    "changes",
    [
        {"references": []},
        {"references": ["spiffe://de.mesh.example/node/x"]},
        {"references": [ONE.hex().upper().replace("0", "A")]},
        {"references": [" ".join([ONE.hex()[:15], ONE.hex()[:16]])]},
        {"references": [ONE.hex()] * 2},
        {"references": [n.to_bytes(16, "big").hex() for n in range(5000)]},
        {"text": ""},
        {"text": "x" * 5000},
        {"level": 2},
        {"level": 9},
        {"score": math.nan},
        {"score": 1.5},
    ],
)
def test_a_sentence_that_cannot_be(changes: dict[str, Any]):
    values = {"text": "It is so.", "references": [ONE.hex()], "level": 3, "score": 0.5}
    message = retrieval_pb2.AnswerSentence(**{**values, **changes})
    error = refusal(lambda: codec.sentence_from_pb(message, NODE, "notes"))
    assert error.reason is Reason.PEER_MISBEHAVED


@pytest.mark.parametrize("changes", [{"highest": 5}, {"counted": 101}, {"charged": 101}])
def test_an_end_that_cannot_be(changes: dict[str, Any]):
    message = retrieval_pb2.ShardAnswered(**changes)
    assert refusal(lambda: codec.answered_from_pb(message)).reason is Reason.PEER_MISBEHAVED


# ---- Any bytes at all


def _read_request(data: bytes) -> None:
    message = retrieval_pb2.ShardSearchRequest.FromString(data)
    codec.check_shard_request(message)
    step = message.WhichOneof("step")
    if step == "open":
        codec.shard_open_from_pb(message.open)
    elif step == "weigh":
        codec.weigh_from_pb(message.weigh)
    elif step == "release":
        codec.release_from_pb(message.release)
    codec.shard_answer_from_pb(retrieval_pb2.ShardAnswerRequest.FromString(data))


def _read_answer(data: bytes) -> None:
    message = retrieval_pb2.ShardSearchResponse.FromString(data)
    step = message.WhichOneof("step")
    if step == "opened":
        codec.opened_from_pb(message.opened, question())
    elif step == "ranked":
        codec.ranked_from_pb(message.ranked, 100, (1.0, 1.0))
    elif step == "released":
        codec.released_from_pb(message.released, [ONE], ReleaseLevel.PASSAGE)


WELL_FORMED = [
    codec.shard_open_to_pb(question(), ADMISSION).SerializeToString(),
    codec.weigh_to_pb([0.5, 0.25]).SerializeToString(),
    codec.release_to_pb([ONE, TWO], ReleaseLevel.SNIPPET).SerializeToString(),
    retrieval_pb2.ShardSearchResponse(opened=opened()).SerializeToString(),
    codec.ranked_to_pb([ScoredId(ONE, 0.5)]).SerializeToString(),
    codec.released_to_pb(ReleasedBatch((Released(ONE, ReleaseLevel.REFERENCE),), 0)).SerializeToString(),
]


@settings(max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.tuples(st.sampled_from(WELL_FORMED), st.integers(0, 300), st.binary(max_size=8)).map(
            lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + len(made[2]) :]
        ),
    )
)
def test_whatever_comes_is_a_value_or_a_refusal(data: bytes):
    for read in (_read_request, _read_answer):
        with contextlib.suppress(DecodeError, MeshError):
            read(data)
