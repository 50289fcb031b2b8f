"""The boundary of every servicer: what leaves it is a MeshError's status or nothing that tells anything.

gRPC's own handling would send an exception's text to the caller and write it to the log, and texts may
quote a payload (I1). Here an unexpected exception becomes INTERNAL with an incident number, and the log
gets the number, the exception's type and its frames. A message that does not parse becomes
REQUEST_INVALID, in a stream of requests as well, where one that is too large becomes REQUEST_TOO_LARGE.
Handlers themselves just raise MeshError. Large answers that nobody reads are counted (unread.py).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from mesh.core.errors import MeshError, Reason
from mesh.rpc.status import abort
from mesh.rpc.unread import COUNTED_FROM_BYTES, UnreadAnswers
from mesh.rpc.wrapping import WrappingInterceptor
from mesh.telemetry.logs import describe

_LOG = logging.getLogger(__name__)
_MALFORMED = object()

_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorBoundary(WrappingInterceptor):
    """Wraps every handler once. `new_id` makes incident numbers; `refused` is told of every call that ends
    with an error, by its method.

    `max_message_bytes` bounds each message of a stream of requests: a servicer that takes one message
    sees its size before it does anything, one that takes a stream should not have to remember to.
    """

    def __init__(
        self,
        new_id: Callable[[], str],
        max_message_bytes: int = 1024 * 1024,
        refused: Callable[[str, Reason], None] = lambda method, reason: None,
    ) -> None:
        super().__init__()
        self._new_id = new_id
        self._refused = refused
        self._max_message_bytes = max_message_bytes
        self._unread = UnreadAnswers()

    def _wrap(self, method: str, handler: Any) -> Any:
        make, inner = KINDS[handler.request_streaming, handler.response_streaming](handler)
        if inspect.isasyncgenfunction(inner):
            behaviour: Any = self._around_generator(method, inner)
        else:
            behaviour = self._around_coroutine(method, inner)
        parse = self._strict if handler.request_streaming else _tolerant
        return make(
            behaviour,
            request_deserializer=parse(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _strict(self, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        """For a stream of requests. What this raises, gRPC raises where the handler reads its next one."""
        limit = self._max_message_bytes

        def parse(data: bytes) -> Any:
            if len(data) > limit:
                raise MeshError(Reason.REQUEST_TOO_LARGE, f"a message of a stream has at most {limit} bytes")
            try:
                return data if deserialize is None else deserialize(data)
            except DecodeError:
                raise _not_the_message() from None

        return parse

    def _around_coroutine(self, method: str, inner: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def guarded(request: Any, context: _Context) -> Any:
            try:
                if self._unread.total:
                    self._unread.require_room(_caller_of(context))
                answer = await inner(_well_formed(request), context)
                self._count(answer, context)
                return answer
            except grpc.aio.InternalError:  # the peer went away in the middle of a message
                raise asyncio.CancelledError from None
            except (grpc.aio.BaseError, asyncio.CancelledError):
                raise
            except Exception as error:
                await abort(context, self._public(method, error))

        return guarded

    def _around_generator(
        self, method: str, inner: Callable[..., AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
            try:
                async for response in inner(_well_formed(request), context):
                    yield response
            except grpc.aio.InternalError:  # the peer went away in the middle of a message
                raise asyncio.CancelledError from None
            except (grpc.aio.BaseError, asyncio.CancelledError):
                raise
            except Exception as error:
                await abort(context, self._public(method, error))

        return guarded

    def _count(self, answer: Any, context: _Context) -> None:
        """Remembers a large answer until the call is over, which is when it was taken."""
        size = answer.ByteSize() if isinstance(answer, Message) else 0
        task = asyncio.current_task()
        if size < COUNTED_FROM_BYTES or task is None:
            return
        caller = _caller_of(context)
        self._unread.add(caller, size)
        task.add_done_callback(lambda _: self._unread.remove(caller, size))

    def _public(self, method: str, error: Exception) -> MeshError:
        if isinstance(error, MeshError):
            self._refused(method, error.reason)
            return error
        self._refused(method, Reason.INTERNAL)
        incident = self._new_id()
        _LOG.error("incident %s in %s: %s", incident, method, describe(error))
        message = f"an error inside the server; its log has incident {incident}"
        return MeshError(Reason.INTERNAL, message, {"incident": incident})


def _caller_of(context: _Context) -> str:
    """The SPIFFE id that the handshake proved, for keeping count; "" where there was no certificate."""
    (found,) = tuple(context.auth_context().get("peer_spiffe_id", ()))[:1] or (b"",)
    return bytes(found).decode("ascii", "replace")


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return parse


def _well_formed(request: Any) -> Any:
    if request is _MALFORMED:
        raise _not_the_message()
    return request


def _not_the_message() -> MeshError:
    return MeshError(Reason.REQUEST_INVALID, "the request is not the message that this method takes")


# By (stream of requests, stream of answers): what makes the handler, and the behaviour within.
KINDS: Mapping[tuple[bool, bool], Callable[[Any], tuple[Callable[..., Any], Callable[..., Any]]]] = {
    (False, False): lambda handler: (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
    (False, True): lambda handler: (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
    (True, False): lambda handler: (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
    (True, True): lambda handler: (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
}
