"""Records what gateways say and hear outside TLS: every serialized message, status and piece of metadata.

    with tapped(flows.append):
        ...                       # nodes made in here are recorded, on their server side and as askers

It is put around the handlers and channels from outside; the product knows nothing of it. A message is
taken as the bytes that gRPC gets to encrypt, or has just decrypted, on the side that `Flow.node` names.
Every call has an id, so that a judge can find the request that an answer belongs to.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

import mesh.rpc.channels
from mesh.rpc.boundary import ErrorBoundary
from mesh.store.etcd import EtcdStore
from mesh.store.memory import MemoryStore
from node.runtime import NodeRuntime


@dataclass(frozen=True, slots=True)
class Flow:
    """What one gateway sent or got. `node`, `peer`: SPIFFE ids; of a peer that is dialled, the DNS name."""

    node: str
    side: str  # "server", "client" or "board"
    sent: bool
    peer: str
    method: str
    call: int
    kind: str  # "message", "status" or "metadata"
    data: bytes
    epoch: int = 0


Sink = Callable[[Flow], None]
_NODE: ContextVar[str] = ContextVar("node", default="")
_CALL: ContextVar[Any] = ContextVar("call", default=None)
_NUMBERS = itertools.count(1)


class Clockwork:
    """Which version of the rules is in force, as far as the test knows: stamped on every flow."""

    epoch = 0


class _Call:
    def __init__(self, sink: Sink, node: str, side: str, method: str, peer: str = "") -> None:
        self._sink, self._node, self._side, self._method = sink, node, side, method
        self.peer = peer
        self._number = next(_NUMBERS)
        self._early: list[tuple[bool, str, bytes]] = []

    def note(self, sent: bool, kind: str, data: bytes) -> None:
        if not self.peer:
            self._early.append((sent, kind, data))
            return
        self._sink(
            Flow(
                self._node,
                self._side,
                sent,
                self.peer,
                self._method,
                self._number,
                kind,
                bytes(data),
                Clockwork.epoch,
            )
        )

    def known(self, peer: str) -> None:
        """Who is at the other end: a server's first message is read before that is known."""
        self.peer = peer or "nobody"
        early, self._early = self._early, []
        for each in early:
            self.note(*each)


class _Context:
    """A servicer's context that notes what goes by it."""

    def __init__(self, real: Any, call: _Call) -> None:
        self._real, self._call = real, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        self._call.note(True, "status", _joined((code.name, details), *trailing_metadata))
        await self._real.abort(code, details, trailing_metadata)

    async def send_initial_metadata(self, metadata: Any) -> None:
        self._call.note(True, "metadata", _joined(*metadata))
        await self._real.send_initial_metadata(metadata)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._call.note(True, "metadata", _joined(*metadata))
        self._real.set_trailing_metadata(metadata)

    def set_details(self, details: str) -> None:
        self._call.note(True, "status", details.encode())
        self._real.set_details(details)


def _joined(*pairs: Any) -> bytes:
    parts = [part for pair in pairs for part in tuple(pair)]
    return b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)


def _serve(handler: Any, node: str, method: str, sink: Sink) -> Any:
    """The handler, noting what its calls get and send."""

    def call() -> _Call:
        found = _CALL.get()
        if not isinstance(found, _Call):
            found = _Call(sink, node, "server", method)
            _CALL.set(found)
        return found

    def parse(data: bytes) -> Any:
        call().note(False, "message", data)
        return handler.request_deserializer(data) if handler.request_deserializer else data

    def write(message: Any) -> bytes:
        data: bytes = handler.response_serializer(message) if handler.response_serializer else message
        call().note(True, "message", data)
        return data

    def begin(context: Any) -> _Context:
        current = call()
        (found,) = tuple(context.auth_context().get("peer_spiffe_id", ()))[:1] or (b"nobody",)
        current.known(bytes(found).decode("ascii", "replace"))
        current.note(False, "metadata", _joined(*(context.invocation_metadata() or ())))
        return _Context(context, current)

    streams = (handler.request_streaming, handler.response_streaming)
    name = f"{'stream' if streams[0] else 'unary'}_{'stream' if streams[1] else 'unary'}"
    inner = getattr(handler, name)
    if inspect.isasyncgenfunction(inner):

        async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
            async for answer in inner(request, begin(context)):
                yield answer
    else:

        async def behaviour(request: Any, context: Any) -> Any:  # type: ignore[misc]
            return await inner(request, begin(context))

    make = getattr(grpc, f"{name}_rpc_method_handler")
    return make(behaviour, request_deserializer=parse, response_serializer=write)


class _Channel:
    """A channel that notes what goes by it."""

    def __init__(self, real: Any, node: str, peer: str, sink: Sink) -> None:
        self._real, self._node, self._peer, self._sink = real, node, peer, sink

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return found

        def make(method: str, request_serializer: Any, response_deserializer: Any, **options: Any) -> Any:
            def dialled(*arguments: Any, **keywords: Any) -> Any:
                call = _Call(self._sink, self._node, "client", method, self._peer)

                def write(message: Any) -> bytes:
                    data: bytes = request_serializer(message)
                    call.note(True, "message", data)
                    return data

                def parse(data: bytes) -> Any:
                    call.note(False, "message", data)
                    return response_deserializer(data)

                if keywords.get("metadata"):
                    call.note(True, "metadata", _joined(*keywords["metadata"]))
                return found(method, write, parse, **options)(*arguments, **keywords)

            return dialled

        return make


@contextlib.contextmanager
def tapped(sink: Sink) -> Iterator[None]:
    """Every node that is made in here is recorded, and every channel that a pool opens."""
    with contextlib.ExitStack() as undo:

        def put(owner: Any, name: str, value: Any) -> Any:
            before = getattr(owner, name)
            undo.callback(setattr, owner, name, before)
            setattr(owner, name, value(before))
            return before

        def init(before: Any) -> Any:
            def __init__(self: NodeRuntime, parts: Any) -> None:
                token = _NODE.set(str(parts.source.id))
                try:
                    before(self, parts)
                finally:
                    _NODE.reset(token)

            return __init__

        def boundary(before: Any) -> Any:
            def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
                before(self, *arguments, **keywords)
                self.tapped_node = _NODE.get()

            return __init__

        def wrap(before: Any) -> Any:
            def _wrap(self: Any, method: str, handler: Any) -> Any:
                return _serve(before(self, method, handler), self.tapped_node, method, sink)

            return _wrap

        def dial(before: Any) -> Any:
            def dial(source: Any, address: str, trust_domain: str, dns_name: str, *more: Any) -> Any:
                channel = before(source, address, trust_domain, dns_name, *more)
                return _Channel(channel, str(source.id), dns_name, sink)

            return dial

        def store(before: Any) -> Any:
            async def put(self: Any, key: str, value: bytes, **options: Any) -> Any:
                data = key.encode() + b"\0" + value
                sink(Flow("", "board", True, "board", "put", 0, "message", data, Clockwork.epoch))
                return await before(self, key, value, **options)

            return put

        put(NodeRuntime, "__init__", init)
        put(ErrorBoundary, "__init__", boundary)
        put(ErrorBoundary, "_wrap", wrap)
        put(mesh.rpc.channels, "dial", dial)
        put(MemoryStore, "put", store)
        put(EtcdStore, "put", store)
        yield
