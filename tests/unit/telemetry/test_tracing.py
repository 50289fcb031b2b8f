"""Who is traced, what of a caller's header is read, and that nothing past the list leaves (I1)."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.settings import TraceSettings
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.otel import OtelTracing, read_traceparent
from mesh.telemetry.span_attributes import SpanName
from mesh.telemetry.span_export import GuardedExporter, guarded
from mesh.telemetry.spans import NO_SPAN
from mesh.telemetry.tracing import NO_TRACING, open_tracing, program_tracing, records
from tests.support.collector import Collector, collector
from tests.support.waiting import until

SECRET = "photophobia"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNRECORDED = PARENT[:-2] + "00"
NODE = SpiffeId("de.mesh.example", "/node/fra-1")


@pytest.fixture
async def there() -> AsyncIterator[Collector]:
    async with collector() as made:
        yield made


@pytest.mark.parametrize(
    ("asked", "own", "ratio", "draw", "recorded"),
    [
        (True, True, 0.0, 0.9, True),  # the own authority's callers say so themselves
        (False, True, 1.0, 0.0, False),
        (True, False, 0.1, 0.5, False),  # others do not
        (False, False, 0.1, 0.05, True),
        (None, True, 0.1, 0.05, True),
        (None, True, 0.1, 0.1, False),
        (None, False, 0.0, 0.0, False),
        (None, False, 1.0, 0.999, True),
    ],
)
def test_who_is_recorded(asked: bool | None, own: bool, ratio: float, draw: float, recorded: bool):
    assert records(asked, own=own, ratio=ratio, draw=draw) is recorded


def test_a_well_formed_header():
    found = read_traceparent(PARENT)
    assert found is not None
    assert trace.format_trace_id(found.trace_id) == PARENT[3:35]
    assert trace.format_span_id(found.span_id) == PARENT[36:52]
    assert found.trace_flags.sampled
    assert not dict(found.trace_state)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x" * 55,
        PARENT + "-" + SECRET,
        PARENT[:-1],
        PARENT.upper(),
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
        " " + PARENT,
        "00-" + "é" * 32 + PARENT[35:],
    ],
)
def test_any_other_header_is_none(text: str | None):
    assert read_traceparent(text) is None


async def test_a_span_of_a_caller_goes_on_with_its_trace(there: Collector):
    tracing = there.tracing(NODE)
    span = tracing.serve("sovereign.mesh.v1.Inference/Chat", PARENT, own=True)
    ((key, sent),) = span.metadata() or ()
    span.end()
    await there.flushed()
    (seen,) = there.spans
    assert (seen.trace, seen.parent, seen.instance) == (PARENT[3:35], PARENT[36:52], str(NODE))
    assert (key, sent) == ("traceparent", f"00-{seen.trace}-{seen.id}-01")


async def test_what_is_not_recorded_still_hands_its_trace_on(there: Collector):
    tracing = there.tracing(NODE, ratio=0.0)
    for header, own in ((UNRECORDED, True), (PARENT, False)):
        span = tracing.serve("sovereign.mesh.v1.Inference/Chat", header, own=own)
        with span.child("gate") as child:
            child.set({names.CHARGED: 1})
            assert spans.outgoing() == (("traceparent", UNRECORDED),)
        assert spans.current() is NO_SPAN
    new = tracing.serve("sovereign.mesh.v1.Inference/Chat", None, own=True)
    ((_, sent),) = new.metadata() or ()
    assert read_traceparent(sent) is not None
    assert sent.endswith("-00")
    await there.flushed()
    assert there.spans == []


async def test_a_failure_is_a_type_and_a_code(there: Collector):
    tracing = there.tracing(NODE)
    root = tracing.serve("sovereign.mesh.v1.Inference/Chat", None, own=True)
    with pytest.raises(ValueError, match=SECRET), root.child("gate"):
        raise ValueError(SECRET)
    with pytest.raises(MeshError), root.child("placement"):
        raise MeshError(Reason.NOT_PERMITTED, SECRET)
    root.end()
    root.end()
    root.set({names.CHARGED: 1})
    await there.flushed()
    told = {span.name: (span.status, span.events, span.attributes.get("error.type")) for span in there.spans}
    error = trace.StatusCode.ERROR.value
    assert told["gate"] == (error, (("exception", {"exception.type": "ValueError"}),), "ValueError")
    facts = {"exception.type": "MeshError", "sovereign.mesh.reason": "NOT_PERMITTED"}
    assert told["placement"] == (error, (("exception", facts),), "NOT_PERMITTED")
    assert len(there.spans) == 3
    assert all(SECRET.encode() not in data for data in there.received)


def chatty() -> Any:
    """A span as a library that knows nothing of the list might make it, with the secret wherever it fits."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"host.name": SECRET, "service.name": "mesh-node"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    state = TraceState([("vendor", SECRET)])
    caller = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    parent = trace.set_span_in_context(trace.NonRecordingSpan(caller))
    tracer = provider.get_tracer(SECRET, SECRET, SECRET, {"scope": SECRET})
    span = tracer.start_span("chat", parent, links=[Link(caller, {"text": SECRET})])
    span.set_attributes(
        {
            "gen_ai.prompt": SECRET,
            "gen_ai.operation.name": SECRET,
            "gen_ai.response.finish_reasons": [SECRET],
            "gen_ai.usage.input_tokens": 3,
        }
    )
    span.add_event(SECRET)
    span.add_event("gen_ai.first_token", {"text": SECRET})
    span.record_exception(ValueError(SECRET))
    span.set_status(trace.StatusCode.ERROR, SECRET)
    span.end()
    (made,) = kept.get_finished_spans()
    return made


