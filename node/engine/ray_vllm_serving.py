"""The gRPC service of one replica, in the process that holds vLLM's AsyncLLM.

One session carries many generations, so that a token costs no call of its own. A generation that is
cancelled, or whose session ends, is aborted in vLLM at once. Every error leaves here as a reason
code of ours: vLLM's exceptions would make a gateway import vLLM, and their text may quote a prompt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

import grpc
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from mesh.core.errors import MeshError, Reason
from node.engine.outbox import Beat, Outbox
from node.engine.spec import EngineSpec
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc

_LOG = logging.getLogger("node.engine.ray_vllm_serving")
_INLINE_TEXT = 8192  # characters that are tokenised without leaving the event loop (about 1 ms)
_SEED_MASK = (1 << 63) - 1  # torch takes signed seeds
_FINISHES = ("stop", "length")
_MESSAGE_EVERY_S = 0.005  # a message costs the hops behind about 0.2 ms: 4 % of a core at this rate
_SLOWEST = 2.5  # times coalesce_s, whatever the load


def _forget(running: dict[int, asyncio.Task[None]], generation: int, _: asyncio.Task[None]) -> None:
    running.pop(generation, None)


class Embeds(Protocol):
    """What embeds texts."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text."""
        ...


class EngineService(engine_pb2_grpc.EngineServicer):
    """See the module. `engine` is an AsyncLLM, `tokenizer` its tokenizer."""

    def __init__(self, engine: Any, tokenizer: Any, spec: EngineSpec, embedder: Embeds | None) -> None:
        self._engine, self._tokenizer, self._spec, self._embedder = engine, tokenizer, spec, embedder
        self._sessions = 0
        self._limit = 4 * spec.capacity + 64
        self._beat = Beat(self._interval_s, self._any_ended)
        self._begun = 0  # generations that vLLM was given and whose end was not seen yet
        self.active = 0
        """Generations that are running or waiting in vLLM."""
        self.progress = 0
        """Grows with every output; what the stall watch looks at."""

    async def Session(self, request_iterator: AsyncIterator[engine_pb2.SessionRequest], context: Any) -> None:
        """Runs until the gateway leaves; then everything it wanted is aborted."""
        self._sessions += 1
        outbox = Outbox(self._spec.coalesce_s / 2)  # less than a beat, so that no beat waits for the next
        running: dict[int, asyncio.Task[None]] = {}
        reader = asyncio.ensure_future(self._read(request_iterator, f"{self._sessions}-", outbox, running))
        try:
            while True:
                await context.write(engine_pb2.SessionResponse(events=await outbox.take()))
        finally:
            reader.cancel()
            for task in running.values():
                task.cancel()
            await asyncio.gather(reader, *running.values(), return_exceptions=True)

    async def Embed(self, request: engine_pb2.EmbedRequest, context: Any) -> engine_pb2.EmbedResponse:
        """Embeds; the event loop goes on serving tokens."""
        if self._embedder is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, Reason.MODEL_UNKNOWN.code)
            raise AssertionError("abort raises")
        try:
            vectors = await self._embedder.embed(list(request.texts))
        except Exception as error:
            _LOG.error("an embedding failed: %s", type(error).__name__)  # its text may quote one (I1)
            await context.abort(grpc.StatusCode.UNAVAILABLE, Reason.ENGINE_FAILED.code)
            raise AssertionError("abort raises") from None
        return engine_pb2.EmbedResponse(
            embeddings=[engine_pb2.Embedding(values=vector) for vector in vectors]
        )

    async def _read(
        self,
        requests: AsyncIterator[engine_pb2.SessionRequest],
        prefix: str,
        outbox: Outbox,
        running: dict[int, asyncio.Task[None]],
    ) -> None:
        async for request in requests:
            if request.HasField("generate"):
                command = request.generate
                task = asyncio.ensure_future(self._generate(command, prefix, outbox))
                running[command.id] = task
                task.add_done_callback(partial(_forget, running, command.id))
            elif (wanted := running.get(request.cancel)) is not None:
                wanted.cancel()
                outbox.forget(request.cancel)

    async def _generate(self, command: engine_pb2.Generate, prefix: str, outbox: Outbox) -> None:
        self.active += 1
        try:
            ids = await self._prompt(command)
            parameters = self._parameters(command, len(ids))
            await self._deliver(
                command.id,
                len(ids),
                self._engine.generate(tokens_input(ids), parameters, f"{prefix}{command.id}"),
                outbox,
            )
        except MeshError as error:
            self._fail(outbox, command.id, error.reason)
        except VLLMClientError:
            self._fail(outbox, command.id, Reason.REQUEST_INVALID)
        except Exception as error:
            # The type only: its text may quote a prompt (I1).
            _LOG.error("a generation failed: %s", type(error).__name__)
            self._fail(outbox, command.id, Reason.ENGINE_FAILED)
        finally:
            self.active -= 1

    async def _deliver(
        self, generation: int, prompt_tokens: int, outputs: AsyncGenerator[Any, None], outbox: Outbox
    ) -> None:
        """Hands on what vLLM says about one generation, to its end."""
        urgent = True
        self._begun += 1
        try:
            # Closed by hand: a cancellation that arrives between two outputs must reach vLLM too.
            async with aclosing(outputs):
                async for output in outputs:
                    self.progress += 1
                    completion = output.outputs[0]
                    event = engine_pb2.Event(
                        id=generation, text=completion.text, tokens=len(completion.token_ids)
                    )
                    finish = completion.finish_reason
                    if finish is not None:
                        event.finish = finish if finish in _FINISHES else "error"
                        event.error = "" if finish in _FINISHES else Reason.ENGINE_FAILED.code
                        event.prompt_tokens = prompt_tokens
                    outbox.put(event, urgent=urgent or finish is not None)
                    urgent = False
                    if finish is None:
                        # vLLM merges what nobody asks for: asking once a beat spares this loop, and
                        # every hop behind it, most of what a token costs.
                        await self._beat.wait()
        finally:
            self._begun -= 1

    def _interval_s(self) -> float:
        """Of the beat: longer with more streams, so that messages never eat up a core."""
        least = self._spec.coalesce_s
        return min(max(least, self._begun * _MESSAGE_EVERY_S), _SLOWEST * least)

    def _any_ended(self) -> bool:
        return bool(self._engine.get_num_unfinished_requests() < self._begun)

    @staticmethod
    def _fail(outbox: Outbox, generation: int, reason: Reason) -> None:
        outbox.put(engine_pb2.Event(id=generation, finish="error", error=reason.code), urgent=True)

    async def _prompt(self, command: engine_pb2.Generate) -> list[int]:
        """The prompt's tokens. Raises OVERLOADED, PROMPT_TOO_LONG or REQUEST_INVALID."""
        if self.active > self._limit:
            raise MeshError(Reason.OVERLOADED, f"at most {self._limit} generations at once")
        text = self._conversation(command) if command.messages else command.prompt
        # A resumed answer follows the prompt exactly as it did when it was generated.
        text += command.resume_text
        # Templates write their special tokens themselves.
        encode = self._tokenizer.encode
        special = not command.messages
        if len(text) <= _INLINE_TEXT:
            ids = encode(text, add_special_tokens=special)
        else:
            ids = await asyncio.to_thread(encode, text, add_special_tokens=special)
        if not ids:
            raise MeshError(Reason.REQUEST_INVALID, "expected a prompt of at least one token")
        if len(ids) >= self._spec.context_tokens:
            raise MeshError(Reason.PROMPT_TOO_LONG, "the prompt and one token of output must fit")
        return list(ids)

    def _conversation(self, command: engine_pb2.Generate) -> str:
        messages = [{"role": message.role, "content": message.content} for message in command.messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )
        except Exception as error:  # templates raise what they like, for orders of roles they dislike
            raise MeshError(
                Reason.REQUEST_INVALID, "expected a conversation that the model's chat template accepts"
            ) from error

    def _parameters(self, command: engine_pb2.Generate, prompt_tokens: int) -> SamplingParams:
        return SamplingParams(
            max_tokens=max(1, min(command.max_tokens, self._spec.context_tokens - prompt_tokens)),
            temperature=command.temperature,
            top_p=command.top_p,
            seed=command.seed & _SEED_MASK if command.HasField("seed") else None,
            stop=list(command.stop),
            ignore_eos=command.ignore_eos,
            output_kind=RequestOutputKind.DELTA,
        )
