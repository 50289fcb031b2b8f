"""Around every call that a server takes: its id, its span, and its line in the log.

The outermost interceptor. It sees which method, who is at the other end as far as the handshake proved, and
how it ended (rpc/status.py notes the refusal); never a message.

One line a call: at level debug for those that went well or whose caller left, at info for refusals and
failures. It names the method, the code, the reason, the time and the caller's trust domain and kind, and no
client: that is a tenant's name, and the evidence has it under the same request id. At most so many lines a
second are written (mesh/telemetry/line_budget.py).

Health and reflection are served without a span: they are asked all the time and tell nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.rpc.boundary import KINDS
from mesh.rpc.wrapping import WrappingInterceptor
from mesh.telemetry import calls, spans
from mesh.telemetry import span_attributes as names
from mesh.telemetry.calls import Call
from mesh.telemetry.line_budget import LineBudget
from mesh.telemetry.spans import NO_SPAN, Span
from mesh.telemetry.tracing import NO_TRACING, TRACEPARENT, Tracing

LINES_PER_SECOND = 20

_LOG = logging.getLogger(__name__)
_OWN_SERVICES = "sovereign.mesh."
# Codes that say that the server failed, and not that it refused (OpenTelemetry's conventions for gRPC).
_SERVER_FAILED = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})

_Context = grpc.aio.ServicerContext[Any, Any]


class CallTelemetry(WrappingInterceptor):
    """Wraps every handler once. `new_id` makes the ids of calls, `home` is the own trust domain,
    `monotonic` is in seconds."""

    def __init__(
        self,
        new_id: Callable[[], str],
        tracing: Tracing = NO_TRACING,
        home: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._new_id = new_id
        self._tracing = tracing
        self._home = home
        self._monotonic = monotonic
        self._lines = {
            logging.INFO: LineBudget(LINES_PER_SECOND),
            logging.DEBUG: LineBudget(LINES_PER_SECOND),
        }

    def _wrap(self, method: str, handler: Any) -> Any:
        method = method.lstrip("/")
        make, inner = KINDS[handler.request_streaming, handler.response_streaming](handler)
        if inspect.isasyncgenfunction(inner):

            async def observed(request: Any, context: _Context) -> AsyncIterator[Any]:
                ended = self._begin(method, context)
                async for response in inner(request, context):
                    yield response
                ended()

        else:

            async def observed(request: Any, context: _Context) -> Any:  # type: ignore[misc]
                ended = self._begin(method, context)
                answer = await inner(request, context)
                ended()
                return answer

        return make(
            observed,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _begin(self, method: str, context: _Context) -> Callable[[], None]:
        """Makes this task's call; what is returned says that its handler came to its end."""
        began = self._monotonic()
        call = Call(method, self._new_id())
        domain, kind = _caller_of(context)
        span = NO_SPAN
        if self._tracing.on and method.startswith(_OWN_SERVICES):
            own = domain != "" and domain == self._home
            span = self._tracing.serve(method, _traceparent(context), own=own)
            span.set({names.REQUEST_ID: call.id, names.CALLER_DOMAIN: domain, names.CALLER_KIND: kind})
        calls.begin(call)
        spans.adopt(span)
        finished = False

        def ended() -> None:
            nonlocal finished
            finished = True

        def over(_: object) -> None:
            failure = call.failure
            if failure is None and not finished:
                failure = MeshError(Reason.CANCELLED, "the caller left")
            self._over(call, span, failure, self._monotonic() - began, f"{kind} of {domain or 'nobody'}")

        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("gRPC runs every call in a task of its own")
        task.add_done_callback(over)
        return ended

    def _over(self, call: Call, span: Span, failure: MeshError | None, took_s: float, caller: str) -> None:
        code = failure.reason.grpc if failure is not None else "OK"
        span.set({names.RPC_STATUS: code})
        if failure is not None:
            if code in _SERVER_FAILED:
                span.fail(failure)
            span.set({names.ERROR_TYPE: failure.reason.code, names.REASON: failure.reason.code})
        span.end()
        left = failure is not None and failure.reason is Reason.CANCELLED
        level = logging.DEBUG if failure is None or left else logging.INFO
        if _LOG.isEnabledFor(level):
            suppressed = self._lines[level].take(self._monotonic())
            if suppressed is not None:
                fields: dict[str, object] = {
                    "code": code,
                    "caller": caller,
                    "took_ms": round(took_s * 1000, 1),
                }
                if failure is not None:
                    fields["reason"] = failure.reason.code
                if suppressed:
                    fields["suppressed"] = suppressed
                _LOG.log(level, "%s: %s", call.method, code, extra={"fields": fields})
        call.over = True


def _caller_of(context: _Context) -> tuple[str, str]:
    """Trust domain and kind, as the handshake proved them; ("", "none") without a certificate."""
    (found,) = tuple(context.auth_context().get("peer_spiffe_id", ()))[:1] or (b"",)
    try:
        caller = SpiffeId.parse(bytes(found).decode("ascii", "replace"))
    except MeshError:
        return "", "none"
    return caller.trust_domain, caller.kind


def _traceparent(context: _Context) -> str | None:
    """The header, if there is exactly one."""
    metadata: Any = context.invocation_metadata()
    found = [value for key, value in metadata or () if key == TRACEPARENT]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None
