"""Rate, errors and duration of calls: an interceptor around every method that is served, one around channels.

It tells an observer (mesh/telemetry/base.py) that a call began, how it ended and after how long, and nothing
of what was said. It stands outside the boundary, so that the code that it tells is the one that the caller
gets. A caller that left is CANCELLED, or DEADLINE_EXCEEDED where its time was up. Names of methods are those
that are served: what a caller invents is counted as one.

Per call it costs one more coroutine, per message of a stream nothing where the servicer writes by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from mesh.rpc.boundary import KINDS
from mesh.rpc.wrapping import WrappingInterceptor
from mesh.telemetry.base import CallObserver, MethodObserver

_Context = grpc.aio.ServicerContext[Any, Any]
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class ObservedCalls(WrappingInterceptor):
    """Wraps every handler once, outside the boundary. `monotonic`: seconds."""

    def __init__(self, observer: CallObserver, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._observer = observer
        self._monotonic = monotonic

    def _no_such_method(self) -> None:
        self._observer.no_such_method()

    def _wrap(self, method: str, handler: Any) -> Any:
        make, inner = KINDS[handler.request_streaming, handler.response_streaming](handler)
        around = self._around_generator if inspect.isasyncgenfunction(inner) else self._around_coroutine
        return make(
            around(self._observer.serving(method), inner),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _around_coroutine(
        self, told: MethodObserver, inner: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Any]:
        monotonic = self._monotonic

        async def observed(request: Any, context: _Context) -> Any:
            began, left = monotonic(), False
            told.began()
            try:
                return await inner(request, context)
            except asyncio.CancelledError:
                left = True
                raise
            finally:
                told.ended(_code_of(context, left), monotonic() - began)

        return observed

    def _around_generator(
        self, told: MethodObserver, inner: Callable[..., AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        monotonic = self._monotonic

        async def observed(request: Any, context: _Context) -> AsyncIterator[Any]:
            began, left = monotonic(), False
            told.began()
            try:
                async for response in inner(request, context):
                    yield response
            except (asyncio.CancelledError, GeneratorExit):
                left = True
                raise
            finally:
                told.ended(_code_of(context, left), monotonic() - began)

        return observed


def _code_of(context: _Context, left: bool) -> str:
    """How the call ended, as the caller sees it; `left`: the caller went away, or its time was up."""
    if left:
        remaining = context.time_remaining()
        return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _NAMES.get(code or 0, "UNKNOWN")


class ObservedChannel:
    """A channel that tells an observer of every call on it; all else is the channel's own.

    gRPC's own client interceptors would put a task and a queue into every call.
    """

    def __init__(
        self, channel: grpc.aio.Channel, observer: CallObserver, monotonic: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._observer = observer
        self._monotonic = monotonic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """As of grpc.aio.Channel."""
        return self._observed(method, self._channel.unary_unary(method, *arguments, **options))

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """As of grpc.aio.Channel."""
        return self._observed(method, self._channel.unary_stream(method, *arguments, **options))

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """As of grpc.aio.Channel."""
        return self._observed(method, self._channel.stream_unary(method, *arguments, **options))

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """As of grpc.aio.Channel."""
        return self._observed(method, self._channel.stream_stream(method, *arguments, **options))

    def _observed(self, method: str, start: Callable[..., Any]) -> Callable[..., Any]:
        told, monotonic = self._observer.calling(method), self._monotonic

        def call(*arguments: Any, **options: Any) -> Any:
            began = monotonic()
            told.began()
            made = start(*arguments, **options)
            made.add_done_callback(lambda done: told.ended(_code_of_call(done), monotonic() - began))
            return made

        return call


def _code_of_call(call: Any) -> str:
    """The code of a call that is done. It is asked for by a coroutine, which then has nothing to wait for."""
    asking = call.code()
    try:
        asking.send(None)
    except StopIteration as answer:
        return str(answer.value.name)
    asking.close()
    return "UNKNOWN"
