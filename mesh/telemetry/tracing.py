"""Traces of one process: whether a request is traced, and where its spans go.

A node exports its own spans to its own collector and to nobody else. What it shares with others is what the
W3C `traceparent` header holds: the id of the trace, the id of the span that calls, and whether that is
recorded.

- Only `traceparent` is read and sent. `tracestate` and `baggage` are neither: both are free text that every
  hop hands on, and would carry a tenant's name or a prompt over a border without any policy being asked
  (I1).
- A caller of the own authority is taken at its word about recording. Anybody else's flag is not: it would
  let a foreign caller decide what this node spends on spans. For those, as for requests without a trace,
  the node draws by its own `sample_ratio`, and not by the trace id, which the caller chose.
- A request that is not recorded still has a trace id, so that the log lines of several nodes can be put
  together.

OpenTelemetry is imported when traces are turned on, not before (`pip install sovereign-mesh[traces]`).
"""

from __future__ import annotations

import sys
from typing import Protocol

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.settings import TraceSettings
from mesh.telemetry.spans import NO_SPAN, Kind, Span

TRACEPARENT = "traceparent"
# Version 00 has exactly so many characters. Later versions may have more; what is more is not ours to read.
TRACEPARENT_CHARS = 55
FLUSH_S = 2.0


class Tracing(Protocol):
    """Makes the first span of a request in this process."""

    @property
    def on(self) -> bool:
        """Whether any span is made at all."""
        ...

    def serve(self, method: str, traceparent: str | None, *, own: bool) -> Span:
        """Of a call that a server takes. `own`: the caller is of the own authority."""
        ...

    def begin(self, name: str, kind: Kind = Kind.CLIENT) -> Span:
        """Of what this process begins, below the program's own span if it has one."""
        ...

    async def aclose(self, within_s: float = FLUSH_S) -> None:
        """Sends what is waiting, for so many seconds at most."""
        ...


class NoTracing:
    """Traces are off."""

    on = False

    def serve(self, method: str, traceparent: str | None, *, own: bool) -> Span:
        """See Tracing."""
        return NO_SPAN

    def begin(self, name: str, kind: Kind = Kind.CLIENT) -> Span:
        """See Tracing."""
        return NO_SPAN

    async def aclose(self, within_s: float = FLUSH_S) -> None:
        """See Tracing."""


NO_TRACING: Tracing = NoTracing()


def records(asked: bool | None, *, own: bool, ratio: float, draw: float) -> bool:
    """Whether a request is recorded. `asked` is the caller's flag, None without a trace; `draw` is in [0,
    1)."""
    if asked is not None and own:
        return asked
    return draw < ratio


def open_tracing(settings: TraceSettings, identity: SpiffeId, service: str, version: str) -> Tracing:
    """What the settings say. CONFIG_INVALID if OpenTelemetry is not installed, or the CA cannot be read.

    `service` is the program's name; `identity` is left out of what is exported unless it is a machine's.
    """
    if settings.endpoint is None:
        return NO_TRACING
    try:
        from mesh.telemetry.span_export import collector_tracing
    except ImportError:
        raise MeshError(
            Reason.CONFIG_INVALID, "traces.endpoint: needs OpenTelemetry: pip install sovereign-mesh[traces]"
        ) from None
    return collector_tracing(settings, identity, service, version)


def program_tracing() -> Tracing:
    """Of a program that uses the SDK: by the tracer provider that it has set up, if it has.

    A program that has not imported OpenTelemetry has set up none, and does not import it through here either.
    """
    if "opentelemetry.trace" not in sys.modules:
        return NO_TRACING
    from mesh.telemetry.otel import provider_tracing

    return provider_tracing()
