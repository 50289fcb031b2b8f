"""Questions to a collection, through a node of the caller's own authority.

Placed first, with the action search and the collection's name: whoever is placed asks the other nodes on
the caller's behalf and merges what they say. A node of ours that is lost before it has said anything is
replaced by another one; after that it is an error, since a second node's answer would not go with the
first one's. What a node answers is checked for form; who may be asked, and what may be released, is for
the nodes to decide.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import grpc

from mesh.codec import answers, search
from mesh.core import failover
from mesh.core.errors import MeshError, Reason
from mesh.core.failover import (
    RECOVERY_OF_QUESTIONS,
    Accepted,
    AskPlacement,
    Completed,
    Delivery,
    Fail,
    Finish,
    Lost,
    Send,
)
from mesh.core.questions import (
    AnswerEvent,
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    SearchEvent,
    SearchQuestion,
    SearchResult,
)
from mesh.core.retrieval import Hit
from mesh.core.types import Action, RequestContext
from mesh.rpc.channels import ChannelPool
from mesh.sdk.attempts import Course, try_node
from mesh.sdk.placers import Placers
from mesh.telemetry import spans
from mesh.telemetry.span_attributes import SpanName
from mesh.telemetry.spans import Metadata
from mesh.telemetry.tracing import NO_TRACING, Tracing
from sovereign.mesh.v1 import retrieval_pb2_grpc

# The node keeps the deadline itself and says what it has by then; its last word needs a moment to arrive.
GRACE_S = 2.0
_METHODS = {
    SpanName.SEARCH: "sovereign.mesh.v1.Retrieval/Search",
    SpanName.ANSWER: "sovereign.mesh.v1.Retrieval/Answer",
    SpanName.FETCH: "sovereign.mesh.v1.Retrieval/Fetch",
}

_T = TypeVar("_T")
# A call at one node, with the permit, what is left of the time, and its metadata: a stream of what it says.
_Ask = Callable[[retrieval_pb2_grpc.RetrievalStub, bytes, float, Metadata | None], AsyncGenerator[_T, None]]


class Retrievals:
    """Asks. `clock` is Unix seconds."""

    def __init__(
        self,
        placers: Placers,
        pool: ChannelPool,
        clock: Callable[[], float],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._placers = placers
        self._pool = pool
        self._clock = clock
        self._tracing = tracing

    def search(self, question: SearchQuestion, context: RequestContext) -> AsyncGenerator[SearchEvent, None]:
        """SearchDecided, Partial if asked for, SearchResult last."""

        def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float, metadata: Metadata | None
        ) -> AsyncGenerator[SearchEvent, None]:
            request = search.search_to_pb(question, permit, context, left_s)
            call = stub.Search(request, timeout=left_s + GRACE_S, metadata=metadata)
            return _stream(call, search.search_event_from_pb, SearchResult)

        return self._ask(ask, SpanName.SEARCH, context, question.collection, question.timeout_s)

    def answer(self, question: AnswerQuestion, context: RequestContext) -> AsyncGenerator[AnswerEvent, None]:
        """SearchDecided, sentences and NodeDone as they come, AnswerResult last."""

        def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float, metadata: Metadata | None
        ) -> AsyncGenerator[AnswerEvent, None]:
            request = answers.answer_to_pb(question, permit, context, left_s)
            call = stub.Answer(request, timeout=left_s + GRACE_S, metadata=metadata)
            return _stream(call, answers.answer_event_from_pb, AnswerResult)

        return self._ask(ask, SpanName.ANSWER, context, question.collection, question.timeout_s)

    async def fetch(self, question: FetchQuestion, context: RequestContext) -> Hit:
        """One passage."""

        async def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float, metadata: Metadata | None
        ) -> AsyncGenerator[Hit, None]:
            request = answers.fetch_to_pb(question, permit, context, left_s)
            answer = await stub.Fetch(request, timeout=left_s + GRACE_S, metadata=metadata)
            yield answers.fetched_from_pb(answer, question)

        collection = question.reference.collection
        async with aclosing(self._ask(ask, SpanName.FETCH, context, collection, question.timeout_s)) as hits:
            async for hit in hits:
                return hit
        raise MeshError(Reason.INTERNAL, "a fetch ended without an answer")

    async def _ask(
        self, ask: _Ask[_T], what: SpanName, context: RequestContext, collection: str, timeout_s: float
    ) -> AsyncGenerator[_T, None]:
        """Drives failover.step: down the ranked list until some node has said anything. All is one span."""
        with spans.ending(self._tracing.begin(what)) as span:
            state = Delivery(0, self._clock() + timeout_s, RECOVERY_OF_QUESTIONS, movable=False)
            todo: failover.Step = AskPlacement(())
            course = Course(self._placers, self._clock, context, Action.SEARCH, collection, span)
            while not isinstance(todo, Finish):
                if isinstance(todo, Fail):
                    raise course.failure(todo, state)
                if isinstance(todo, AskPlacement):
                    placed, _ = await course.place(todo, state)
                    state, todo = failover.step(state, placed, self._clock())
                    continue
                if not isinstance(todo, Send):
                    raise failover.IllegalMove(f"{type(todo).__name__} is not a step to begin with")
                target, left = course.targets[todo.route.node], max(0.0, state.deadline - self._clock())
                began = False
                try:
                    trying = try_node(
                        self._pool,
                        target,
                        partial(_at, ask, target.permit, left),
                        left_s=left,
                        method=_METHODS[what],
                        span=span,
                    )
                    async with aclosing(trying) as events:
                        async for event in events:
                            if not began:
                                began = True
                                state, _ = failover.step(state, Accepted(""), self._clock())
                            yield event
                    state, todo = failover.step(state, Completed(), self._clock())
                except MeshError as error:
                    course.last_error = error
                    state, todo = failover.step(state, Lost(error.reason), self._clock())


def _at(
    ask: _Ask[_T], permit: bytes, left_s: float, channel: grpc.aio.Channel, metadata: Metadata | None
) -> AsyncGenerator[_T, None]:
    return ask(retrieval_pb2_grpc.RetrievalStub(channel), permit, left_s, metadata)


async def _stream(call: Any, read: Callable[[Any], _T], last: type[object]) -> AsyncGenerator[_T, None]:
    """The events of a call; it must end with one of type `last`. Closing it cancels the call."""
    try:
        async for message in call:
            event = read(message)
            yield event
            if isinstance(event, last):
                return
        raise MeshError(Reason.NODE_LOST, "the node ended before its result")
    finally:
        call.cancel()
