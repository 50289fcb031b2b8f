"""Clients' questions on the wire: every bound of retrieval.proto, and what a node's answer may not be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.codec import answers, search
from mesh.core.decision import Decision, Ranked, Refused
from mesh.core.errors import MeshError, Reason
from mesh.core.questions import (
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    NodeDone,
    Partial,
    SearchDecided,
    SearchQuestion,
    SearchResult,
    is_complete,
)
from mesh.core.retrieval import (
    AnswerSentence,
    Coverage,
    Filters,
    Hit,
    Outcome,
    Reference,
    Released,
    ReleaseLevel,
    SearchMode,
)
from mesh.core.types import RequestContext, node_id
from sovereign.mesh.v1 import envelope_pb2, retrieval_pb2

DE, US = node_id("de.mesh.example", "fra-1"), node_id("us.mesh.example", "iad-1")
CONTEXT = RequestContext.of(["internal"], "care/triage")
PERMIT = envelope_pb2.Envelope(statement=b"s").SerializeToString()
REFERENCE = Reference(DE, "notes", bytes(range(16)))
HIT = Hit(1, 0.5, REFERENCE, Released(REFERENCE.id, ReleaseLevel.SNIPPET, "t", "some text"))
NODES = (
    Coverage(DE, "DE", Outcome.ANSWERED, latency_ms=1.5, counted=3, counted_inexact=True,
             highest=ReleaseLevel.SNIPPET, approximate=True, charged=2),
    Coverage(US, "US", Outcome.NOT_ASKED, Reason.POLICY_SENDER_DENIES, "no", ("de-no-us",)),
)  # fmt: skip
DECISION = Decision(
    "d-1", True, tuple(Ranked(node_id("de.mesh.example", f"n{i}"), 0.5, "DE", ("all",)) for i in range(40)),
    (Refused(US, Reason.POLICY_SENDER_DENIES, "no", ("de-no-us",), "US"),), 1, 41, decided_by=DE,
)  # fmt: skip
SENTENCE = AnswerSentence("The pump is new.", (REFERENCE,), ReleaseLevel.SNIPPET, False, 0.75)


def request(**changes: Any) -> retrieval_pb2.SearchRequest:
    return retrieval_pb2.SearchRequest(**{"collection": "notes", "query": "pump", **changes})


def refused(read: Any, message: Any) -> Reason:
    with pytest.raises(MeshError) as error:
        read(message)
    assert "pump" not in error.value.message, "I1: an error does not quote the question"
    return error.value.reason


def test_what_is_not_said_has_a_default():
    assert search.search_from_pb(request()) == SearchQuestion("notes", "pump")
    question = search.search_from_pb(request())
    assert (question.k, question.mode, question.timeout_s) == (10, SearchMode.HYBRID, 5.0)
    assert question.level is ReleaseLevel.REFERENCE
    asked = answers.answer_from_pb(retrieval_pb2.AnswerRequest(collection="notes", question="pump?"))
    assert asked == AnswerQuestion("notes", "pump?")
    fetch = answers.fetch_from_pb(retrieval_pb2.FetchRequest(reference=str(REFERENCE)))
    assert fetch == FetchQuestion(REFERENCE, ReleaseLevel.PASSAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"query": ""},
        {"query": " \n\t"},
        {"query": "pump\x00"},
        {"query": "ü" * 4097},
        {"k": 101},
        {"k": 10**6},
        {"mode": 99},
        {"level": 5},
        {"timeout_ms": 49},
        {"timeout_ms": 60_001},
        {"collection": ""},
        {"collection": "No/Such"},
        {"collection": "x" * 64},
        {"filters": [retrieval_pb2.Filter(field="owner")]},
        {"filters": [retrieval_pb2.Filter(field="owner", any_of=[""])]},
        {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x" * 257])]},
        {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x"] * 65)]},
        {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x"])] * 2},
        {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x"])] * 17},
    ],
)
def test_a_search_out_of_bounds_is_refused(changes: dict[str, Any]):
    assert refused(search.search_from_pb, request(**changes)) is Reason.REQUEST_INVALID


@pytest.mark.parametrize("field", ["tenant", "id", "", "owner ", "OWNER"])
def test_no_filter_reaches_for_other_fields(field: str):
    """Not by tenant above all: whose documents are found is decided by who asks."""
    message = request(filters=[retrieval_pb2.Filter(field=field, any_of=["x"])])
    assert refused(search.search_from_pb, message) is Reason.FILTER_UNKNOWN


def test_a_request_is_bounded_as_a_whole():
    values = [str(i) * 200 for i in range(64)]
    fields = ["document", "source", "language", "owner", "class"]
    message = request(
        filters=[retrieval_pb2.Filter(field=f, any_of=[v[:250] for v in values]) for f in fields]
    )
    assert refused(search.search_from_pb, message) is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize("changes", [{"question": "x" * 2049}, {"question": "  "}, {"timeout_ms": 300_001}])
def test_a_question_out_of_bounds_is_refused(changes: dict[str, Any]):
    message = retrieval_pb2.AnswerRequest(**{"collection": "notes", "question": "pump?", **changes})
    assert refused(answers.answer_from_pb, message) is Reason.REQUEST_INVALID


@pytest.mark.parametrize("text", ["", "x", "de.mesh.example/fra-1/notes/00", f"{REFERENCE}\n", "../" * 9])
def test_what_is_no_reference_is_refused(text: str):
    message = retrieval_pb2.FetchRequest(reference=text)
    assert refused(answers.fetch_from_pb, message) is Reason.REQUEST_INVALID


def test_a_text_that_utf_8_cannot_hold_is_refused_without_quoting_it():
    with pytest.raises(MeshError) as error:
        SearchQuestion("notes", "pump \ud800")
    assert error.value.reason is Reason.REQUEST_INVALID
    assert error.value.__cause__ is None


@given(
    st.builds(
        SearchQuestion,
        collection=st.just("notes"),
        query=st.text(min_size=1, max_size=50).filter(lambda t: t.strip() and "\x00" not in t),
        k=st.integers(1, 100),
        mode=st.sampled_from(SearchMode),
        filters=st.dictionaries(
            st.sampled_from(["owner", "class"]), st.frozensets(st.sampled_from("abc"), min_size=1)
        ).map(Filters),
        level=st.sampled_from(list(ReleaseLevel)[1:]),
        partial=st.booleans(),
        timeout_s=st.integers(50, 60_000).map(lambda ms: ms / 1000),
        exact=st.booleans(),
    )
)
def test_a_search_comes_back_as_it_went(question: SearchQuestion):
    written = search.search_to_pb(question, PERMIT, CONTEXT, question.timeout_s)
    assert search.search_from_pb(written) == question


@pytest.mark.parametrize(
    "event",
    [
        SearchDecided(DECISION),
        Partial((HIT,), NODES[0]),
        SearchResult((HIT,), NODES, False),
    ],
)
def test_events_come_back_as_they_went(event: Any):
    read = search.search_event_from_pb(search.search_event_to_pb(event))
    assert read == event


@pytest.mark.parametrize("event", [SENTENCE, NodeDone(NODES[1]), AnswerResult((SENTENCE,), NODES, True)])
def test_events_of_answers_come_back_as_they_went(event: Any):
    assert answers.answer_event_from_pb(answers.answer_event_to_pb(event)) == event


@pytest.mark.parametrize(
    "change",
    [
        lambda hit: setattr(hit, "score", math.inf),
        lambda hit: setattr(hit, "score", math.nan),
        lambda hit: setattr(hit, "reference", "somewhere"),
        lambda hit: setattr(hit, "node", str(US)),
        lambda hit: setattr(hit, "level", 9),
        lambda hit: setattr(hit, "text", "x" * 65_537),
        lambda hit: setattr(hit, "title", "x" * 4_097),
    ],
)
def test_a_hit_that_no_honest_node_gives(change: Any):
    message = search.search_event_to_pb(SearchResult((HIT,), (), False))
    change(message.finished.hits[0])
    assert refused(search.search_event_from_pb, message) is Reason.PEER_MISBEHAVED


def test_more_than_anybody_asked_for():
    message = search.search_event_to_pb(SearchResult((HIT,) * 101, (), False))
    assert refused(search.search_event_from_pb, message) is Reason.PEER_MISBEHAVED
    message = search.search_event_to_pb(SearchResult((), NODES * 600, False))
    assert refused(search.search_event_from_pb, message) is Reason.PEER_MISBEHAVED
    nothing = retrieval_pb2.SearchResponse()
    assert refused(search.search_event_from_pb, nothing) is Reason.PEER_MISBEHAVED
    unknown = search.search_event_to_pb(SearchResult((), NODES, False))
    unknown.finished.coverage[1].reason = "BECAUSE"
    assert refused(search.search_event_from_pb, unknown) is Reason.PEER_MISBEHAVED


def test_a_fetch_gives_what_was_asked_for_and_no_more():
    def read(hit: Hit, level: ReleaseLevel) -> Hit:
        return answers.fetched_from_pb(answers.fetched_to_pb(hit), FetchQuestion(REFERENCE, level))

    assert read(HIT, ReleaseLevel.PASSAGE) == HIT
    other = Hit(0, 0.0, Reference(DE, "notes", b"x" * 16), HIT.released)
    for hit, level in ((HIT, ReleaseLevel.REFERENCE), (other, ReleaseLevel.PASSAGE)):
        with pytest.raises(MeshError) as error:
            read(hit, level)
        assert error.value.reason is Reason.PEER_MISBEHAVED


def test_complete_means_every_holder_and_at_least_one():
    answered = NODES[:1]
    assert is_complete(answered, 1)
    assert not is_complete(answered, 2)
    assert not is_complete(NODES, 2)
    assert not is_complete((), 0)
