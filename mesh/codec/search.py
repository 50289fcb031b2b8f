"""A client's search and what it is told, from and to protobuf.

Questions are read strictly: whatever retrieval.proto does not allow is REQUEST_INVALID, an unknown
filter field FILTER_UNKNOWN. What a node answers is read as hostile, too: PEER_MISBEHAVED. Both sides
need both directions, the SDK and the node's servicer. Nothing here is quoted in an error (I1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from mesh.codec.context import context_to_pb
from mesh.codec.placement import decision_from_pb, decision_to_pb, envelope_from_bytes
from mesh.core.decision import MAX_DETAIL_CHARS, MAX_NAMED_POLICIES, MAX_REFUSED
from mesh.core.errors import MeshError, Reason
from mesh.core.merging import MAX_LABEL_BYTES, MAX_TEXT_BYTES
from mesh.core.questions import (
    DEFAULT_K,
    SEARCH_TIMEOUT_S,
    Partial,
    SearchDecided,
    SearchEvent,
    SearchQuestion,
    SearchResult,
)
from mesh.core.retrieval import (
    MAX_FILTER_VALUES,
    MAX_FILTERS,
    MAX_K,
    Coverage,
    Filters,
    Hit,
    Outcome,
    Reference,
    Released,
    ReleaseLevel,
    SearchMode,
)
from mesh.core.types import RequestContext, SpiffeId
from sovereign.mesh.v1 import inference_pb2, placement_pb2, retrieval_pb2

MAX_REQUEST_BYTES = 64 * 1024
# Every node that was asked, and as many refused ones as a decision lists.
MAX_COVERAGE = 64 + MAX_REFUSED
MAX_FAN_OUT = 64

_T = TypeVar("_T")

_MODES_PB = {
    SearchMode.VECTOR: retrieval_pb2.SEARCH_MODE_VECTOR,
    SearchMode.KEYWORD: retrieval_pb2.SEARCH_MODE_KEYWORD,
    SearchMode.HYBRID: retrieval_pb2.SEARCH_MODE_HYBRID,
}
_MODES = {int(number): mode for mode, number in _MODES_PB.items()}
_LEVELS_PB = {
    ReleaseLevel.NOTHING: retrieval_pb2.RELEASE_LEVEL_UNSPECIFIED,
    ReleaseLevel.COUNT: retrieval_pb2.RELEASE_LEVEL_COUNT,
    ReleaseLevel.REFERENCE: retrieval_pb2.RELEASE_LEVEL_REFERENCE,
    ReleaseLevel.SNIPPET: retrieval_pb2.RELEASE_LEVEL_SNIPPET,
    ReleaseLevel.PASSAGE: retrieval_pb2.RELEASE_LEVEL_PASSAGE,
}
_LEVELS = {int(number): level for level, number in _LEVELS_PB.items()}
_OUTCOMES_PB = {
    Outcome.ANSWERED: retrieval_pb2.NodeCoverage.OUTCOME_ANSWERED,
    Outcome.NOT_ASKED: retrieval_pb2.NodeCoverage.OUTCOME_NOT_ASKED,
    Outcome.FAILED: retrieval_pb2.NodeCoverage.OUTCOME_FAILED,
}
_OUTCOMES = {number: outcome for outcome, number in _OUTCOMES_PB.items()}


def admission_to_pb(permit: bytes, context: RequestContext) -> inference_pb2.Admission:
    """What every question travels with. `permit`: an envelope's bytes."""
    return inference_pb2.Admission(permit=envelope_from_bytes(permit), context=context_to_pb(context))


def level_from_pb(number: int, default: ReleaseLevel) -> ReleaseLevel:
    """Reads a level; unset means `default`, unknown is REQUEST_INVALID."""
    if number not in _LEVELS:
        raise MeshError(Reason.REQUEST_INVALID, "level: expected count, reference, snippet or passage")
    return _LEVELS[number] or default


def level_to_pb(level: ReleaseLevel) -> retrieval_pb2.ReleaseLevel:
    """Writes it."""
    return _LEVELS_PB[level]


def mode_from_pb(number: int) -> SearchMode:
    """Reads how to rank."""
    if number == retrieval_pb2.SEARCH_MODE_UNSPECIFIED:
        return SearchMode.HYBRID
    if number not in _MODES:
        raise MeshError(Reason.REQUEST_INVALID, "mode: expected one of " + ", ".join(SearchMode))
    return _MODES[number]


