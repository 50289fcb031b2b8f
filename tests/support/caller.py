"""A caller of the mesh, seen as near to the wire as possible, for tests: right and wrong requests alike.

Part of tests/support/mesh.py, which makes callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from mesh import codec
from mesh.core.errors import MeshError
from mesh.core.permits import PERMIT_TTL_S, Permit
from mesh.core.records import RecordType
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.identity.source import SvidSource
from mesh.identity.tls import dial
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    placement_pb2,
    placement_pb2_grpc,
)
from tests.support.waiting import DEADLINE_S

if TYPE_CHECKING:
    from tests.support.mesh import Mesh, Node


def context(data_classes: Iterable[str], purpose: str = "care/triage", **more: Any) -> RequestContext:
    """A request context; `more` as RequestContext.of takes it."""
    return RequestContext.of(data_classes, purpose, **more)


@dataclass
class Caller:
    """A client, seen as near to the wire as possible. `spoken` collects what streams said."""

    mesh: Mesh
    source: SvidSource
    _channels: dict[tuple[str, int], grpc.aio.Channel] = field(default_factory=dict)

    @property
    def id(self) -> SpiffeId:
        return self.source.id

    def channel(self, node: Node) -> grpc.aio.Channel:
        key = (node.endpoint, self.source.version)
        if key not in self._channels:
            name = f"{node.id.name}.node.{node.id.trust_domain}"
            self._channels[key] = dial(self.source, node.endpoint, node.id.trust_domain, name)
            self.mesh.on_close(self._channels[key].close)
        return self._channels[key]

    def inference(self, node: Node) -> Any:
        return inference_pb2_grpc.InferenceStub(self.channel(node))  # type: ignore[no-untyped-call]

    def permit(
        self,
        node: Node | SpiffeId,
        asked: RequestContext,
        *,
        by: SvidSource | None = None,
        caller: SpiffeId | None = None,
        action: Action = Action.INFER,
        model: str = "scripted",
        issued_at: float | None = None,
        ttl_s: float = PERMIT_TTL_S,
    ) -> bytes:
        """A permit as a placer would sign it, right or wrong as the test wants; an envelope's bytes.

        Signed by the caller's first home node unless `by` says otherwise.
        """
        target = node if isinstance(node, SpiffeId) else node.id
        signer = by or next(iter(self.mesh[self.id.trust_domain].nodes.values())).runtime.parts.source
        now = self.mesh.clock() if issued_at is None else issued_at
        permit = Permit(self.mesh.new_id(), caller or self.id, target, action, asked.digest, model)
        return signer.signer.sign(
            RecordType.PERMIT, self.mesh.new_id(), 1, now, now + ttl_s, codec.permit_to_payload(permit)
        )

    async def place(
        self,
        asked: RequestContext,
        *,
        at: Node | None = None,
        action: Action = Action.INFER,
        model: str = "scripted",
        excluded: Iterable[SpiffeId] = (),
        explain: bool = False,
    ) -> placement_pb2.PlaceResponse:
        """Asks a node of its own authority; raises MeshError."""
        node = at or next(iter(self.mesh[self.id.trust_domain].nodes.values()))
        stub: Any = placement_pb2_grpc.PlacementStub(self.channel(node))  # type: ignore[no-untyped-call]
        request = placement_pb2.PlaceRequest(
            context=codec.context_to_pb(asked),
            action=codec.action_to_pb(action),
            model=model,
            excluded_nodes=[str(each) for each in excluded],
            explain=explain,
        )
        try:
            return await stub.Place(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    def chat_request(
        self,
        asked: RequestContext,
        permit: bytes | None,
        prompt: str = "hello",
        *,
        max_tokens: int = 8,
        model: str = "scripted",
        **sampling: Any,
    ) -> inference_pb2.ChatRequest:
        request = inference_pb2.ChatRequest(
            admission=inference_pb2.Admission(context=codec.context_to_pb(asked)),
            model=model,
            messages=[inference_pb2.ChatMessage(role="user", content=prompt)],
            sampling=inference_pb2.Sampling(max_tokens=max_tokens, **sampling),
        )
        if permit is not None:
            request.admission.permit.CopyFrom(codec.envelope_from_bytes(permit))
        return request

    async def send(self, node: Node, request: inference_pb2.ChatRequest, **options: Any) -> list[Any]:
        """Sends a Chat request and returns every event; raises MeshError."""
        events = []
        try:
            async for event in self.inference(node).Chat(request, timeout=DEADLINE_S, **options):
                events.append(event)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, began=bool(events)) from None
        return events

    async def chat(
        self,
        node: Node,
        asked: RequestContext,
        prompt: str = "hello",
        *,
        permit: bytes | None = None,
        **options: Any,
    ) -> str:
        """Places by hand (a right permit, unless one is given), sends, and returns the text."""
        request = self.chat_request(asked, permit or self.permit(node, asked), prompt, **options)
        return "".join(event.delta.text for event in await self.send(node, request))

    def stream(
        self,
        node: Node,
        asked: RequestContext,
        prompt: str = "hello",
        *,
        permit: bytes | None = None,
        max_tokens: int = 8192,
        **options: Any,
    ) -> Stream:
        """Begins a long stream."""
        request = self.chat_request(
            asked,
            permit or self.permit(node, asked),
            prompt,
            max_tokens=max_tokens,
            ignore_eos=True,
            **options,
        )
        return Stream(self.inference(node).Chat(request))


class Stream:
    """A Chat stream, read one event at a time."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self) -> Any:
        """The next event, or None at the end; raises MeshError."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                event = await self.call.read()
                if event is not grpc.aio.EOF:
                    return event
                if await self.call.code() is grpc.StatusCode.OK:
                    return None
                raise grpc.aio.AioRpcError(
                    await self.call.code(),
                    await self.call.initial_metadata(),
                    await self.call.trailing_metadata(),
                    await self.call.details(),
                )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, began=True) from None

    async def until_token(self) -> Any:
        """The first event with text."""
        while (event := await self.next()) is not None:
            if event.WhichOneof("event") == "delta":
                return event
        return None

    async def ends_with(self) -> MeshError:
        """Reads on until it fails, and how."""
        try:
            while await self.next() is not None:
                pass
        except MeshError as error:
            return error
        raise AssertionError("the stream came to its end")

    def cancel(self) -> None:
        self.call.cancel()
