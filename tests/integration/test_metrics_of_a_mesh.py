"""What nodes and control planes count while they are used, and that nobody who uses them is in it (I1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from control.plane import ControlPlane
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import Action
from mesh.identity.keys import make_key_and_csr
from mesh.telemetry.metrics import CATALOGUE, CONTROL, NODE, Kind
from mesh.telemetry.parts import ControlTelemetry
from node.config import RetrievalSettings
from node.engine.scripted import Script
from node.index.embedding import ScriptedEmbedder
from node.index.stores import StoreSettings
from node.retrieval.parts import RetrievalParts
from sovereign.mesh.v1 import admin_pb2
from tests.support.control_calls import control_calls, refusal
from tests.support.mesh import Mesh, Node, context, mesh_of
from tests.support.scraping import Page, get, scrape
from tests.support.waiting import DEADLINE_S, until

PUBLIC, INTERNAL = context(["public"]), context(["internal", "public"])
EVERYBODY = '@id("everybody") permit (principal, action, resource);'


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR", policies={"DE": EVERYBODY, "FR": EVERYBODY}) as made:
        yield made


async def until_page(node: Node, name: str, value: float, **labels: str) -> Page:
    """Scrapes until this metric has this value."""
    async with asyncio.timeout(DEADLINE_S):
        while (page := await scrape(node.metrics_port)).value(name, **labels) != value:
            pass
    return page


async def test_a_request_across_a_border_is_counted_at_its_receiver(mesh: Mesh):
    fra = await mesh["DE"].node("fra-1", telemetry=True)
    par = await mesh["FR"].node("par-1", telemetry=True, script=Script(first_token_s=0.0))
    clinic = mesh["DE"].caller("clinic-of-dr-quist")
    request = clinic.chat_request(INTERNAL, clinic.permit(par, INTERNAL), "how is Wilhelmine?", max_tokens=5)
    events = await clinic.send(par, request)
    finished = events[-1].finished
    page = await until_page(par, "sovereign_mesh_rpc_handled_total", 1, method="Chat", code="OK")
    flow = {"from": "DE", "to": "FR", "class": "internal", "action": "infer"}
    assert page.value("sovereign_mesh_flows_total", **flow) == 1
    assert page.value("sovereign_mesh_flows_total") == 1
    assert page.value("sovereign_mesh_engine_tokens_total", kind="prompt") == finished.prompt_tokens > 0
    assert page.value("sovereign_mesh_engine_tokens_total", kind="completion") == 5
    assert page.value("sovereign_mesh_engine_first_token_seconds_count") == 1
    assert page.value("sovereign_mesh_engine_queue_seconds_count") == 1
    decided = {"action": "infer", "outcome": "permitted", "reason": "none"}
    assert page.value("sovereign_mesh_receiver_decisions_total", **decided) == 1
    # The permit is used up: refused, and neither a flow nor a token.
    with pytest.raises(MeshError) as caught:
        await clinic.send(par, request)
    assert caught.value.reason is Reason.PERMIT_REPLAYED
    labels = {"method": "Chat", "reason": "PERMIT_REPLAYED"}
    page = await until_page(par, "sovereign_mesh_refusals_total", 1, **labels)
    assert page.value("sovereign_mesh_flows_total") == 1
    assert page.value("sovereign_mesh_engine_tokens_total", kind="completion") == 5
    # Without a permit, it is this node's own decision that refuses.
    with pytest.raises(MeshError):
        await clinic.send(par, clinic.chat_request(INTERNAL, None))
    refused = {"action": "infer", "outcome": "refused", "reason": "PERMIT_MISSING"}
    await until_page(par, "sovereign_mesh_receiver_decisions_total", 1, **refused)
    # The node at home has placed nothing and taken nothing.
    assert (await scrape(fra.metrics_port)).value("sovereign_mesh_flows_total") == 0
    for node in (fra, par):
        text = (await scrape(node.metrics_port)).text
        assert not [word for word in ("quist", "Wilhelmine", "triage") if word in text]


async def test_placements_by_outcome_and_reason(mesh: Mesh):
    fra = await mesh["DE"].node("fra-1", telemetry=True)
    clinic = mesh["DE"].caller("clinic")
    await clinic.place(PUBLIC)
    assert not (await clinic.place(PUBLIC, model="no-such-model")).decision.permitted
    with pytest.raises(MeshError):
        await clinic.place(PUBLIC, model="x" * 1000)
    page = await scrape(fra.metrics_port)
    name = "sovereign_mesh_placement_decisions_total"
    assert page.value(name, action="infer", outcome="permitted", reason="none") == 1
    assert page.value(name, action="infer", outcome="refused", reason="MODEL_NOT_SERVED") == 1
    assert page.value(name, action="other", outcome="failed", reason="REQUEST_INVALID") == 1
    assert page.value(name) == 3
    assert page.value("sovereign_mesh_placement_duration_seconds_count") == 2


async def test_the_engine_the_queue_and_a_drain(mesh: Mesh):
    node = await mesh["DE"].node("fra-1", telemetry=True, capacity=1, script=Script(per_token_s=0.01))
    clinic = mesh["DE"].caller("clinic")
    running = clinic.stream(node, PUBLIC)
    await running.until_token()
    waiting = asyncio.create_task(clinic.chat(node, PUBLIC))
    page = await until_page(node, "sovereign_mesh_engine_waiting", 1)
    assert page.value("sovereign_mesh_engine_running") == 1
    assert page.value("sovereign_mesh_engine_capacity") == 1
    assert page.value("sovereign_mesh_live_calls") == 2
    assert page.value("sovereign_mesh_rpc_in_flight", method="Chat") == 2
    assert page.value("sovereign_mesh_engine_state", state="ready") == 1
    assert page.value("sovereign_mesh_engine_state") == 1
    assert page.value("sovereign_mesh_ready") == 1
    assert await get(node.metrics_port, "/readyz") == (200, "ok\n")
    draining = asyncio.create_task(node.runtime.drain(DEADLINE_S))
    page = await until_page(node, "sovereign_mesh_draining", 1)
    assert page.value("sovereign_mesh_ready") == 0
    assert await get(node.metrics_port, "/readyz") == (503, "it is draining\n")
    assert await get(node.metrics_port, "/livez") == (200, "ok\n")
    running.cancel()
    assert await waiting
    await draining
    page = await until_page(node, "sovereign_mesh_rpc_handled_total", 1, method="Chat", code="CANCELLED")
    assert page.value("sovereign_mesh_live_calls") == 0
    cut = page.value("sovereign_mesh_engine_tokens_total", kind="completion")
    assert cut > 8, "what was given before it was cut off counts as well"


async def test_an_engine_that_died_is_not_ready_and_says_so(mesh: Mesh):
    node = await mesh["DE"].node("fra-1", telemetry=True)
    node.engine.die()
    assert await get(node.metrics_port, "/readyz") == (503, "the engine is failed\n")
    assert await get(node.metrics_port, "/livez") == (200, "ok\n")
    page = await scrape(node.metrics_port)
    assert page.value("sovereign_mesh_engine_state", state="failed") == 1
    assert page.value("sovereign_mesh_engine_state", state="ready") == 0
    node.engine.revive()
    await until_page(node, "sovereign_mesh_ready", 1)


@pytest.mark.slow
async def test_records_certificates_and_evidence(mesh: Mesh, tmp_path: Path):
    fra = await mesh["DE"].node("fra-1", telemetry=True, evidence=tmp_path / "fra", witnesses=1)
    page = await scrape(fra.metrics_port)
    assert not page.all("sovereign_mesh_evidence_cosigned_lag_entries"), "nobody else is there to witness"
    await mesh["FR"].node("par-1", evidence=tmp_path / "par")
    await mesh.settled()
    page = await scrape(fra.metrics_port)
    svid = fra.runtime.parts.source.svid
    assert page.value("sovereign_mesh_board_connected") == 1
    assert page.value("sovereign_mesh_certificate_expiry_timestamp_seconds") == svid.not_after
    assert page.value("sovereign_mesh_certificate_not_before_timestamp_seconds") == svid.not_before
    assert page.value("sovereign_mesh_certificate_renewal_failing") == 0
    for domain in ("de.mesh.example", "fr.mesh.example"):
        assert 0 <= page.value("sovereign_mesh_record_age_seconds", trust_domain=domain) < 60
        assert page.value("sovereign_mesh_record_age_limit_seconds", trust_domain=domain) == 60
        for kind in ("policy", "facts", "nodes", "status", "federation"):
            assert page.value("sovereign_mesh_records", trust_domain=domain, type=kind) == 1, kind
    await mesh["DE"].caller("clinic").chat(fra, PUBLIC)
    page = await until_page(fra, "sovereign_mesh_evidence_entries", 1)
    await fra.log.checkpoint()
    await until_page(fra, "sovereign_mesh_evidence_cosigned_lag_entries", 0)
    await until(lambda: fra.runtime.evidence.witnessing.latest)  # type: ignore[union-attr]
    page = await scrape(fra.metrics_port)
    assert page.all("sovereign_mesh_evidence_cosigned_lag_entries")
    cosign = {"service": "sovereign.mesh.v1.Evidence", "method": "Cosign", "code": "OK"}
    assert page.value("sovereign_mesh_rpc_client_handled_total", **cosign) >= 1
    mesh.board.disconnect()
    await until_page(fra, "sovereign_mesh_board_connected", 0)


async def test_indexes_by_collection(mesh: Mesh, tmp_path: Path):
    embedder = ScriptedEmbedder(32)
    spec = CollectionSpec("guides", embedder.name, await embedder.digest(), 32)
    await mesh["DE"].publish_collection(spec)
    parts = RetrievalParts(tmp_path / "r", embedder, RetrievalSettings(store=StoreSettings(kind="memory")))
    node = await mesh["DE"].node("fra-1", telemetry=True, retrieval=parts)
    await mesh.settled()
    assert node.runtime.retrieval is not None
    await node.runtime.retrieval.library.create("guides")
    page = await until_page(node, "sovereign_mesh_index_state", 1, collection="guides", state="ready")
    assert page.value("sovereign_mesh_index_state", collection="guides") == 1
    assert page.value("sovereign_mesh_index_chunks", collection="guides") == 0
    assert page.all("sovereign_mesh_index_documents", collection="guides")


@pytest.mark.slow
async def test_what_callers_invent_makes_no_series(mesh: Mesh):
    node = await mesh["DE"].node("fra-1", telemetry=True)
    tenants = [mesh["DE"].caller(f"tenant-{number}") for number in range(4)]

    async def use(number: int) -> None:
        caller = tenants[number % len(tenants)]
        odd = context(["public"], f"purpose-{number}")
        for action in (Action.INFER, Action.EMBED, Action.SEARCH):
            try:
                await caller.place(odd, model=f"model-{number}", action=action)
            except MeshError as error:
                assert error.reason is Reason.OVERLOADED  # noqa: PT017 - each new purpose costs; see mesh/rpc/pace.py
        asked = caller.chat_request(
            odd, caller.permit(node, odd, model=f"model-{number}"), model=f"model-{number}"
        )
        with pytest.raises(MeshError):
            await caller.send(node, asked)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.channel(node).unary_unary(f"/method-{number}/Do")(b"")

    async def many(start: int, end: int) -> None:
        for first in range(start, end, 20):
            await asyncio.gather(*(use(number) for number in range(first, first + 20)))

    await many(0, 20)
    before = (await scrape(node.metrics_port)).series
    await many(20, 520)
    page = await scrape(node.metrics_port)
    # Refusals that did not happen before: the placer may say by now that somebody asks too much.
    known = {"code", "reason", "outcome"}
    new = {(name, labels) for name, labels in page.series - before if not known & dict(labels).keys()}
    assert not new
    assert len(page.series) < 700
    for word in ("tenant-", "purpose-", "model-", "method-", "more-"):
        assert word not in page.text


@pytest.mark.slow
async def test_a_control_plane(tmp_path: Path):
    telemetry = ControlTelemetry("127.0.0.1:0", fresh_s=0.0)
    async with control_calls(tmp_path, telemetry=telemetry, first_policy=EVERYBODY) as calls:
        plane: ControlPlane = calls.plane
        assert await get(telemetry.port, "/readyz") == (200, "ok\n")
        token = await calls.token()
        await calls.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1]))
        await refusal(calls.door().Enroll(admin_pb2.EnrollRequest(token=token, csr=make_key_and_csr()[1])))
        node = calls.de.source("/node/fra-1")
        await calls.renewal(node).Renew(admin_pb2.RenewRequest(csr=make_key_and_csr()[1]))
        await plane.board.wait_for(lambda s: "de.mesh.example" in s.heads, DEADLINE_S)
        page = await scrape(telemetry.port)
        for outcome in ("granted", "refused", "renewed"):
            assert page.value("sovereign_mesh_enrolments_total", outcome=outcome) == 1
        assert page.value("sovereign_mesh_rpc_handled_total", method="Enroll", code="OK") == 1
        assert page.value("sovereign_mesh_refusals_total", method="Enroll", reason="JOIN_TOKEN_INVALID") == 1
        assert page.all("sovereign_mesh_heads_age_seconds")
        assert 0 <= page.value("sovereign_mesh_heads_age_seconds") < 60
        assert page.value("sovereign_mesh_records", trust_domain="de.mesh.example", type="policy") == 1
        assert page.value("sovereign_mesh_ready") == 1
        assert token not in page.text
        assert not [m.name for m in CATALOGUE if CONTROL not in m.daemons and page.all(m.name)]
        port = telemetry.port
    with pytest.raises(ConnectionError):
        await get(port, "/livez")


@pytest.mark.slow
async def test_a_node_shows_everything_that_the_catalogue_promises(mesh: Mesh, tmp_path: Path):
    """Not one of the gauges is forgotten in the wiring."""
    embedder = ScriptedEmbedder(32)
    await mesh["DE"].publish_collection(CollectionSpec("guides", embedder.name, await embedder.digest(), 32))
    parts = RetrievalParts(tmp_path / "r", embedder, RetrievalSettings(store=StoreSettings(kind="memory")))
    node = await mesh["DE"].node(
        "fra-1", telemetry=True, retrieval=parts, evidence=tmp_path / "fra", witnesses=1
    )
    await mesh["FR"].node("par-1", evidence=tmp_path / "par")
    await mesh.settled()
    assert node.runtime.retrieval is not None
    await node.runtime.retrieval.library.create("guides")
    await mesh["DE"].caller("clinic").chat(node, PUBLIC)
    page = await scrape(node.metrics_port)
    missing = {
        m.name for m in CATALOGUE if NODE in m.daemons and m.kind is Kind.GAUGE and not page.all(m.name)
    }
    assert missing == {"sovereign_mesh_records_refused"}