def filters_from_pb(messages: Iterable[retrieval_pb2.Filter]) -> Filters:
    """Reads filters; FILTER_UNKNOWN for another field, REQUEST_INVALID for one that comes twice."""
    found = list(messages)
    if len(found) > MAX_FILTERS:
        raise MeshError(Reason.REQUEST_INVALID, f"filters: expected at most {MAX_FILTERS}")
    if any(len(each.any_of) > MAX_FILTER_VALUES for each in found):
        raise MeshError(Reason.REQUEST_INVALID, f"filter values: expected 1 to {MAX_FILTER_VALUES}")
    filters = Filters({each.field: frozenset(each.any_of) for each in found})
    if len(filters.fields) != len(found):
        raise MeshError(Reason.REQUEST_INVALID, "filters: expected each field once")
    return filters


def filters_to_pb(filters: Filters) -> list[retrieval_pb2.Filter]:
    """Writes them."""
    return [
        retrieval_pb2.Filter(field=name, any_of=sorted(values))
        for name, values in sorted(filters.fields.items())
    ]


def check_request_size(size: int) -> None:
    """REQUEST_TOO_LARGE if a request of `size` bytes is over 64 KiB."""
    if size > MAX_REQUEST_BYTES:
        raise MeshError(Reason.REQUEST_TOO_LARGE, f"a request has at most {MAX_REQUEST_BYTES} bytes")


def seconds_from_pb(milliseconds: int, default_s: float) -> float:
    """Reads a timeout; 0 means the default. Its bounds are the question's to check."""
    return milliseconds / 1000 if milliseconds else default_s


def search_from_pb(message: retrieval_pb2.SearchRequest) -> SearchQuestion:
    """Reads a search, without its admission."""
    check_request_size(message.ByteSize())
    return SearchQuestion(
        collection=message.collection,
        query=message.query,
        k=message.k or DEFAULT_K,
        mode=mode_from_pb(message.mode),
        filters=filters_from_pb(message.filters),
        level=level_from_pb(message.level, ReleaseLevel.REFERENCE),
        partial=message.stream_partial,
        timeout_s=seconds_from_pb(message.timeout_ms, SEARCH_TIMEOUT_S),
        exact=message.exact,
    )


def search_to_pb(
    question: SearchQuestion, permit: bytes, context: RequestContext, timeout_s: float
) -> retrieval_pb2.SearchRequest:
    """Writes a search for one node. `timeout_s` is what is left of the question's."""
    return retrieval_pb2.SearchRequest(
        admission=admission_to_pb(permit, context),
        collection=question.collection,
        query=question.query,
        k=question.k,
        mode=_MODES_PB[question.mode],
        filters=filters_to_pb(question.filters),
        level=level_to_pb(question.level),
        stream_partial=question.partial,
        timeout_ms=round(timeout_s * 1000),
        exact=question.exact,
    )


def search_event_to_pb(event: SearchEvent) -> retrieval_pb2.SearchResponse:
    """Writes one event."""
    if isinstance(event, SearchDecided):
        return retrieval_pb2.SearchResponse(decided=decision_to_pb(event.decision))
    if isinstance(event, Partial):
        partial = retrieval_pb2.PartialHits(
            hits=[hit_to_pb(hit) for hit in event.hits], node=coverage_to_pb(event.node)
        )
        return retrieval_pb2.SearchResponse(partial=partial)
    finished = retrieval_pb2.SearchFinished(
        hits=[hit_to_pb(hit) for hit in event.hits],
        coverage=[coverage_to_pb(node) for node in event.coverage],
        complete=event.complete,
    )
    return retrieval_pb2.SearchResponse(finished=finished)


def search_event_from_pb(message: retrieval_pb2.SearchResponse) -> SearchEvent:
    """Reads what a node says; raises PEER_MISBEHAVED."""
    kind = message.WhichOneof("event")
    if kind == "decided":
        return decided_from_pb(message.decided)
    if kind == "partial":
        return Partial(_hits_from_pb(message.partial.hits), coverage_from_pb(message.partial.node))
    if kind == "finished":
        finished = message.finished
        return SearchResult(
            _hits_from_pb(finished.hits), coverages_from_pb(finished.coverage), finished.complete
        )
    raise misbehaved("an event of a search")


