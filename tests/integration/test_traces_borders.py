"""What a trace does not carry: over a border, to a collector, into a log (I1)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh import codec
from mesh.client import PlacementRefused, collect, collect_search
from mesh.core.types import Action, SpiffeId
from mesh.telemetry import spans
from mesh.telemetry.tracing import TRACEPARENT
from node.retrieval.asker import Asker
from sovereign.mesh.v1 import (
    inference_pb2,
    placement_pb2,
    placement_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from tests.integration.test_traces import PLACE, SEARCH, SECRET, TEXTS, at
from tests.support.collector import collector
from tests.support.federation import COLLECTION, INTERNAL, federation_of
from tests.support.leaks.tap import Flow, tapped
from tests.support.mesh import Mesh, context, mesh_of
from tests.support.snapshots import PERMIT_ALL
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_only_the_header_of_the_trace_goes_on_to_other_nodes(tmp_path: Path):
    """A caller's baggage and tracestate stay where they arrive."""
    flows: list[Flow] = []
    async with collector() as there:
        with tapped(flows.append):
            async with federation_of(tmp_path, TEXTS, tracing=there.tracing) as federation:
                node = federation.nodes["DE"]
                caller = federation.mesh["DE"].caller("firm/desk")
                stub: Any = placement_pb2_grpc.PlacementStub(caller.channel(node))
                metadata = (
                    (TRACEPARENT, PARENT),
                    ("tracestate", f"vendor={SECRET}"),
                    ("baggage", f"patient={SECRET}"),
                    (SECRET, SECRET),
                )
                placed = await stub.Place(
                    placement_pb2.PlaceRequest(
                        context=codec.context_to_pb(INTERNAL),
                        action=codec.action_to_pb(Action.SEARCH),
                        model=COLLECTION,
                    ),
                    metadata=metadata,
                )
                assert placed.decision.permitted
                request = retrieval_pb2.SearchRequest(
                    admission=inference_pb2.Admission(
                        permit=placed.targets[0].permit, context=codec.context_to_pb(INTERNAL)
                    ),
                    collection=COLLECTION,
                    query="pump",
                    k=3,
                    timeout_ms=10_000,
                )
                retrieval: Any = retrieval_pb2_grpc.RetrievalStub(caller.channel(node))
                async for _ in retrieval.Search(request, metadata=metadata):
                    pass
        await there.flushed()
    assert {span.trace for span in there.spans} == {PARENT[3:35]}
    arrived = [flow for flow in flows if flow.side == "server" and not flow.sent and flow.kind == "metadata"]
    assert any(SECRET.encode() in flow.data for flow in arrived if flow.node == at("DE"))
    between = [flow for flow in flows if flow.side == "client" and flow.sent and flow.kind == "metadata"]
    assert len(between) == 2
    assert all(flow.data.split(b"\0")[0] == TRACEPARENT.encode() for flow in between)
    assert all(len(flow.data.split(b"\0")) == 2 for flow in between)
    assert not any(SECRET.encode() in flow.data for flow in flows if flow.node != at("DE"))
    assert SECRET.encode() not in b"".join(there.received)


async def test_a_foreign_callers_flag_is_not_followed(tmp_path: Path):
    async with collector() as there:
        async with mesh_of(tmp_path, "DE", "FR", policies={"DE": PERMIT_ALL, "FR": PERMIT_ALL}) as mesh:
            node = await mesh["DE"].node(
                "fra-1", tracing=there.tracing(SpiffeId("de.mesh.example", "/node/fra-1"), ratio=0.0)
            )
            for country in ("FR", "DE"):
                await ask(mesh, country, node)
        await there.flushed()
        (span,) = there.named(PLACE)
        assert span.attributes["sovereign.mesh.caller.trust_domain"] == "de.mesh.example"
        assert (span.trace, span.parent) == (PARENT[3:35], PARENT[36:52])


async def ask(mesh: Mesh, country: str, node: Any) -> None:
    stub: Any = placement_pb2_grpc.PlacementStub(mesh[country].caller("firm").channel(node))
    request = placement_pb2.PlaceRequest(
        context=codec.context_to_pb(context(["internal"])), action=codec.action_to_pb(Action.INFER)
    )
    await stub.Place(request, metadata=((TRACEPARENT, PARENT),))


async def test_a_refusal_is_its_code_and_the_caller_can_name_the_request(
    tmp_path: Path, written: io.StringIO
):
    nothing = '@id("none") forbid (principal, action, resource);'
    async with collector() as there:
        async with federation_of(
            tmp_path, {"DE": {}, "FR": {}}, {"DE": nothing}, tracing=there.tracing
        ) as federation:
            with pytest.raises(PlacementRefused) as refused:
                await collect(federation.client.chat("scripted", SECRET, context=INTERNAL))
            # A permit of nobody's: refused by the node itself.
            caller = federation.mesh["DE"].caller("firm/desk")
            request = inference_pb2.ChatRequest(
                admission=inference_pb2.Admission(context=codec.context_to_pb(INTERNAL)), model=SECRET
            )
            request.messages.add(role="user", content=SECRET)
            call = caller.inference(federation.nodes["DE"]).Chat(request)
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            trailers = dict(await call.trailing_metadata())
            entries = federation.nodes["DE"].entries
            await until(lambda: "PERMIT_MISSING" in written.getvalue())
        await there.flushed()
    assert refused.value.decision is not None
    (entry,) = [entry for entry in entries if entry["kind"] == "serve"]
    assert trailers["sovereign-request-id"] == entry["id"]
    gate, client = there.named("gate")[-1], there.named("chat")[0]
    assert gate.attributes["error.type"] == "PERMIT_MISSING"
    assert gate.attributes["sovereign.mesh.permit.outcome"] == "PERMIT_MISSING"
    assert client.attributes["error.type"] == "NOT_PERMITTED"
    assert SECRET.encode() not in b"".join(there.received)
    assert SECRET not in written.getvalue()


async def test_a_span_that_somebody_hangs_a_question_on_does_not_carry_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The mistake that the list is there for: a line added in haste."""
    search = Asker.search

    def hasty(self: Any, plan: Any, question: Any) -> Any:
        span: Any = spans.current()
        span.set({"question": question.query, "gen_ai.prompt": question.query})
        span._span.set_attribute("db.query.text", question.query)  # past the list, to the SDK itself
        span._span.add_event(question.query)
        span._tracer.start_span(question.query).end()
        return search(self, plan, question)

    monkeypatch.setattr(Asker, "search", hasty)
    async with collector() as there:
        async with federation_of(tmp_path, TEXTS, tracing=there.tracing) as federation:
            await collect_search(federation.client.search(f"pump {SECRET}", COLLECTION, context=INTERNAL))
        await there.flushed()
        assert there.named(SEARCH)
        assert SECRET.encode() not in b"".join(there.received)
