"""A client's question for an answer or for one passage, and what it is told, from and to protobuf.

Like mesh/codec/search.py: questions are read strictly, answers as hostile.
"""

from __future__ import annotations

import math

from mesh.codec.placement import decision_to_pb
from mesh.codec.search import (
    admission_to_pb,
    as_peer,
    check_request_size,
    coverage_from_pb,
    coverage_to_pb,
    coverages_from_pb,
    decided_from_pb,
    filters_from_pb,
    filters_to_pb,
    hit_from_pb,
    hit_to_pb,
    level_from_pb,
    level_to_pb,
    misbehaved,
    seconds_from_pb,
)
from mesh.core.answers import MAX_REFERENCES, MAX_SENTENCE_BYTES, MAX_SENTENCES
from mesh.core.questions import (
    ANSWER_TIMEOUT_S,
    SEARCH_TIMEOUT_S,
    AnswerEvent,
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    NodeDone,
    SearchDecided,
)
from mesh.core.retrieval import AnswerSentence, Hit, Reference, ReleaseLevel
from mesh.core.types import RequestContext
from sovereign.mesh.v1 import retrieval_pb2


def answer_from_pb(message: retrieval_pb2.AnswerRequest) -> AnswerQuestion:
    """Reads a question, without its admission."""
    check_request_size(message.ByteSize())
    return AnswerQuestion(
        message.collection,
        message.question,
        filters_from_pb(message.filters),
        seconds_from_pb(message.timeout_ms, ANSWER_TIMEOUT_S),
    )


def answer_to_pb(
    question: AnswerQuestion, permit: bytes, context: RequestContext, timeout_s: float
) -> retrieval_pb2.AnswerRequest:
    """Writes a question for one node. `timeout_s` is what is left of the question's."""
    return retrieval_pb2.AnswerRequest(
        admission=admission_to_pb(permit, context),
        collection=question.collection,
        question=question.question,
        filters=filters_to_pb(question.filters),
        timeout_ms=round(timeout_s * 1000),
    )


def fetch_from_pb(message: retrieval_pb2.FetchRequest) -> FetchQuestion:
    """Reads which passage is asked for, without its admission."""
    check_request_size(message.ByteSize())
    return FetchQuestion(
        Reference.parse(message.reference),
        level_from_pb(message.level, ReleaseLevel.PASSAGE),
        seconds_from_pb(message.timeout_ms, SEARCH_TIMEOUT_S),
    )


def fetch_to_pb(
    question: FetchQuestion, permit: bytes, context: RequestContext, timeout_s: float
) -> retrieval_pb2.FetchRequest:
    """Writes it."""
    return retrieval_pb2.FetchRequest(
        admission=admission_to_pb(permit, context),
        reference=str(question.reference),
        level=level_to_pb(question.level),
        timeout_ms=round(timeout_s * 1000),
    )


def fetched_to_pb(hit: Hit) -> retrieval_pb2.FetchResponse:
    """Writes the passage."""
    return retrieval_pb2.FetchResponse(hit=hit_to_pb(hit))


def fetched_from_pb(message: retrieval_pb2.FetchResponse, question: FetchQuestion) -> Hit:
    """Reads the passage; PEER_MISBEHAVED if it is not the one, or more, than was asked for."""
    hit = hit_from_pb(message.hit)
    if hit.reference != question.reference or hit.released.level > question.level:
        raise misbehaved("the passage that was asked for, at its level")
    return hit


def sentence_to_pb(sentence: AnswerSentence) -> retrieval_pb2.AnswerSentence:
    """Writes a sentence; its node is that of its first reference."""
    return retrieval_pb2.AnswerSentence(
        text=sentence.text,
        references=[str(reference) for reference in sentence.references],
        node=str(sentence.references[0].node),
        level=level_to_pb(sentence.level),
        extracted=sentence.extracted,
        score=sentence.score,
    )


def sentence_from_pb(message: retrieval_pb2.AnswerSentence) -> AnswerSentence:
    """Reads a sentence that a node of the own authority passes on; raises PEER_MISBEHAVED."""
    if (
        not 1 <= len(message.references) <= MAX_REFERENCES
        or not 1 <= len(message.text.encode()) <= MAX_SENTENCE_BYTES
        or not math.isfinite(message.score)
    ):
        raise misbehaved("a sentence with its references")
    return AnswerSentence(
        message.text,
        tuple(as_peer(lambda text=text: Reference.parse(text)) for text in message.references),  # type: ignore[misc]
        as_peer(lambda: level_from_pb(message.level, ReleaseLevel.NOTHING)),
        message.extracted,
        message.score,
    )


def answer_event_to_pb(event: AnswerEvent) -> retrieval_pb2.AnswerResponse:
    """Writes one event."""
    if isinstance(event, SearchDecided):
        return retrieval_pb2.AnswerResponse(decided=decision_to_pb(event.decision))
    if isinstance(event, AnswerSentence):
        return retrieval_pb2.AnswerResponse(sentence=sentence_to_pb(event))
    if isinstance(event, NodeDone):
        return retrieval_pb2.AnswerResponse(node=coverage_to_pb(event.node))
    finished = retrieval_pb2.AnswerFinished(
        sentences=[sentence_to_pb(sentence) for sentence in event.sentences],
        coverage=[coverage_to_pb(node) for node in event.coverage],
        complete=event.complete,
    )
    return retrieval_pb2.AnswerResponse(finished=finished)


def answer_event_from_pb(message: retrieval_pb2.AnswerResponse) -> AnswerEvent:
    """Reads what a node says; raises PEER_MISBEHAVED."""
    kind = message.WhichOneof("event")
    if kind == "decided":
        return decided_from_pb(message.decided)
    if kind == "sentence":
        return sentence_from_pb(message.sentence)
    if kind == "node":
        return NodeDone(coverage_from_pb(message.node))
    if kind == "finished":
        finished = message.finished
        if len(finished.sentences) > MAX_SENTENCES:
            raise misbehaved(f"at most {MAX_SENTENCES} sentences")
        return AnswerResult(
            tuple(sentence_from_pb(sentence) for sentence in finished.sentences),
            coverages_from_pb(finished.coverage),
            finished.complete,
        )
    raise misbehaved("an event of an answer")