def test_what_a_span_says_beyond_the_list_is_not_sent():
    made = chatty()
    assert SECRET.encode() in encode_spans([made]).SerializeToString()
    sent = guarded(made)
    assert sent is not None
    data = encode_spans([sent]).SerializeToString()
    assert SECRET.encode() not in data
    assert dict(sent.attributes or {}) == {"gen_ai.usage.input_tokens": 3}
    assert [event.name for event in sent.events] == ["gen_ai.first_token", "exception"]
    assert sent.events[1].attributes == {"exception.type": "ValueError"}
    assert (sent.context.trace_id, sent.parent.span_id, sent.start_time) == (1, 2, made.start_time)


def test_a_span_by_another_name_is_not_sent_at_all():
    made = chatty()
    made._name = SECRET
    kept = InMemorySpanExporter()
    assert guarded(made) is None
    assert GuardedExporter(kept, "").export([made]) is SpanExportResult.SUCCESS
    assert kept.get_finished_spans() == ()


async def test_a_collector_that_is_away_costs_nothing_and_is_warned_of_once(
    there: Collector, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mesh.telemetry.span_export.EVERY_S", 0.01)
    monkeypatch.setattr("mesh.telemetry.span_export.SEND_S", 0.5)
    there.refuses = True
    tracing = there.tracing(NODE)

    def warned() -> list[str]:
        return [
            json.loads(line)["message"] for line in written.getvalue().splitlines() if "collector" in line
        ]

    def serve() -> None:
        tracing.serve("sovereign.mesh.v1.Inference/Chat", None, own=True).end()

    serve()
    await until(warned)
    serve()
    await there.sent()
    assert warned() == [f"no spans are delivered: the collector at {there.endpoint} does not take them"]
    there.refuses = False
    serve()
    await until(lambda: there.received)
    await until(lambda: len(warned()) == 2)
    assert warned()[1].endswith("takes spans again")
    assert "opentelemetry" not in written.getvalue()


@pytest.mark.slow
async def test_closing_is_bounded_though_the_collector_never_answers(written: io.StringIO):
    async with asyncio.timeout(10):
        silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        tracing = open_tracing(TraceSettings(endpoint=f"127.0.0.1:{port}"), NODE, "mesh-node", "")
        for _ in range(3000):  # more than the queue holds
            NO_SPAN.end()
            tracing.serve("sovereign.mesh.v1.Inference/Chat", PARENT, own=True).end()
        await tracing.aclose(0.2)
        await tracing.aclose(0.2)
        silent.close()
    assert "spans that were waiting are dropped" in written.getvalue()


def test_off_is_nothing():
    tracing = open_tracing(TraceSettings(), NODE, "mesh-node", "")
    assert tracing is NO_TRACING
    assert tracing.serve("sovereign.mesh.v1.Inference/Chat", PARENT, own=True) is NO_SPAN
    with spans.span(SpanName.GATE) as span:
        span.set({names.CHARGED: 1})
        span.event("gen_ai.first_token")
        assert span.child("chat") is span is spans.current()
        assert spans.outgoing() is None


@pytest.mark.slow
def test_off_opentelemetry_is_not_imported():
    program = """
import sys, mesh.client, node.daemon, control.daemon
from mesh.settings import TraceSettings
from mesh.telemetry.tracing import NO_TRACING, open_tracing, program_tracing
assert open_tracing(TraceSettings(), None, "", "") is program_tracing() is NO_TRACING
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_packages_it_is_a_setting_that_does_not_hold(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mesh.telemetry.span_export", None)
    with pytest.raises(MeshError, match=r"pip install sovereign-mesh\[traces\]") as caught:
        open_tracing(TraceSettings(endpoint="127.0.0.1:1"), NODE, "mesh-node", "")
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_ca_that_is_not_there_is_a_setting_that_does_not_hold(tmp_path: Any):
    settings = TraceSettings(endpoint="127.0.0.1:1", ca=tmp_path / "ca.pem")
    with pytest.raises(MeshError) as caught:
        open_tracing(settings, NODE, "mesh-node", "")
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.slow
def test_a_program_with_the_api_alone_is_not_traced_and_works():
    program = """
import sys
for name in ("opentelemetry.sdk", "opentelemetry.exporter"):
    sys.modules[name] = None
import opentelemetry.trace, mesh.client
from mesh.telemetry.tracing import NO_TRACING, program_tracing
assert program_tracing() is NO_TRACING
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_program_that_set_up_no_provider_is_not_traced():
    assert program_tracing() is NO_TRACING


def test_below_a_programs_own_span_it_is_the_programs_word_that_counts():
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing = OtelTracing(provider.get_tracer("x"), ratio=0.0)
    with provider.get_tracer("app").start_as_current_span("app"):
        tracing.begin(SpanName.CHAT).end()
    tracing.begin(SpanName.CHAT).end()  # none of its own: drawn
    chat, app = kept.get_finished_spans()
    assert chat.parent == app.context
