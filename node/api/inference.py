"""Inference: Chat, Complete, Embed and ListModels.

What a request must pass is node/reception.py's business; here it is served. One message per piece that
the engine yields, no task and no log line per token. Leaving the generator, for whatever reason, stops
the generation (a caller that goes away frees the engine).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.identity.source import SvidSource
from mesh.rpc.callers import caller_of
from mesh.rpc.placement_service import View
from mesh.telemetry.base import SILENT, EngineObserver
from node.api.requests import Generation, read_chat, read_complete, read_embed
from node.engine.base import Engine, Piece
from node.reception import Admitted, Reception
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Inference"

_Context = grpc.aio.ServicerContext[Any, Any]
_Response = type[inference_pb2.ChatResponse] | type[inference_pb2.CompleteResponse]


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """Serves one engine. `clock` is Unix seconds, `monotonic` the clock of stalled writes. The `observer` is
    told of each generation, when its first piece comes and when it ends."""

    def __init__(
        self,
        reception: Reception,
        engine: Engine,
        view: View,
        source: SvidSource,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        observer: EngineObserver = SILENT,
    ) -> None:
        self._observer = observer
        self._reception = reception
        self._engine = engine
        self._view = view
        self._source = source
        self._clock = clock
        self._monotonic = monotonic
        self._node = str(reception.node)

    async def Chat(self, request: inference_pb2.ChatRequest, context: _Context) -> None:
        """Continues a conversation; see inference.proto."""
        await self._reception.receive(
            request,
            context,
            read_chat,
            lambda generation, admitted: self._stream(
                context, inference_pb2.ChatResponse, generation, admitted
            ),
        )

    async def Complete(self, request: inference_pb2.CompleteRequest, context: _Context) -> None:
        """Continues a text; see inference.proto."""
        await self._reception.receive(
            request,
            context,
            read_complete,
            lambda generation, admitted: self._stream(
                context, inference_pb2.CompleteResponse, generation, admitted
            ),
        )

    async def Embed(
        self, request: inference_pb2.EmbedRequest, context: _Context
    ) -> inference_pb2.EmbedResponse:
        """Turns texts into embeddings; see inference.proto."""
        return await self._reception.receive(request, context, read_embed, self._embed)

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, context: _Context
    ) -> inference_pb2.ListModelsResponse:
        """Which models this node serves; for any identity of an accepted trust domain."""
        caller_of(context, self._source.bundles, self._view.snapshot, self._clock())
        return inference_pb2.ListModelsResponse(
            models=[codec.model_to_pb(model) for model in self._engine.models]
        )

    async def _embed(self, texts: tuple[str, ...], admitted: Admitted) -> inference_pb2.EmbedResponse:
        vectors = await self._engine.embed(admitted.model.name, texts)
        return inference_pb2.EmbedResponse(
            embeddings=[inference_pb2.Embedding(values=vector) for vector in vectors],
            model_digest=admitted.model.digest,
            node=self._node,
        )

    async def _stream(
        self, context: _Context, response: _Response, generation: Generation, admitted: Admitted
    ) -> None:
        call, clock, write = admitted.call, self._monotonic, context.write
        tokens, begun = 0, False
        last: Piece | None = None
        call.writing_since = clock()
        await write(
            response(
                started=inference_pb2.Started(
                    node=self._node, decision_id=admitted.decision_id, model_digest=admitted.model.digest
                )
            )
        )
        call.writing_since = 0.0
        pieces = cast(
            "AsyncGenerator[Piece, None]",
            self._engine.generate(admitted.model.name, generation.prompt, generation.sampling),
        )
        asked = clock()
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not begun:
                        begun = True
                        self._observer.first_piece(clock() - asked)
                    tokens += piece.tokens
                    if piece.tokens or piece.text:
                        call.writing_since = clock()
                        await write(response(delta=inference_pb2.Delta(text=piece.text, tokens=piece.tokens)))
                        call.writing_since = 0.0
                    if piece.finish is not None:
                        last = piece
                        break
        finally:
            self._observer.generated(last.prompt_tokens if last is not None else 0, tokens)
        if last is None or last.finish is None:
            raise MeshError(Reason.ENGINE_FAILED, "the engine ended without saying so")
        call.writing_since = clock()
        await write(
            response(
                finished=inference_pb2.Finished(
                    reason=last.finish.value, prompt_tokens=last.prompt_tokens, completion_tokens=tokens
                )
            )
        )
        call.writing_since = 0.0
