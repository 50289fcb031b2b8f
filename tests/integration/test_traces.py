"""Traces over several nodes, as they arrive at a collector: one request is one trace.

What is asserted is what came over the wire (tests/support/collector.py). All nodes send to one collector
here, so that a trace can be seen whole; in a mesh every operator has its own and sees its part.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mesh.client import MeshClient, collect, collect_answer, collect_search
from mesh.core.types import SpiffeId
from mesh.sdk.placers import Server
from mesh.sdk.profile import Profile
from mesh.settings import TraceSettings
from tests.support.collector import Seen, collector, tls_identity
from tests.support.federation import COLLECTION, INTERNAL, NAMES, federation_of
from tests.support.mesh import mesh_of
from tests.support.snapshots import PERMIT_ALL
from tests.support.waiting import until

pytestmark = pytest.mark.slow

SECRET = "photophobia"
TEXTS = {
    "DE": {"de-1": "The pump in ward 3 was replaced by Otto Quandt."},
    "FR": {"fr-1": f"A pump of the second ward leaks; {SECRET}."},
    "US": {"us-1": "Pump maintenance is due in ward 7."},
}
PLACE, CHAT = "sovereign.mesh.v1.Placement/Place", "sovereign.mesh.v1.Inference/Chat"
SEARCH, SHARD = "sovereign.mesh.v1.Retrieval/Search", "sovereign.mesh.v1.Shard/Search"
ONLY_FR = """
@id("all") permit (principal, action, resource);
@id("not-at-home") forbid (principal, action == Action::"infer", resource)
unless { resource in Jurisdiction::"FR" };
"""


def at(country: str) -> str:
    return f"spiffe://{country.lower()}.mesh.example/node/{NAMES[country]}"


def only(found: list[Seen], instance: str) -> Seen:
    (one,) = [span for span in found if span.instance == instance]
    return one


async def test_a_request_is_one_trace_from_client_over_placer_to_node(tmp_path: Path):
    async with collector() as there:
        policies = {"DE": ONLY_FR, "FR": PERMIT_ALL}
        async with federation_of(
            tmp_path, {"DE": {}, "FR": {}}, policies, client=f"{SECRET}/desk", tracing=there.tracing
        ) as federation:
            done = await collect(federation.client.chat("scripted", f"my {SECRET}", context=INTERNAL))
        await there.flushed()
        assert done.finished.node.trust_domain == "fr.mesh.example"
        assert len({span.trace for span in there.spans}) == 1
        placed, served = only(there.named(PLACE), at("DE")), only(there.named(CHAT), at("FR"))
        generated = only(there.named("chat"), at("FR"))
        assert there.path(placed) == ["chat", PLACE, PLACE]
        assert there.path(served) == ["chat", CHAT, CHAT]
        assert there.path(generated) == ["chat", CHAT, CHAT, "chat"]
        for step in ("gate", "admission", "evidence.record"):
            assert there.path(only(there.named(step), at("FR"))) == ["chat", CHAT, CHAT, step]
        decided = only(there.named("placement"), at("DE")).attributes
        assert decided["sovereign.mesh.decision.id"] == done.decision.id
        assert decided["sovereign.mesh.outcome"] == "permitted"
        counts = [
            decided[f"sovereign.mesh.placement.{what}"] for what in ("considered", "permitted", "refused")
        ]
        assert counts == [2, 1, 1]
        assert generated.attributes["gen_ai.operation.name"] == "chat"
        assert generated.attributes["gen_ai.request.model"] == "scripted"
        assert generated.attributes["gen_ai.request.max_tokens"] == 256
        assert generated.attributes["gen_ai.usage.input_tokens"] == done.finished.prompt_tokens
        assert generated.attributes["gen_ai.usage.output_tokens"] == done.finished.completion_tokens
        assert generated.attributes["gen_ai.response.finish_reasons"] == [done.finished.reason]
        assert [name for name, _ in generated.events] == ["gen_ai.first_token"]
        assert served.attributes["sovereign.mesh.caller.trust_domain"] == "de.mesh.example"
        assert SECRET.encode() not in b"".join(there.received)


async def test_a_question_to_three_nodes_is_one_trace(tmp_path: Path):
    async with collector() as there:
        async with federation_of(
            tmp_path, TEXTS, tracing=there.tracing, client=f"{SECRET}/desk"
        ) as federation:
            question = f"the pump in the ward, {SECRET}"
            search = federation.client.search(question, COLLECTION, context=INTERNAL, level="passage")
            found = await collect_search(search)
            assert len(found.hits) == 3
            searched = len(there.spans)
            await collect_answer(federation.client.answer(question, COLLECTION, context=INTERNAL))
            hit = await federation.client.fetch(found.hits[0].reference, context=INTERNAL)
            assert hit.released.text
        await there.flushed()
        assert searched < len(there.spans)
        traces = {span.trace for span in there.spans}
        assert len(traces) == 3
        (asked,) = [span for span in there.named(SEARCH) if span.instance == at("DE")]
        holders = [span for span in there.named("retrieval.holder") if span.trace == asked.trace]
        assert {span.parent for span in holders} == {asked.id}
        assert {span.attributes["sovereign.mesh.node"] for span in holders} == set(map(at, TEXTS))
        assert {span.attributes["sovereign.mesh.outcome"] for span in holders} == {"answered"}
        assert {span.attributes["sovereign.mesh.retrieval.highest_level"] for span in holders} == {"passage"}
        for country in ("FR", "US"):
            answered = only(there.named(SHARD), at(country))
            assert there.path(answered) == ["search", SEARCH, SEARCH, "retrieval.holder", SHARD]
        # At the asker's own node there is no call; what it releases is recorded below its holder's span.
        released = [
            there.path(span)[-2:]
            for span in there.named("evidence.record")
            if span.instance == at("DE") and span.attributes["sovereign.mesh.evidence.kind"] == "release"
        ]
        assert released
        assert all(path == ["retrieval.holder", "evidence.record"] for path in released)
        sent = b"".join(there.received)
        for word in (SECRET, "pump", "Quandt", COLLECTION, "de-1", "desk", "client/"):
            assert word.encode() not in sent, word


async def test_a_program_with_a_tracer_of_its_own_sees_its_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with collector() as there:
        async with federation_of(tmp_path, {"DE": {}}, tracing=there.tracing) as federation:
            home = federation.mesh["DE"]
            source = home.identity.source("/client/firm/desk", federation.mesh.bundles)
            node = federation.nodes["DE"]
            async with MeshClient(source, [Server(node.id, node.endpoint)]) as client:
                with provider.get_tracer("app").start_as_current_span("app") as app:
                    await collect(client.chat("scripted", SECRET, context=INTERNAL))
                    assert trace.get_current_span() is app
                    vectors = await client.embed(SECRET, context=INTERNAL)
                    assert vectors.vectors
        await there.flushed()
    made = {span.name: span for span in kept.get_finished_spans()}
    assert {"app", "chat", "embeddings", PLACE, CHAT} <= set(made)
    assert made["chat"].parent == made["app"].context
    trace_id = trace.format_trace_id(made["app"].context.trace_id)
    assert {span.trace for span in there.spans} == {trace_id}
    assert only(there.named(CHAT), at("DE")).parent == trace.format_span_id(made[CHAT].context.span_id)
    assert not any(SECRET in str(span.to_json()) for span in kept.get_finished_spans())


async def test_a_profile_says_where_a_clients_spans_go(tmp_path: Path):
    async with collector() as there, mesh_of(tmp_path, "DE", policies={"DE": PERMIT_ALL}) as mesh:
        node = await mesh["DE"].node("fra-1")
        source = mesh["DE"].identity.source("/client/firm/desk", mesh.bundles)
        folder = tmp_path / "profile"
        Profile(
            trust_domain="de.mesh.example",
            nodes={"fra-1": node.endpoint},
            traces=TraceSettings(endpoint=there.endpoint, sample_ratio=1.0),
        ).save(folder)
        source._directory = folder / "identity"
        source.save()
        async with MeshClient.from_profile(folder, renew=False) as client:
            await collect(client.chat("scripted", SECRET, context=INTERNAL))
        await until(lambda: there.named("chat"))
        assert {span.instance for span in there.spans} == {""}  # a client's name is its tenant's


async def test_to_a_collector_over_tls(tmp_path: Path):
    with_ca, credentials = tls_identity(tmp_path)
    async with collector(credentials, with_ca) as there:
        tracing = there.tracing(SpiffeId("de.mesh.example", "/node/fra-1"))
        tracing.serve(CHAT, None, own=True).end()
        await there.flushed()
        assert [span.name for span in there.spans] == [CHAT]
        other = tmp_path / "other"
        other.mkdir()
        there.ca, _ = tls_identity(other)
        stranger = there.tracing(SpiffeId("de.mesh.example", "/node/fra-1"))
        stranger.serve(CHAT, None, own=True).end()
        await stranger.aclose(1.0)
        assert len(there.spans) == 1


async def test_a_collector_that_is_away_costs_no_request(tmp_path: Path):
    async with collector() as there:
        there.refuses = True
        async with federation_of(tmp_path, {"DE": {}}, tracing=there.tracing) as federation:
            for _ in range(5):
                done = await collect(federation.client.chat("scripted", SECRET, context=INTERNAL))
                assert done.text
        there.refuses = False
        await there.flushed()
