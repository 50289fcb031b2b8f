"""The way out of a span: whatever is not on the list of span_attributes.py stays here (I1).

`guarded` is a pure function from what the SDK recorded to what is sent: a new span with the ids, times and
kind of the old one, and of everything that has words in it only what is on the list. A span with a name
that is not on the list is not sent at all. So a span that somebody made past this package (a library that
instruments itself, a line added in haste) cannot carry a payload out.

A batch of at most 512 spans is sent every two seconds or when it is full; 2,048 wait at most, and the
oldest are dropped first. Sending happens on a thread of OpenTelemetry's SDK, so that a collector that is
slow or away costs a request nothing; it is warned of once, and again only after it has answered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.settings import TraceSettings
from mesh.telemetry import span_attributes as names
from mesh.telemetry.otel import SCOPE, OtelTracing
from mesh.telemetry.span_attributes import allowed, allowed_event, allowed_name

QUEUE = 2048
BATCH = 512
EVERY_S = 2.0
# For one batch, tries included.
SEND_S = 5.0

# They say of a collector that is away, every time, what GuardedExporter says once.
_NOISY = ("opentelemetry.exporter.otlp.proto.grpc", "opentelemetry.sdk._shared_internal")
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
        instrumentation_scope=None if scope is None else InstrumentationScope(SCOPE),
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


class _Batches:
    """Batches on their way through an exporter."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=EVERY_S * 1000,
        )

    def finish(self) -> None:
        """See Sending."""
        self.processor.shutdown()  # type: ignore[no-untyped-call]

    def give_up(self) -> None:
        """See Sending."""
        self._exporter.shutdown()


def collector_tracing(settings: TraceSettings, identity: SpiffeId, service: str, version: str) -> OtelTracing:
    """To the collector that the settings name; see tracing.open_tracing."""
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    options: Any = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    sender = OTLPSpanExporter(
        endpoint=settings.endpoint,
        insecure=settings.ca is None,
        credentials=_credentials(settings),
        timeout=SEND_S,
        channel_options=options,
    )
    sending = _Batches(GuardedExporter(sender, settings.endpoint or ""))
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # what is not recorded never comes here
        # Not Resource.create: it would add whatever the environment says.
        resource=Resource(_resource(identity, service, version)),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=32, max_events=16, max_links=0, max_attribute_length=256),
    )
    provider.add_span_processor(sending.processor)
    return OtelTracing(provider.get_tracer(SCOPE, version or None), settings.sample_ratio, sending)


def _resource(identity: SpiffeId, service: str, version: str) -> dict[str, Any]:
    return allowed(
        {
            names.SERVICE_NAME: service,
            names.SERVICE_NAMESPACE: identity.trust_domain,
            names.SERVICE_INSTANCE: str(identity),
            names.SERVICE_VERSION: version,
        }
    )


def _credentials(settings: TraceSettings) -> grpc.ChannelCredentials | None:
    if settings.ca is None:
        return None
    try:
        return grpc.ssl_channel_credentials(settings.ca.read_bytes())
    except OSError as error:
        raise MeshError(
            Reason.CONFIG_INVALID, f"traces.ca: {settings.ca}: {error.strerror or 'cannot be read'}"
        ) from None