def decided_from_pb(message: placement_pb2.Decision) -> SearchDecided:
    """Reads a fan-out's decision, which may rank more nodes than a placement does."""
    return SearchDecided(as_peer(lambda: decision_from_pb(message, ranked=MAX_FAN_OUT)))


def hit_to_pb(hit: Hit) -> retrieval_pb2.Hit:
    """Writes a hit."""
    released = hit.released
    return retrieval_pb2.Hit(
        rank=hit.rank,
        score=hit.score,
        node=str(hit.reference.node),
        reference=str(hit.reference),
        level=level_to_pb(released.level),
        title=released.title,
        text=released.text,
        document=released.document,
        source=released.source,
    )


def hit_from_pb(message: retrieval_pb2.Hit) -> Hit:
    """Reads a hit; raises PEER_MISBEHAVED if it is none or larger than a hit may be."""
    labels = (message.title, message.document, message.source)
    if (
        not math.isfinite(message.score)
        or len(message.text.encode()) > MAX_TEXT_BYTES
        or any(len(label.encode()) > MAX_LABEL_BYTES for label in labels)
    ):
        raise misbehaved("a hit with a finite score and bounded texts")
    reference = as_peer(lambda: Reference.parse(message.reference))
    if message.node != str(reference.node):
        raise misbehaved("a reference that belongs to the hit's node")
    level = as_peer(lambda: level_from_pb(message.level, ReleaseLevel.NOTHING))
    released = Released(reference.id, level, message.title, message.text, message.document, message.source)
    return Hit(message.rank, message.score, reference, released)


def _hits_from_pb(messages: Iterable[retrieval_pb2.Hit]) -> tuple[Hit, ...]:
    hits = list(messages)
    if len(hits) > MAX_K:
        raise misbehaved(f"at most {MAX_K} hits")
    return tuple(hit_from_pb(hit) for hit in hits)


def coverage_to_pb(node: Coverage) -> retrieval_pb2.NodeCoverage:
    """Writes what became of a node."""
    return retrieval_pb2.NodeCoverage(
        node=str(node.node),
        location=node.location,
        outcome=_OUTCOMES_PB[node.outcome],
        reason=node.reason.code if node.reason else "",
        detail=node.detail,
        policies=node.policies,
        latency_ms=node.latency_ms,
        counted=node.counted,
        counted_inexact=node.counted_inexact,
        highest=level_to_pb(node.highest),
        approximate=node.approximate,
        charged=node.charged,
    )


def coverage_from_pb(message: retrieval_pb2.NodeCoverage) -> Coverage:
    """Reads what became of a node; raises PEER_MISBEHAVED."""
    if message.outcome not in _OUTCOMES or not math.isfinite(message.latency_ms):
        raise misbehaved("what became of a node")
    if message.reason and message.reason not in Reason.__members__:
        raise misbehaved("a known reason")
    return Coverage(
        node=as_peer(lambda: SpiffeId.parse(message.node)),
        location=message.location[:2],
        outcome=_OUTCOMES[message.outcome],
        reason=Reason[message.reason] if message.reason else None,
        detail=message.detail[:MAX_DETAIL_CHARS],
        # Of both authorities, as in a decision.
        policies=tuple(policy[:256] for policy in message.policies[: 2 * MAX_NAMED_POLICIES]),
        latency_ms=message.latency_ms,
        counted=message.counted,
        counted_inexact=message.counted_inexact,
        highest=as_peer(lambda: level_from_pb(message.highest, ReleaseLevel.NOTHING)),
        approximate=message.approximate,
        charged=message.charged,
    )


def coverages_from_pb(messages: Iterable[retrieval_pb2.NodeCoverage]) -> tuple[Coverage, ...]:
    """Reads all of them; raises PEER_MISBEHAVED."""
    nodes = list(messages)
    if len(nodes) > MAX_COVERAGE:
        raise misbehaved(f"at most {MAX_COVERAGE} nodes")
    return tuple(coverage_from_pb(node) for node in nodes)


def misbehaved(expected: str) -> MeshError:
    """The error for an answer that no honest node gives."""
    return MeshError(Reason.PEER_MISBEHAVED, f"a node's answer: expected {expected}")


def as_peer(build: Callable[[], _T]) -> _T:
    """Whatever a value's constructor objects to, in an answer it means: the peer misbehaved."""
    try:
        return build()
    except MeshError as error:
        raise MeshError(Reason.PEER_MISBEHAVED, f"a node's answer: {error.message}") from None
