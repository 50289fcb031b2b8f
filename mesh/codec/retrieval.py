"""The Shard service's messages, from and to domain values.

Two sides read here, and neither trusts the other. A holder reads questions: what breaks a bound of
retrieval.proto is REQUEST_INVALID or REQUEST_TOO_LARGE. An asker reads answers: what no honest node sends
is PEER_MISBEHAVED (mesh/core/merging.py says what that is). Errors name the field and never its value
(I1). Steps of a search are told apart by the servicer and the client; here each has its own functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mesh.codec.context import context_from_pb
from mesh.codec.search import filters_from_pb, filters_to_pb, level_from_pb, level_to_pb
from mesh.core.answers import check_sentence
from mesh.core.errors import MeshError, Reason
from mesh.core.merging import check_ranking, check_released, check_statistics
from mesh.core.retrieval import (
    DEPTH,
    ID_BYTES,
    MAX_K,
    MAX_TERMS,
    AnswerSentence,
    Reference,
    Released,
    ReleaseLevel,
    ScoredId,
    require_collection_name,
)
from mesh.core.shards import (
    MAX_DIMENSIONS,
    MAX_SHARD_REQUEST_BYTES,
    Answered,
    Opened,
    ReleasedBatch,
    ShardAnswerQuestion,
    ShardQuestion,
    require_id,
    require_release,
    require_weights,
)
from mesh.core.types import SpiffeId
from sovereign.mesh.v1 import inference_pb2, retrieval_pb2

_Request = (
    retrieval_pb2.ShardSearchRequest | retrieval_pb2.ShardAnswerRequest | retrieval_pb2.ShardFetchRequest
)


def check_shard_request(message: _Request) -> None:
    """REQUEST_TOO_LARGE if it is larger than any question of one node to another may be."""
    if message.ByteSize() > MAX_SHARD_REQUEST_BYTES:
        raise MeshError(
            Reason.REQUEST_TOO_LARGE, f"a question to a node has at most {MAX_SHARD_REQUEST_BYTES} bytes"
        )


# ---- Questions


def shard_open_from_pb(message: retrieval_pb2.ShardOpen) -> ShardQuestion:
    """Reads a question. That its permit holds, and that the requester may ask, is not looked at."""
    if len(message.vector) > MAX_DIMENSIONS:
        raise MeshError(Reason.REQUEST_INVALID, f"vector: expected at most {MAX_DIMENSIONS} numbers")
    if len(message.terms) > MAX_TERMS:
        raise MeshError(Reason.REQUEST_INVALID, f"terms: expected at most {MAX_TERMS}")
    return ShardQuestion(
        requester=SpiffeId.parse(message.requester),
        context=context_from_pb(message.admission.context),
        collection=message.collection,
        digest=_digest(message.collection_digest),
        vector=tuple(message.vector),
        terms=tuple(message.terms),
        filters=filters_from_pb(message.filters),
        depth=message.depth,
        exact=message.exact,
    )


def shard_open_to_pb(
    question: ShardQuestion, admission: inference_pb2.Admission
) -> retrieval_pb2.ShardSearchRequest:
    """Writes it. `admission` holds the question's own context, and the permit for the node asked."""
    return retrieval_pb2.ShardSearchRequest(
        open=retrieval_pb2.ShardOpen(
            admission=admission,
            requester=str(question.requester),
            collection=question.collection,
            collection_digest=question.digest,
            vector=question.vector,
            terms=question.terms,
            filters=filters_to_pb(question.filters),
            depth=question.depth,
            exact=question.exact,
        )
    )


def weigh_from_pb(message: retrieval_pb2.ShardWeigh) -> tuple[float, ...]:
    """Reads weights. Whether they are as many as the question's terms, the search looks at."""
    weights = tuple(message.weights[: MAX_TERMS + 1])
    require_weights(weights, min(len(weights), MAX_TERMS))
    return weights


def weigh_to_pb(weights: Iterable[float]) -> retrieval_pb2.ShardSearchRequest:
    """Writes them."""
    return retrieval_pb2.ShardSearchRequest(weigh=retrieval_pb2.ShardWeigh(weights=weights))


def release_from_pb(message: retrieval_pb2.ShardRelease) -> tuple[tuple[bytes, ...], ReleaseLevel]:
    """Reads which ids to release, and at most how much of them."""
    ids, level = tuple(message.ids[: MAX_K + 1]), level_from_pb(message.level, ReleaseLevel.NOTHING)
    require_release(ids, level)
    return ids, level


