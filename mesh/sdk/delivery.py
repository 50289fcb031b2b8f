"""Carrying out a delivery: place, send to a permitted node, follow the stream, fail over.

mesh/core/failover.py decides each step; this shell does what it says, by what attempts.py has. Closing the
iterator cancels the call, which stops the generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

import grpc

from mesh.core import failover
from mesh.core.errors import MeshError
from mesh.core.failover import AskPlacement, Delivery, Fail, Finish, Mode, Send
from mesh.core.placement import Permitted
from mesh.core.types import Action, RequestContext
from mesh.rpc.channels import ChannelPool
from mesh.sdk import events
from mesh.sdk.attempts import Course, try_node
from mesh.sdk.checks import ProtocolBreach, StreamCheck, check_embeddings
from mesh.sdk.placers import Placers
from mesh.sdk.requests import Generation, admission_to_pb
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.span_attributes import SpanName
from mesh.telemetry.spans import Metadata, Span
from mesh.telemetry.tracing import NO_TRACING, Tracing
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc

_METHODS = {
    SpanName.CHAT: "sovereign.mesh.v1.Inference/Chat",
    SpanName.COMPLETE: "sovereign.mesh.v1.Inference/Complete",
    SpanName.EMBED: "sovereign.mesh.v1.Inference/Embed",
}


class Attempt(Protocol):
    """One try at one node: yields Started, then Tokens, then Finished or Embeddings last."""

    def __call__(  # noqa: D102  the class says it
        self,
        target: Permitted,
        channel: grpc.aio.Channel,
        metadata: Metadata | None,
        max_tokens: int,
        resume_text: str,
        left_s: float,
    ) -> AsyncGenerator[Any, None]: ...


class Deliveries:
    """Delivers requests. Times in seconds; `clock` in Unix seconds.

    `silence_s` is how long a node may take for its next message before it counts as lost.
    """

    def __init__(
        self,
        placers: Placers,
        pool: ChannelPool,
        clock: Callable[[], float],
        *,
        silence_s: float = 30.0,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._placers = placers
        self._pool = pool
        self._clock = clock
        self._silence_s = silence_s
        self._tracing = tracing

    def generate(self, request: Generation, timeout_s: float) -> AsyncGenerator[events.Event, None]:
        """Chat or Complete, as events."""

        def attempt(
            target: Permitted,
            channel: grpc.aio.Channel,
            metadata: Metadata | None,
            max_tokens: int,
            resume_text: str,
            left_s: float,
        ) -> AsyncGenerator[Any, None]:
            stub = inference_pb2_grpc.InferenceStub(channel)
            method = stub.Chat if request.messages else stub.Complete
            message = request.to_pb(target.permit, max_tokens, resume_text)
            return self._stream(target, method(message, timeout=left_s, metadata=metadata), max_tokens)

        operation = SpanName.CHAT if request.messages else SpanName.COMPLETE
        return self._deliver(
            attempt,
            operation,
            request.context,
            Action.INFER,
            request.model,
            request.sampling.max_tokens,
            timeout_s,
        )

    def embed(
        self, model: str, texts: tuple[str, ...], context: RequestContext, timeout_s: float
    ) -> AsyncGenerator[Any, None]:
        """Embed, as events; Embeddings last."""

        async def attempt(
            target: Permitted,
            channel: grpc.aio.Channel,
            metadata: Metadata | None,
            max_tokens: int,
            resume_text: str,
            left_s: float,
        ) -> AsyncGenerator[Any, None]:
            request = inference_pb2.EmbedRequest(
                admission=admission_to_pb(target.permit, context), model=model, texts=texts
            )
            call = inference_pb2_grpc.InferenceStub(channel).Embed(request, timeout=left_s, metadata=metadata)
            answer = await self._unary(call)
            vectors = [list(e.values) for e in answer.embeddings]
            check_embeddings(vectors, len(texts), answer.node, target.node)
            yield events.Started(target.node, "", answer.model_digest)
            yield vectors

        return self._deliver(attempt, SpanName.EMBED, context, Action.EMBED, model, 0, timeout_s)

    async def _deliver(
        self,
        attempt: Attempt,
        operation: SpanName,
        context: RequestContext,
        action: Action,
        model: str,
        max_tokens: int,
        timeout_s: float,
    ) -> AsyncGenerator[Any, None]:
        """Drives failover.step until it says Finish or Fail. All of it is one span, each call a step."""
        with spans.ending(self._tracing.begin(operation)) as span:
            span.set(names.of_generation(operation, model, max_tokens or None))
            state = Delivery(max_tokens=max_tokens, deadline=self._clock() + timeout_s)
            todo: failover.Step = AskPlacement(())
            course = Course(self._placers, self._clock, context, action, model, span)
            text: list[str] = []
            held = 0
            while not isinstance(todo, Finish):
                if isinstance(todo, Fail):
                    raise course.failure(todo, state)
                if isinstance(todo, AskPlacement):
                    placed, decision = await course.place(todo, state)
                    if decision is not None:
                        yield events.Placed(decision)
                    state, todo = failover.step(state, placed, self._clock())
                    continue
                if not isinstance(todo, Send):
                    raise failover.IllegalMove(f"{type(todo).__name__} is not a step to begin with")
                target = course.targets[todo.route.node]
                if todo.lost is not None:
                    kept = held if todo.mode is Mode.RESUMED else 0
                    yield events.FailedOver(
                        todo.lost.node, target.node, todo.mode, todo.lost.reason, kept, held - kept
                    )
                    held = kept
                if todo.mode is not Mode.RESUMED:
                    text.clear()
                left = max(0.0, state.deadline - self._clock())
                ask = partial(
                    attempt, target, max_tokens=todo.max_tokens, resume_text="".join(text), left_s=left
                )
                trying = try_node(
                    self._pool,
                    target,
                    ask,
                    left_s=left,
                    silent=f"silent for {self._silence_s:g} s",
                    method=_METHODS[operation],
                    span=span,
                )
                try:
                    async with aclosing(trying) as answers:
                        async for answer in answers:
                            if isinstance(answer, events.Started):
                                event: failover.Event = failover.Accepted(answer.model_digest)
                            elif isinstance(answer, events.Token):
                                text.append(answer.text)
                                held += answer.tokens
                                event = failover.Delivered(answer.tokens)
                            else:
                                event = failover.Completed()
                            state, todo = failover.step(state, event, self._clock())
                            if not isinstance(todo, failover.Read | Finish):
                                break
                            answer = _counted(answer, held)
                            if isinstance(answer, events.Finished):
                                _say(span, answer)
                            yield answer
                except MeshError as error:
                    course.last_error = error
                    lost = failover.Lost(error.reason, isinstance(error, ProtocolBreach))
                    state, todo = failover.step(state, lost, self._clock())
            if todo.cut:
                # The node was lost after the last token that was asked for: nothing is missing.
                yield events.Finished("length", state.tried[-1].node, 0, held)

    async def _stream(self, target: Permitted, call: Any, max_tokens: int) -> AsyncGenerator[Any, None]:
        check = StreamCheck(target.node, max_tokens)
        try:
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await call.read()
                if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                    if not check.finished:
                        raise ProtocolBreach("Finished before the end")
                    return
                kind = message.WhichOneof("event")
                if kind == "started":
                    check.on_started(message.started.node)
                    started = message.started
                    yield events.Started(target.node, started.decision_id[:64], started.model_digest[:80])
                elif kind == "delta":
                    check.on_delta(message.delta.text, message.delta.tokens)
                    yield events.Token(message.delta.text, message.delta.tokens)
                elif kind == "finished":
                    end = message.finished
                    check.on_finished(end.reason, end.completion_tokens)
                    yield events.Finished(end.reason, target.node, end.prompt_tokens, end.completion_tokens)
                    return
                else:
                    raise ProtocolBreach("Started, a delta or Finished")
        finally:
            call.cancel()

    async def _unary(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._silence_s):
                return await call
        finally:
            call.cancel()


def _say(span: Span, end: events.Finished) -> None:
    span.set(
        {
            names.INPUT_TOKENS: end.prompt_tokens,
            names.OUTPUT_TOKENS: end.completion_tokens,
            names.FINISH_REASONS: [end.reason],
        }
    )


def _counted(answer: Any, held: int) -> Any:
    """Finished with the tokens of all nodes that took part instead of the last one's."""
    if isinstance(answer, events.Finished):
        return events.Finished(answer.reason, answer.node, answer.prompt_tokens, held)
    return answer
