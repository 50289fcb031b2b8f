"""A node through its life: ready, failing, drained, rotated, without a board, without a disk."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mesh.core.errors import MeshError, Reason
from mesh.identity.log_keys import LogKey
from mesh.identity.source import SvidSource
from mesh.store.memory import MemoryStore
from node.engine.base import EngineState
from node.engine.scripted import Script, ScriptedEngine
from node.runtime import NodeParts, NodeRuntime
from sovereign.mesh.v1 import inference_pb2
from tests.support.evidence import open_log
from tests.support.mesh import DEADLINE_S, Caller, Mesh, Node, context, mesh_of

PUBLIC = context(["public"])
CLINICAL = context(["special-category"])
TALKING = Script(per_token_s=0.01)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(caller: Caller, node: Node, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(caller.channel(node))
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def status_becomes(mesh: Mesh, node: Node, **wanted: object) -> None:
    """Waits until another participant of the mesh sees this status."""
    board = next(iter(mesh.authorities.values())).board
    await board.wait_for(
        lambda _: (
            node.id in board.statuses
            and all(getattr(board.statuses[node.id], name) == value for name, value in wanted.items())
        ),
        DEADLINE_S,
    )


@pytest.mark.slow
async def test_health_and_status_follow_the_engine(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node, clinic = await mesh["DE"].node("fra-1", script=TALKING), mesh["DE"].caller("clinic")
        inference = "sovereign.mesh.v1.Inference"
        assert await health(clinic, node) == await health(clinic, node, inference) == SERVING
        stream = clinic.stream(node, PUBLIC)
        await stream.until_token()
        node.engine.die()
        assert (await stream.ends_with()).reason is Reason.ENGINE_FAILED
        await status_becomes(mesh, node, ready=False)
        assert await health(clinic, node) == await health(clinic, node, inference) == NOT_SERVING
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC)
        assert caught.value.reason is Reason.ENGINE_UNAVAILABLE
        assert caught.value.retry_after_s
        # placement is answered all the same
        assert await health(clinic, node, "sovereign.mesh.v1.Placement") == SERVING
        refused = (await clinic.place(PUBLIC)).decision.refused
        assert refused[0].reason == Reason.NODE_NOT_READY.code
        node.engine.revive()
        await status_becomes(mesh, node, ready=True)
        assert await clinic.chat(node, PUBLIC)


@pytest.mark.slow
async def test_load_is_told(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node = await mesh["DE"].node("fra-1", script=TALKING, capacity=2)
        clinic = mesh["DE"].caller("clinic")
        streams = [clinic.stream(node, PUBLIC) for _ in range(3)]
        await status_becomes(mesh, node, in_flight=2, queued=1, capacity=2)
        for stream in streams:
            stream.cancel()
        await status_becomes(mesh, node, in_flight=0, queued=0)


@pytest.mark.slow
async def test_reflection_and_models(tmp_path: Path):
    async with mesh_of(tmp_path, "DE", "FR") as mesh:
        node, stranger = await mesh["DE"].node("fra-1"), mesh["FR"].caller("visitor")
        await mesh.settled()
        models = await stranger.inference(node).ListModels(inference_pb2.ListModelsRequest())
        assert {model.name for model in models.models} == {"scripted", "scripted-embedding"}
        stub = reflection_pb2_grpc.ServerReflectionStub(stranger.channel(node))
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {service.name async for answer in call for service in answer.list_services_response.service}
        assert {"sovereign.mesh.v1.Inference", "sovereign.mesh.v1.Placement"} <= names


@pytest.mark.slow
async def test_draining_finishes_what_runs_and_takes_nothing_new(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node, clinic = await mesh["DE"].node("fra-1", script=TALKING), mesh["DE"].caller("clinic")
        stream = clinic.stream(node, PUBLIC, max_tokens=60)
        await stream.until_token()
        draining = asyncio.create_task(node.runtime.drain(DEADLINE_S))
        await status_becomes(mesh, node, draining=True)
        assert await health(clinic, node) == NOT_SERVING
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC)
        assert caught.value.reason is Reason.DRAINING
        while (event := await stream.next()) is not None:
            last = event
        assert last.finished.completion_tokens == 60
        await draining
        assert node.engine.seen == 1


@pytest.mark.slow
async def test_draining_has_an_end(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node, clinic = await mesh["DE"].node("fra-1", script=TALKING), mesh["DE"].caller("clinic")
        stream = clinic.stream(node, PUBLIC)
        await stream.until_token()
        async with asyncio.timeout(DEADLINE_S):
            await node.runtime.drain(0.1)
            await node.runtime.stop()
        assert (await stream.ends_with()).reason is Reason.DRAINING
        assert node.engine.active == 0


@pytest.mark.slow
async def test_a_stopped_node_is_off_the_board_at_once(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node = await mesh["DE"].node("fra-1")
        await node.runtime.stop()
        board = mesh["DE"].board
        await board.wait_for(lambda _: node.id not in board.statuses, DEADLINE_S)


@pytest.mark.slow
async def test_certificates_rotate_under_load_without_a_failed_call(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node = await mesh["DE"].node("fra-1")
        callers = [mesh["DE"].caller(f"clinic-{number}") for number in range(4)]
        source = node.runtime.parts.source
        finished = asyncio.Event()
        serials = {source.svid.serial}

        async def keep_asking(caller: Caller) -> int:
            calls = 0
            while not finished.is_set():
                assert await caller.chat(node, PUBLIC, max_tokens=2)
                calls += 1
                if calls % 5 == 0:  # a renewal of its own: new certificate, new connection
                    caller.source.rotate(mesh["DE"].identity.svid(caller.id.path))
            return calls

        asking = [asyncio.create_task(keep_asking(caller)) for caller in callers]
        for _ in range(5):
            source.rotate(mesh["DE"].identity.svid("/node/fra-1"))
            serials.add(source.svid.serial)
            await asyncio.sleep(0.1)  # load between the rotations
        finished.set()
        calls = await asyncio.gather(*asking)
        assert len(serials) == 6
        assert min(calls) >= 5
        # what the node says of itself is signed anew with the new certificate
        held = mesh["DE"].board
        key = next(key for key in held.own() if key.type == "nodes")
        await held.wait_for(
            lambda _: held.held(key).statement.signer_serial == source.svid.serial,  # type: ignore[union-attr]
            DEADLINE_S,
        )


@pytest.mark.slow
async def test_what_cannot_be_recorded_is_not_served_i7(tmp_path: Path):
    def full(step: str) -> None:
        if step.startswith("append"):
            raise OSError(errno.ENOSPC, "No space left on device")

    log = open_log(tmp_path / "log", LogKey.generate(), failpoint=full)
    async with mesh_of(tmp_path, "DE") as mesh:
        node = await mesh["DE"].node("fra-1", log=log)
        clinic = mesh["DE"].caller("clinic")
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC)
        assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
        with pytest.raises(MeshError) as caught:
            await clinic.place(PUBLIC)
        assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
        assert node.engine.seen == 0
        assert node.runtime.admission.in_flight == 0


@pytest.mark.slow
async def test_without_the_board_a_node_serves_its_own_i4(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node, clinic = await mesh["DE"].node("fra-1"), mesh["DE"].caller("clinic")
        mesh.board.disconnect()
        board = node.runtime.board
        await board.wait_for(lambda _: not board.connected, DEADLINE_S)
        placed = await clinic.place(CLINICAL)
        permit = placed.targets[0].permit.SerializeToString()
        assert await clinic.chat(node, CLINICAL, permit=permit)
        mesh.board.reconnect()
        await board.wait_for(lambda _: board.connected, DEADLINE_S)
        assert await clinic.chat(node, CLINICAL)


@pytest.mark.slow
async def test_a_node_starts_without_the_board_and_serves_its_own_i4(tmp_path: Path):
    cache = tmp_path / "cache"
    async with mesh_of(tmp_path, "DE") as mesh:
        first = await mesh["DE"].node("fra-1", cache=cache)
        clinic = mesh["DE"].caller("clinic")
        await first.runtime.stop()
        mesh.board.disconnect()
        source = SvidSource(
            first.runtime.parts.source.svid, mesh.bundles, clock=time.time, random=lambda: 0.5
        )
        engine = ScriptedEngine()
        again = NodeRuntime(
            NodeParts(
                source=source,
                store=MemoryStore(mesh.board),
                engine=engine,
                log=first.log,
                listen=("127.0.0.1:0",),
                board_cache=cache,
            )
        )
        mesh.on_close(again.stop)
        await again.start()
        await engine.wait_state(EngineState.READY)
        node = Node(again, engine, first.log)
        assert await clinic.chat(node, CLINICAL)


@pytest.mark.slow
async def test_a_strangers_certificate_does_not_even_connect(tmp_path: Path):
    async with mesh_of(tmp_path / "ours", "DE") as mesh, mesh_of(tmp_path / "theirs", "DE") as theirs:
        node = await mesh["DE"].node("fra-1")
        stranger = theirs["DE"].caller("clinic")  # same names, another root
        with pytest.raises(MeshError) as caught:
            await stranger.send(node, stranger.chat_request(PUBLIC, None))
        assert caught.value.reason in (Reason.IDENTITY_UNTRUSTED, Reason.UNREACHABLE)
        async with grpc.aio.insecure_channel(node.endpoint) as plain:
            with pytest.raises(grpc.aio.AioRpcError):
                await plain.unary_unary("/sovereign.mesh.v1.Inference/ListModels")(b"", timeout=5)


@pytest.mark.slow
async def test_a_part_that_ends_by_itself_is_noticed(tmp_path: Path):
    async with mesh_of(tmp_path, "DE") as mesh:
        node = await mesh["DE"].node("fra-1")
        assert not node.runtime.failed.is_set()
        await node.runtime.parts.store.aclose()  # ends the board's watch, which should never end
        async with asyncio.timeout(DEADLINE_S):
            await node.runtime.failed.wait()
