"""Spans, as the rest of the code sees them: one is under way, or none is.

    with spans.span(SpanName.GATE) as span:      # a child of the span under way
        ...
        span.set({OUTCOME: "permitted"})
    stub.Search(metadata=spans.outgoing())       # the next node's spans belong to the same trace

Which span is under way is kept per task (a context variable): a server sets it for each call that it takes
(mesh/rpc/call_telemetry.py), and tasks that a call makes have it as well. Where traces are off, or this
request was not sampled, everything here is one null object: nothing is made, measured or kept. No
OpenTelemetry is imported here; mesh/telemetry/otel.py has the spans that are recorded.

Do not hold a span in a `with` around a `yield`: a generator's context is its consumer's, and the span would
be under way there. Such code keeps the span (`child`) and ends it itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar, Token
from enum import Enum
from typing import Any, Protocol, Self

from mesh.telemetry.span_attributes import Attributes

Metadata = tuple[tuple[str, str], ...]


class Kind(Enum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Span(Protocol):
    """One step of a request. As a context manager it is under way inside, and ends with it."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" if there is no trace."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits; "" if there is no trace."""
        ...

    def child(self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
        """A step of this step; `end` it, or use it as a context manager."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Adds attributes; those that are not on the list of span_attributes.py are left out."""
        ...

    def event(self, name: str) -> None:
        """Marks this moment."""
        ...

    def fail(self, error: BaseException) -> None:
        """Says that it failed, by type and reason code."""
        ...

    def end(self) -> None:
        """Once; later calls do nothing."""
        ...

    def metadata(self) -> Metadata | None:
        """What a call to another process carries, so that its spans become children of this one."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None: ...


class NoSpan:
    """Nothing is recorded. Of traces that are off there is one, `NO_SPAN`."""

    __slots__ = ()

    @property
    def trace_id(self) -> str:
        """See Span."""
        return ""

    @property
    def span_id(self) -> str:
        """See Span."""
        return ""

    def child(self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
        """See Span."""
        return self

    def set(self, attributes: Attributes) -> None:
        """See Span."""

    def event(self, name: str) -> None:
        """See Span."""

    def fail(self, error: BaseException) -> None:
        """See Span."""

    def end(self) -> None:
        """See Span."""

    def metadata(self) -> Metadata | None:
        """See Span."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


NO_SPAN: Span = NoSpan()

_UNDER_WAY: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


def current() -> Span:
    """The span under way in this task."""
    return _UNDER_WAY.get()


def span(name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
    """A child of the span under way, to be used as a context manager."""
    return _UNDER_WAY.get().child(name, kind, attributes)


def outgoing() -> Metadata | None:
    """The metadata of a call that is made now."""
    return _UNDER_WAY.get().metadata()


def adopt(span: Span) -> Token[Span]:
    """Makes it the span under way for what remains of this task's context."""
    return _UNDER_WAY.set(span)


def restore(token: Token[Span]) -> None:
    """Takes `adopt` back."""
    _UNDER_WAY.reset(token)


@contextlib.contextmanager
def ending(span: Span) -> Iterator[Span]:
    """Ends it at the end, and says so if that is a failure; does not have it under way. For generators."""
    try:
        yield span
    except Exception as error:
        span.fail(error)
        raise
    finally:
        span.end()


@contextlib.contextmanager
def within(span: Span) -> Iterator[None]:
    """Has it under way inside, and does not end it."""
    token = _UNDER_WAY.set(span)
    try:
        yield
    finally:
        _UNDER_WAY.reset(token)
