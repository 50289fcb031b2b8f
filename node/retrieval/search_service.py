"""Retrieval: Search, Answer and Fetch for clients of this node's own authority.

A question passes the gate like any request (identity, permit, this node's own judgement), waits for a
slot, and is then decided once more for all the nodes that hold the collection. Only when that decision is
on record does the question go anywhere, also within this node (I7). What it asks is read here to be
passed on: no log, no entry and no error holds a word of it (I1).

Clients of other authorities ask a node of their own: who speaks for them there, decides there.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from mesh.codec import answers, search
from mesh.core.errors import MeshError, Reason
from mesh.core.questions import (
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    SearchQuestion,
    SearchResult,
)
from mesh.core.retrieval import Coverage
from mesh.core.types import Action
from mesh.evidence import decision_entry
from mesh.rpc.pace import Pace, asker_of
from node.admission import Admission
from node.gate import Entry, Gate
from node.live_calls import LiveCall
from node.retrieval.answering import Answering, require_permitted
from node.retrieval.asker import Asker
from node.retrieval.panel import Plan
from sovereign.mesh.v1 import retrieval_pb2, retrieval_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Retrieval"
# What the log names of a coverage; a collection may have more holders than tell the story.
MAX_LOGGED_NODES = 100

_Context = grpc.aio.ServicerContext[Any, Any]
_Q = TypeVar("_Q", SearchQuestion, AnswerQuestion, FetchQuestion)
_T = TypeVar("_T")


class RetrievalService(retrieval_pb2_grpc.RetrievalServicer):
    """Asks on behalf of clients. `admission` bounds how many questions are under way, `monotonic` times
    what deciding costs."""

    def __init__(
        self,
        gate: Gate,
        asker: Asker,
        answering: Answering,
        admission: Admission,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._gate = gate
        self._asker = asker
        self._answering = answering
        self._admission = admission
        self._monotonic = monotonic
        self._pace = Pace()

    async def Search(self, request: retrieval_pb2.SearchRequest, context: _Context) -> None:
        """Finds the best chunks over every permitted node; see retrieval.proto."""

        async def serve(plan: Plan, question: SearchQuestion, call: LiveCall, entry: Entry) -> None:
            events = self._asker.search(plan, question)
            await self._stream(context, call, entry, events, search.search_event_to_pb)

        await self._receive("search", request, context, search.search_from_pb, serve)

    async def Answer(self, request: retrieval_pb2.AnswerRequest, context: _Context) -> None:
        """Every permitted node answers from its own passages; see retrieval.proto."""

        async def serve(plan: Plan, question: AnswerQuestion, call: LiveCall, entry: Entry) -> None:
            events = self._answering.answer(plan, question)
            await self._stream(context, call, entry, events, answers.answer_event_to_pb)

        await self._receive("answer", request, context, answers.answer_from_pb, serve)

    async def Fetch(
        self, request: retrieval_pb2.FetchRequest, context: _Context
    ) -> retrieval_pb2.FetchResponse:
        """One passage; see retrieval.proto."""

        async def serve(
            plan: Plan, question: FetchQuestion, call: LiveCall, entry: Entry
        ) -> retrieval_pb2.FetchResponse:
            return answers.fetched_to_pb(await self._answering.fetch(plan, question))

        return await self._receive("fetch", request, context, answers.fetch_from_pb, serve)

    async def _receive(
        self,
        kind: str,
        request: Any,
        context: _Context,
        read: Callable[[Any], _Q],
        serve: Callable[[Plan, _Q, LiveCall, Entry], Awaitable[_T]],
    ) -> _T:
        """Lets `serve` ask, once everything that stands before it has passed and is on record."""
        gate = self._gate
        entry = gate.begin(kind)
        try:
            peer = gate.identify(context, entry)
            if peer.id.trust_domain != gate.node.trust_domain:
                raise MeshError(
                    Reason.IDENTITY_NOT_ALLOWED,
                    f"expected a client of {gate.node.trust_domain}: others ask nodes of their own",
                )
        except MeshError as refusal:
            await gate.refuse(entry, refusal)
            raise
        asker = asker_of(peer.id, gate.node.trust_domain)
        # Not recorded: nothing was decided, and a flood must not fill the disk that decisions need (I7).
        self._pace.require(asker, self._monotonic())
        began = self._monotonic()
        entry["bytes"] = request.ByteSize()
        try:
            question = read(request)
            collection = (
                question.reference.collection if isinstance(question, FetchQuestion) else question.collection
            )
            asked = gate.decide(peer, peer.id, request.admission, Action.SEARCH, collection, entry)
        except MeshError as refusal:
            self._spend(asker, began)
            await gate.refuse(entry, refusal)
            raise
        self._spend(asker, began)
        async with gate.watch(asked, entry) as call:
            with await self._turn(asker, entry):
                began = self._monotonic()
                try:
                    gate.spend(asked)
                    plan = self._asker.decide(peer.id, asked.context, collection, str(entry["id"]))
                    gate.observer.placed(Action.SEARCH, plan.decision, self._monotonic() - began)
                    entry["asks"] = decision_entry(plan.decision)
                    if isinstance(question, FetchQuestion):
                        entry["only"] = str(question.reference.node)
                        require_permitted(plan.decision, question.reference.node)
                except MeshError as refusal:
                    self._spend(asker, began)
                    await gate.refuse(entry, refusal)
                    raise
                self._spend(asker, began)
                await gate.record({**entry, "outcome": "served"})
                return await serve(plan, question, call, entry)

    async def _turn(self, asker: str, entry: Entry) -> contextlib.AbstractContextManager[object]:
        try:
            return await self._admission.enter(asker)
        except MeshError as refusal:
            await self._gate.refuse(entry, refusal)
            raise

    async def _stream(
        self,
        context: _Context,
        call: LiveCall,
        entry: Entry,
        events: AsyncGenerator[Any, None],
        write: Callable[[Any], object],
    ) -> None:
        async with aclosing(events):
            async for event in events:
                await self._gate.send(context, call, write(event))
                if isinstance(event, SearchResult | AnswerResult):
                    await self._covered(entry, event.coverage)

    async def _covered(self, entry: Entry, coverage: Sequence[Coverage]) -> None:
        """What became of each node, after the fact: the decision to ask is on record already."""
        nodes = [
            {
                "node": str(each.node),
                "outcome": each.outcome,
                "reason": each.reason.code if each.reason else "",
                "charged": each.charged,
            }
            for each in coverage[:MAX_LOGGED_NODES]
        ]
        with contextlib.suppress(MeshError):
            await self._gate.record(
                {"kind": "covered", "id": entry["id"], "at": self._gate.clock(), "nodes": nodes}
            )

    def _spend(self, asker: str, began: float) -> None:
        now = self._monotonic()
        self._pace.spend(asker, now - began, now)
