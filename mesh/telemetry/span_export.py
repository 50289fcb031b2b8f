"""The way out of a span: whatever is not on the list of span_attributes.py stays here (I1).

`guarded` is a pure function from what the SDK recorded to what is sent: a new span with the ids, times and
kind of the old one, and of everything that has words in it only what is on the list. A span with a name
that is not on the list is not sent at all. So a span that somebody made past this package (a library that
instruments itself, a line added in haste) cannot carry a payload out.

A collector that does not answer is warned of once, and again only after it has answered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status

from mesh.telemetry.span_attributes import allowed, allowed_event, allowed_name

_LOG = logging.getLogger("mesh.telemetry.tracing")


def guarded(span: ReadableSpan) -> ReadableSpan | None:
    """What may be sent of it; None if nothing may."""
    if not allowed_name(span.name):
        return None
    scope = span.instrumentation_scope
    return ReadableSpan(
        name=span.name,
        context=_ids(span.context),
        parent=_ids(span.parent),
        resource=Resource(allowed(span.resource.attributes)),  # type: ignore[arg-type]
        attributes=allowed(span.attributes),  # type: ignore[arg-type]
        events=[
            Event(event.name, allowed(event.attributes), event.timestamp)  # type: ignore[arg-type]
            for event in span.events
            if allowed_event(event.name)
        ],
        links=(),  # a link is to another trace: nothing here makes one
        kind=span.kind,
        status=Status(span.status.status_code),  # without its description
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=None if scope is None else InstrumentationScope("sovereign.mesh"),
    )


def _ids(context: SpanContext | None) -> SpanContext | None:
    """Without the tracestate, which is free text."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


class GuardedExporter(SpanExporter):
    """Sends through `inner` what `guarded` lets through. `where` is the collector, for the log."""

    def __init__(self, inner: SpanExporter, where: str) -> None:
        self._inner = inner
        self._where = where
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """On the SDK's thread."""
        passed = [each for span in spans if (each := guarded(span)) is not None]
        if not passed:
            return SpanExportResult.SUCCESS
        result = self._inner.export(passed)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            _LOG.warning("no spans are delivered: the collector at %s does not take them", self._where)
        elif self._failing and not failed:
            _LOG.info("the collector at %s takes spans again", self._where)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        """Ends what is under way."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held back here."""
        return True