def release_to_pb(ids: Iterable[bytes], level: ReleaseLevel) -> retrieval_pb2.ShardSearchRequest:
    """Writes it."""
    return retrieval_pb2.ShardSearchRequest(
        release=retrieval_pb2.ShardRelease(ids=ids, level=level_to_pb(level))
    )


def shard_answer_from_pb(message: retrieval_pb2.ShardAnswerRequest) -> ShardAnswerQuestion:
    """Reads a question to be answered."""
    return ShardAnswerQuestion(
        requester=SpiffeId.parse(message.requester),
        context=context_from_pb(message.admission.context),
        collection=message.collection,
        digest=_digest(message.collection_digest),
        question=message.question,
        filters=filters_from_pb(message.filters),
    )


def shard_answer_to_pb(
    question: ShardAnswerQuestion, admission: inference_pb2.Admission
) -> retrieval_pb2.ShardAnswerRequest:
    """Writes it."""
    return retrieval_pb2.ShardAnswerRequest(
        admission=admission,
        requester=str(question.requester),
        collection=question.collection,
        collection_digest=question.digest,
        question=question.question,
        filters=filters_to_pb(question.filters),
    )


def shard_fetch_from_pb(message: retrieval_pb2.ShardFetchRequest) -> tuple[SpiffeId, bytes, ReleaseLevel]:
    """Reads for whom, which chunk, and at most how much of it."""
    require_collection_name(message.collection)
    require_id(message.id)
    level = level_from_pb(message.level, ReleaseLevel.NOTHING)
    require_release((message.id,), level)
    return SpiffeId.parse(message.requester), message.id, level


def shard_fetch_to_pb(
    requester: SpiffeId,
    collection: str,
    chunk: bytes,
    level: ReleaseLevel,
    admission: inference_pb2.Admission,
) -> retrieval_pb2.ShardFetchRequest:
    """Writes it."""
    return retrieval_pb2.ShardFetchRequest(
        admission=admission,
        requester=str(requester),
        collection=collection,
        id=chunk,
        level=level_to_pb(level),
    )


# ---- Answers


def opened_to_pb(opened: Opened) -> retrieval_pb2.ShardSearchResponse:
    """Writes what a node says first."""
    return retrieval_pb2.ShardSearchResponse(
        opened=retrieval_pb2.ShardOpened(
            documents=opened.documents,
            frequencies=opened.frequencies,
            frequencies_withheld=opened.frequencies_withheld,
            by_vector=_ranking_to_pb(opened.by_vector),
            counted=opened.counted,
            counted_inexact=opened.counted_inexact,
            highest=level_to_pb(opened.highest),
            approximate=opened.approximate,
        )
    )


def opened_from_pb(message: retrieval_pb2.ShardOpened, question: ShardQuestion) -> Opened:
    """Reads it as the answer to this question; PEER_MISBEHAVED."""
    stats = check_statistics(message.documents, message.frequencies[: MAX_TERMS + 1], len(question.terms))
    depth = question.depth if question.vector else 0
    by_vector = check_ranking(message.by_vector.ids, message.by_vector.scores, depth, cosine=True)
    return Opened(
        documents=stats.documents,
        frequencies=stats.frequencies,
        frequencies_withheld=message.frequencies_withheld,
        by_vector=by_vector,
        counted=_counted(message.counted),
        counted_inexact=message.counted_inexact,
        highest=_told_level(message.highest),
        approximate=message.approximate,
    )


def ranked_to_pb(ranking: Sequence[ScoredId]) -> retrieval_pb2.ShardSearchResponse:
    """Writes a keyword ranking."""
    return retrieval_pb2.ShardSearchResponse(ranked=_ranking_to_pb(ranking))


def ranked_from_pb(
    message: retrieval_pb2.ShardRanked, depth: int, weights: Sequence[float]
) -> tuple[ScoredId, ...]:
    """Reads a keyword ranking by these weights; PEER_MISBEHAVED."""
    return check_ranking(message.ids, message.scores, depth, cosine=False, highest=sum(weights))


def released_to_pb(batch: ReleasedBatch) -> retrieval_pb2.ShardSearchResponse:
    """Writes what was released."""
    return retrieval_pb2.ShardSearchResponse(
        released=retrieval_pb2.ShardReleased(
            chunks=[chunk_to_pb(chunk) for chunk in batch.chunks], charged=batch.charged
        )
    )


