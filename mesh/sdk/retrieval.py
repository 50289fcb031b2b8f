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
from typing import Any, TypeVar

import grpc

from mesh.codec import answers, search
from mesh.core.errors import MeshError, Reason
from mesh.core.failover import MAX_ATTEMPTS, MAX_PLACEMENTS, PERMIT_MARGIN_S, RECOVERY
from mesh.core.placement import Decision, Permitted
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
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.rpc.channels import ChannelPool
from mesh.rpc.reach import CONNECT_TIMEOUT_S, channel_to, reach
from mesh.rpc.status import from_rpc_error
from mesh.sdk.events import PlacementRefused
from mesh.sdk.placers import Placers, refusal_message, refusal_of
from sovereign.mesh.v1 import retrieval_pb2_grpc

# The node keeps the deadline itself and says what it has by then; its last word needs a moment to arrive.
GRACE_S = 2.0
_LEAST_S = 0.05
# Lost, or not able to ask for others; and this node's index or embedder is not the only one there is.
_NEXT = frozenset(RECOVERY) | {
    Reason.INDEX_UNAVAILABLE,
    Reason.EMBEDDER_MISMATCH,
    Reason.COLLECTION_UNKNOWN,
    Reason.PEER_MISBEHAVED,
    Reason.INTERNAL,
}

_T = TypeVar("_T")
# A call at one node, with the permit and what is left of the time: a stream of what it says.
_Ask = Callable[[retrieval_pb2_grpc.RetrievalStub, bytes, float], AsyncGenerator[_T, None]]


class Retrievals:
    """Asks. `clock` is Unix seconds."""

    def __init__(self, placers: Placers, pool: ChannelPool, clock: Callable[[], float]) -> None:
        self._placers = placers
        self._pool = pool
        self._clock = clock

    def search(self, question: SearchQuestion, context: RequestContext) -> AsyncGenerator[SearchEvent, None]:
        """SearchDecided, Partial if asked for, SearchResult last."""

        def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float
        ) -> AsyncGenerator[SearchEvent, None]:
            request = search.search_to_pb(question, permit, context, left_s)
            return _stream(
                stub.Search(request, timeout=left_s + GRACE_S), search.search_event_from_pb, SearchResult
            )

        return self._ask(ask, context, question.collection, question.timeout_s)

    def answer(self, question: AnswerQuestion, context: RequestContext) -> AsyncGenerator[AnswerEvent, None]:
        """SearchDecided, sentences and NodeDone as they come, AnswerResult last."""

        def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float
        ) -> AsyncGenerator[AnswerEvent, None]:
            request = answers.answer_to_pb(question, permit, context, left_s)
            return _stream(
                stub.Answer(request, timeout=left_s + GRACE_S), answers.answer_event_from_pb, AnswerResult
            )

        return self._ask(ask, context, question.collection, question.timeout_s)

    async def fetch(self, question: FetchQuestion, context: RequestContext) -> Hit:
        """One passage."""

        async def ask(
            stub: retrieval_pb2_grpc.RetrievalStub, permit: bytes, left_s: float
        ) -> AsyncGenerator[Hit, None]:
            request = answers.fetch_to_pb(question, permit, context, left_s)
            answer = await stub.Fetch(request, timeout=left_s + GRACE_S)
            yield answers.fetched_from_pb(answer, question)

        collection = question.reference.collection
        async with aclosing(self._ask(ask, context, collection, question.timeout_s)) as hits:
            async for hit in hits:
                return hit
        raise MeshError(Reason.INTERNAL, "a fetch ended without an answer")

    async def _ask(
        self, ask: _Ask[_T], context: RequestContext, collection: str, timeout_s: float
    ) -> AsyncGenerator[_T, None]:
        """Places, and asks down the ranked list until some node has said anything; places anew at its end."""
        deadline = self._clock() + timeout_s
        tried: dict[SpiffeId, Reason] = {}
        last: MeshError | None = None
        for _ in range(MAX_PLACEMENTS):
            decision, targets = await self._place(context, collection, tried, deadline)
            if not targets:
                raise _refused(decision, tried, last)
            for target in targets[: MAX_ATTEMPTS - len(tried)]:
                left = deadline - self._clock()
                if left < _LEAST_S:
                    raise MeshError(Reason.DEADLINE_EXCEEDED, _tried("no node answered in time", tried))
                if decision.expires_at - self._clock() < PERMIT_MARGIN_S:
                    break
                said = False
                try:
                    async with aclosing(self._at(target, ask, left)) as events:
                        async for event in events:
                            said = True
                            yield event
                    return
                except MeshError as error:
                    if said or error.reason not in _NEXT:
                        raise
                    tried[target.node], last = error.reason, error
        if last is None:
            raise MeshError(Reason.NO_NODE_AVAILABLE, "no node could be asked")
        raise MeshError(last.reason, _tried(last.message, tried), last.metadata, last.retry_after_s)

    async def _place(
        self, context: RequestContext, collection: str, tried: dict[SpiffeId, Reason], deadline: float
    ) -> tuple[Decision, tuple[Permitted, ...]]:
        decision, targets = await self._placers.place(
            context,
            action=Action.SEARCH,
            model=collection,
            excluded=tried,
            timeout_s=max(0.1, deadline - self._clock()),
        )
        if decision.permitted and not targets:
            raise MeshError(
                Reason.IDENTITY_NOT_ALLOWED, "this identity may ask where questions may go, not send them"
            )
        return decision, targets

    async def _at(self, target: Permitted, ask: _Ask[_T], left_s: float) -> AsyncGenerator[_T, None]:
        """One node."""
        endpoint = await reach(self._pool, target, min(left_s, CONNECT_TIMEOUT_S))
        stub = retrieval_pb2_grpc.RetrievalStub(channel_to(self._pool, target, endpoint))
        began = False
        try:
            async with aclosing(ask(stub, target.permit, left_s)) as events:
                async for event in events:
                    began = True
                    yield event
        except grpc.RpcError as error:
            failure = from_rpc_error(error, began=began)
            if failure.reason in (Reason.UNREACHABLE, Reason.NODE_LOST):
                self._pool.drop(endpoint)
            if failure.reason is Reason.CANCELLED:
                # Not by this side, which would have closed the iterator: the node is going down.
                failure = MeshError(Reason.NODE_LOST, "the node cancelled the call")
            raise failure from None


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


def _refused(decision: Decision, tried: dict[SpiffeId, Reason], last: MeshError | None) -> MeshError:
    """Nobody may ask, or nobody is left who could."""
    if last is not None:
        return MeshError(last.reason, _tried(last.message, tried), last.metadata, last.retry_after_s)
    message = refusal_message(decision)
    return PlacementRefused(refusal_of(decision), message, {"decision": decision.id}, None, decision)


def _tried(message: str, tried: dict[SpiffeId, Reason]) -> str:
    if not tried:
        return message
    return f"{message} (tried {', '.join(f'{n} ({r.code})' for n, r in tried.items())})"
