"""Spans that are recorded, by OpenTelemetry's API.

A program that uses the SDK of the mesh may have this API and a tracer provider without OTLP's exporter;
what sends to a collector is in span_export.py. No other module imports OpenTelemetry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mesh.telemetry import span_attributes as names
from mesh.telemetry.span_attributes import Attributes, EventName, allowed, allowed_event, failure_of
from mesh.telemetry.spans import Kind, Metadata, NoSpan, Span, adopt, current, restore
from mesh.telemetry.tracing import FLUSH_S, NO_TRACING, TRACEPARENT, TRACEPARENT_CHARS, Tracing, records

SCOPE = "sovereign.mesh"

_KINDS = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
}
_LOG = logging.getLogger("mesh.telemetry.tracing")
_READER = TraceContextTextMapPropagator()


Check = Callable[[Attributes | None], Mapping[str, Any]]


def _unchecked(attributes: Attributes | None) -> Mapping[str, Any]:
    return attributes or {}


class OtelSpan:
    """A span of a tracer. `check` is what attributes pass before they are kept."""

    __slots__ = ("_check", "_context", "_ended", "_span", "_token", "_tracer")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, check: Check) -> None:
        self._tracer = tracer
        self._check = check
        self._span = span
        self._context = span.get_span_context()
        self._ended = not span.is_recording()
        self._token: Any = None

    @property
    def trace_id(self) -> str:
        """See Span."""
        return trace.format_trace_id(self._context.trace_id)

    @property
    def span_id(self) -> str:
        """See Span."""
        return trace.format_span_id(self._context.span_id)

    def child(self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
        """See Span."""
        parent = trace.set_span_in_context(self._span)
        made = self._tracer.start_span(name, parent, _KINDS[kind], self._check(attributes))
        return OtelSpan(self._tracer, made, self._check)

    def set(self, attributes: Attributes) -> None:
        """See Span."""
        if not self._ended:
            self._span.set_attributes(self._check(attributes))

    def event(self, name: str) -> None:
        """See Span."""
        if not self._ended and allowed_event(name):
            self._span.add_event(name)

    def fail(self, error: BaseException) -> None:
        """See Span."""
        if self._ended:
            return
        facts = failure_of(error)
        self._span.set_attributes(
            {names.ERROR_TYPE: str(facts.get(names.REASON, facts[names.EXCEPTION_TYPE]))}
        )
        self._span.set_status(trace.StatusCode.ERROR)
        self._span.add_event(EventName.EXCEPTION, facts)

    def end(self) -> None:
        """See Span."""
        if not self._ended:
            self._ended = True
            self._span.end()

    def metadata(self) -> Metadata | None:
        """See Span."""
        flags = int(self._context.trace_flags) & trace.TraceFlags.SAMPLED
        return ((TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-{flags:02x}"),)

    def __enter__(self) -> Self:
        self._token = adopt(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        restore(self._token)
        if error is not None:
            self.fail(error)
        self.end()


class UnrecordedSpan(NoSpan):
    """Nothing is recorded; what is called on the way still learns of the trace.

    Most requests have this one, so it makes nothing before it is asked: ids when they are needed, and while
    it is under way no object for a child.
    """

    __slots__ = ("_context", "_step", "_token")

    def __init__(self, caller: trace.SpanContext | None) -> None:
        self._context = caller
        self._step = _StepOfUnrecorded(self)
        self._token: Any = None

    def _known(self) -> trace.SpanContext:
        if self._context is None:
            self._context = _made_up()
        return self._context

    @property
    def trace_id(self) -> str:
        """See Span."""
        return trace.format_trace_id(self._known().trace_id)

    @property
    def span_id(self) -> str:
        """See Span."""
        return trace.format_span_id(self._known().span_id)

    def child(self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
        """See Span."""
        if current() is self:
            return self._step
        return UnrecordedSpan(self._known())

    def metadata(self) -> Metadata | None:
        """See Span."""
        return ((TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-00"),)

    def __enter__(self) -> Self:
        self._token = adopt(self)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._token)


class _StepOfUnrecorded(NoSpan):
    """What the children of an unrecorded span are while it is under way: nothing to enter, nothing to end."""

    __slots__ = ("_whole",)

    def __init__(self, whole: UnrecordedSpan) -> None:
        self._whole = whole

    @property
    def trace_id(self) -> str:
        """See Span."""
        return self._whole.trace_id

    @property
    def span_id(self) -> str:
        """See Span."""
        return self._whole.span_id

    def metadata(self) -> Metadata | None:
        """See Span."""
        return self._whole.metadata()


def read_traceparent(text: str | None) -> trace.SpanContext | None:
    """Who calls, in which trace; None for anything that is not a well-formed `traceparent`."""
    if text is None or len(text) != TRACEPARENT_CHARS:
        return None
    found = trace.get_current_span(_READER.extract({TRACEPARENT: text}, Context())).get_span_context()
    return found if found.is_valid else None


class Sending(Protocol):
    """What takes ended spans away."""

    def finish(self) -> None:
        """Sends what is waiting, however long that takes; called on a thread of its own."""
        ...

    def give_up(self) -> None:
        """Ends that."""
        ...


class OtelTracing:
    """By a tracer. `sending` is closed with it; without one the tracer is the program's own.

    Attributes are held against the list when they are set. Where `sending` does that anyway, off the path of
    the request (mesh/telemetry/span_export.py), not twice.
    """

    on = True

    def __init__(
        self,
        tracer: trace.Tracer,
        ratio: float = 1.0,
        sending: Sending | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._tracer = tracer
        self._ratio = ratio
        self._sending = sending
        self._check: Check = allowed if sending is None else _unchecked
        self._chance = chance

    def serve(self, method: str, traceparent: str | None, *, own: bool) -> Span:
        """See Tracing."""
        caller = read_traceparent(traceparent)
        asked = None if caller is None else caller.trace_flags.sampled
        recorded = records(asked, own=own, ratio=self._ratio, draw=self._chance())
        if not recorded:
            return UnrecordedSpan(caller)
        parent = Context()  # not the process's own: nothing is under way when a call comes in
        if caller is not None:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(_recorded(caller)), parent)
        attributes = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method}
        span = self._tracer.start_span(method, parent, trace.SpanKind.SERVER, attributes)
        return OtelSpan(self._tracer, span, self._check)

    def begin(self, name: str, kind: Kind = Kind.CLIENT) -> Span:
        """See Tracing."""
        below_another = trace.get_current_span().get_span_context().is_valid
        if not below_another and not records(None, own=True, ratio=self._ratio, draw=self._chance()):
            return UnrecordedSpan(None)
        return OtelSpan(self._tracer, self._tracer.start_span(name, None, _KINDS[kind]), self._check)

    async def aclose(self, within_s: float = FLUSH_S) -> None:
        """See Tracing."""
        sending, self._sending = self._sending, None
        if sending is None:
            return
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            sending.finish()
            with contextlib.suppress(RuntimeError):  # the loop did not wait, and is closed
                loop.call_soon_threadsafe(closed.set)

        # No thread of the loop's own: it would be waited for at the end, however long it takes.
        threading.Thread(target=close, name="traces-close", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await closed.wait()
        except TimeoutError:
            _LOG.info("spans that were waiting are dropped")
            sending.give_up()


def _recorded(caller: trace.SpanContext) -> trace.SpanContext:
    """The caller's span, with this process's own word on recording, and without a tracestate."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=flags)


def _made_up() -> trace.SpanContext:
    # Zero is no id. These are no secrets: whoever is called gets to see them.
    trace_id, span_id = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return trace.SpanContext(trace_id, span_id, is_remote=False)


def provider_tracing() -> Tracing:
    """By the program's own provider; NO_TRACING if it has set up none."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return NO_TRACING
    return OtelTracing(provider.get_tracer(SCOPE))