def released_from_pb(
    message: retrieval_pb2.ShardReleased, asked: Collection[bytes], level: ReleaseLevel
) -> ReleasedBatch:
    """Reads it as the answer to `release` of these ids at this level; PEER_MISBEHAVED."""
    if len(message.chunks) > len(asked):
        raise _misbehaved("no more chunks than were asked for")
    found = check_released(frozenset(asked), level, [_chunk_from_pb(chunk) for chunk in message.chunks])
    return ReleasedBatch(tuple(found.values()), _charged(message.charged, len(asked)))


def chunk_to_pb(chunk: Released) -> retrieval_pb2.ReleasedChunk:
    """Writes one chunk."""
    return retrieval_pb2.ReleasedChunk(
        id=chunk.id,
        level=level_to_pb(chunk.level),
        title=chunk.title,
        text=chunk.text,
        document=chunk.document,
        source=chunk.source,
    )


def fetched_from_pb(message: retrieval_pb2.ShardFetchResponse, asked: bytes, level: ReleaseLevel) -> Released:
    """Reads the one chunk that was asked for; PEER_MISBEHAVED."""
    return check_released(frozenset({asked}), level, [_chunk_from_pb(message.chunk)])[asked]


def sentence_to_pb(sentence: AnswerSentence) -> retrieval_pb2.ShardAnswerResponse:
    """Writes a sentence of this node's: its references are ids, the node goes without saying."""
    return retrieval_pb2.ShardAnswerResponse(
        sentence=retrieval_pb2.AnswerSentence(
            text=sentence.text,
            references=[reference.id.hex() for reference in sentence.references],
            level=level_to_pb(sentence.level),
            extracted=sentence.extracted,
            score=sentence.score,
        )
    )


def sentence_from_pb(
    message: retrieval_pb2.AnswerSentence, node: SpiffeId, collection: str
) -> AnswerSentence:
    """Reads a sentence of this node's own passages; PEER_MISBEHAVED."""
    return check_sentence(
        AnswerSentence(
            text=message.text,
            references=tuple(
                Reference(node, collection, _id_from_hex(text)) for text in message.references[: MAX_K + 1]
            ),
            level=_told_level(message.level),
            extracted=message.extracted,
            score=message.score,
        )
    )


def answered_to_pb(answered: Answered) -> retrieval_pb2.ShardAnswerResponse:
    """Writes how answering went."""
    return retrieval_pb2.ShardAnswerResponse(
        finished=retrieval_pb2.ShardAnswered(
            highest=level_to_pb(answered.highest),
            counted=answered.counted,
            counted_inexact=answered.counted_inexact,
            charged=answered.charged,
        )
    )


def answered_from_pb(message: retrieval_pb2.ShardAnswered) -> Answered:
    """Reads it; PEER_MISBEHAVED."""
    return Answered(
        highest=_told_level(message.highest),
        counted=_counted(message.counted),
        counted_inexact=message.counted_inexact,
        charged=_charged(message.charged, MAX_K),
    )


def _ranking_to_pb(ranking: Sequence[ScoredId]) -> retrieval_pb2.ShardRanked:
    return retrieval_pb2.ShardRanked(
        ids=b"".join(each.id for each in ranking), scores=[each.score for each in ranking]
    )


def _chunk_from_pb(message: retrieval_pb2.ReleasedChunk) -> Released:
    return Released(
        id=message.id,
        level=_told_level(message.level),
        title=message.title,
        text=message.text,
        document=message.document,
        source=message.source,
    )


def _digest(text: str) -> str:
    """Compared, never parsed; only its length is bounded."""
    if len(text) > 128:
        raise MeshError(Reason.REQUEST_INVALID, "collection_digest: expected sha256:<64 hex digits>")
    return text


def _told_level(number: int) -> ReleaseLevel:
    if not 0 <= number <= ReleaseLevel.PASSAGE:
        raise _misbehaved("a level that there is")
    return ReleaseLevel(number)


def _counted(count: int) -> int:
    if count > DEPTH:
        raise _misbehaved(f"a count of at most {DEPTH}")
    return count


def _charged(charged: int, most: int) -> int:
    if charged > most:
        raise _misbehaved("no more charged than was asked for")
    return charged


def _id_from_hex(text: str) -> bytes:
    # bytes.fromhex alone would let spaces and capitals pass, and one chunk would have several names.
    if len(text) != 2 * ID_BYTES or not set(text) <= set("0123456789abcdef"):
        raise _misbehaved("references of 32 hex digits")
    return bytes.fromhex(text)


def _misbehaved(expected: str) -> MeshError:
    return MeshError(Reason.PEER_MISBEHAVED, f"a node's answer: expected {expected}")
