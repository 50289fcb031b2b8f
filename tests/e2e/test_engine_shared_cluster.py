"""A real node on a real Ray cluster that is not its own: vLLM, Serve, mutual TLS over TCP, and deaths."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.ports import free_ports
from node.engine.base import EngineState, Prompt, Sampling
from node.engine.model_files import computed_digest
from node.engine.replica_network import GATEWAY_NAME, REPLICA_NAME, TlsFiles
from node.engine.shared_cluster import ReplicaAccess, SharedClusterEngine
from node.engine.tiny_model import build
from tests.support.engines import START_S, eventually, kill
from tests.support.fake_cluster import ReplicaAuthority
from tests.support.mesh import context
from tests.support.node_process import NodeProcess, node_process
from tests.support.ray_cluster import application, ray_cluster

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

CONTEXT = context(["special-category"])
PROMPT = "Zanzibarschmetterling"
CAPACITY = 2


def engine_of(port: int, files: TlsFiles) -> SharedClusterEngine:
    return SharedClusterEngine(ReplicaAccess((f"127.0.0.1:{port}",), files), "tiny", look_every_s=0.2)


async def says(engine: SharedClusterEngine) -> str:
    pieces = engine.generate("tiny", Prompt("One"), Sampling(max_tokens=8))
    return "".join([piece.text async for piece in pieces])


async def refused(port: int, files: TlsFiles, reason: Reason) -> None:
    engine = engine_of(port, files)
    await engine.start()
    try:
        await eventually(lambda: reason.code in engine.failure, 20, reason.code)
        assert engine.state is not EngineState.READY
    finally:
        await engine.aclose()


async def chat(node: NodeProcess) -> str:
    return await node.mesh["DE"].caller("clinic").chat(node, CONTEXT, PROMPT, **permitted(node))


def permitted(node: NodeProcess) -> dict[str, Any]:
    caller, signer = node.mesh["DE"].caller("clinic"), node.mesh["DE"].identity.source("/control/main")
    return {"model": "tiny", "permit": caller.permit(node, CONTEXT, model="tiny", by=signer)}


async def ready(node: NodeProcess, wanted: bool) -> None:
    board = node.mesh["DE"].board
    await board.wait_for(
        lambda _: node.id in board.statuses and board.statuses[node.id].ready is wanted, START_S
    )


async def test_a_node_on_a_cluster_of_somebody_elses(tmp_path: Path) -> None:
    model = build(tmp_path / "tiny-model")
    (tmp_path / "tls").mkdir()
    (tmp_path / "strangers").mkdir()
    authority, strangers = ReplicaAuthority(tmp_path / "tls"), ReplicaAuthority(tmp_path / "strangers")
    replica, gateway = authority.files(REPLICA_NAME), authority.files(GATEWAY_NAME)
    stranger = strangers.files(GATEWAY_NAME)
    (port,) = free_ports(1)
    ends = {"ca": replica.ca, "certificate": replica.certificate, "key": replica.key}
    spec = {
        "model": str(model),
        "model_name": "tiny",
        "model_digest": computed_digest(model),
        "capacity": CAPACITY,
        "embeddings": False,
        "cache_directory": str(tmp_path / "cache"),
    }
    with ray_cluster(application(spec, {"host": "127.0.0.1", "port": port, **ends})) as cluster:
        engine = engine_of(port, gateway)
        await engine.start()
        async with asyncio.timeout(START_S):
            assert await engine.wait_state(EngineState.READY, EngineState.FAILED) is EngineState.READY
        told = await says(engine)
        await engine.aclose()

        # Wrong certificates, in both directions.
        await refused(port, TlsFiles(gateway.ca, stranger.certificate, stranger.key), Reason.UNREACHABLE)
        await refused(port, stranger, Reason.IDENTITY_UNTRUSTED)
        await refused(port, replica, Reason.IDENTITY_NOT_ALLOWED)

        ray = {"replicas": [f"127.0.0.1:{port}"], "ca": gateway.ca}
        ray |= {"certificate": gateway.certificate, "key": gateway.key}
        pinned = {"kind": "ray_vllm", "model_name": "tiny", "model_digest": spec["model_digest"], "ray": ray}
        settings = {"engine": pinned, "retrieval": {"enabled": False}}
        async with node_process(tmp_path, settings=settings) as node:
            before = await chat(node)
            assert before

            # Streams that are cancelled free their places at the replica.
            caller = node.mesh["DE"].caller("clinic")
            streams = [
                caller.stream(node, CONTEXT, max_tokens=1900, **permitted(node)) for _ in range(CAPACITY)
            ]
            for stream in streams:
                await stream.until_token()
                stream.cancel()
            assert await chat(node) == before

            # A gateway that was killed finds its replicas warm.
            servers = cluster.find("ray_vllm_server")
            node.process.kill()
            await node.ended()
            node.start()
            await ready(node, False)
            await ready(node, True)
            assert await chat(node) == before
            assert cluster.find("ray_vllm_server") == servers

            # A replica that is killed fails what it had begun, and Serve puts another in its place.
            stream = caller.stream(node, CONTEXT, max_tokens=1900, **permitted(node))
            await stream.until_token()
            kill(servers)
            assert (await stream.ends_with()).reason in (Reason.ENGINE_FAILED, Reason.NODE_LOST)
            await ready(node, False)
            await ready(node, True)
            assert await chat(node) == before
            assert not set(cluster.find("ray_vllm_server")) & set(servers)

            # I1: nothing of a prompt lies about, with Ray or with the node.
            for path in (*cluster.logs, node.log):
                assert PROMPT.encode() not in path.read_bytes(), path
        assert told
    assert cluster.family.members() == []
    assert not cluster.folder.exists()
    with pytest.raises(MeshError):
        await says(engine)
