"""A gateway and the replicas of a cluster that is not its own: who is believed, who is let in, who serves.

Real ports and real mutual TLS on loopback; scripted engines behind them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mesh.core.errors import MeshError, Reason
from node.engine.base import EngineState, Prompt, Sampling
from node.engine.replica_network import GATEWAY_NAME, REPLICA_NAME, ReplicaNetwork, TlsFiles
from node.engine.scripted import Script, ScriptedEngine
from node.engine.shared_cluster import SharedClusterEngine, look_up
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc
from tests.support.engines import eventually
from tests.support.fake_cluster import FakeCluster, ReplicaAuthority, free_port

MODEL = "m"
SLOW = Script(per_token_s=3600)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    yield cluster
    await cluster.aclose()


@pytest.fixture
async def engine(cluster: FakeCluster) -> AsyncIterator[SharedClusterEngine]:
    engine = cluster.engine()
    await engine.start()
    yield engine
    await engine.aclose()


def scripted(script: Script | None = None, name: str = MODEL) -> ScriptedEngine:
    return ScriptedEngine(name, capacity=4, script=script)


async def state(engine: SharedClusterEngine, wanted: EngineState) -> None:
    async with asyncio.timeout(10):
        await engine.wait_state(wanted)


async def say(engine: SharedClusterEngine) -> str:
    pieces = engine.generate(MODEL, Prompt("hello"), Sampling(max_tokens=5))
    return "".join([piece.text async for piece in pieces])


async def begin(engine: SharedClusterEngine) -> asyncio.Task[None]:
    begun = asyncio.Event()

    async def listen() -> None:
        async for _ in engine.generate(MODEL, Prompt("hello"), Sampling(max_tokens=4000, ignore_eos=True)):
            begun.set()

    stream = asyncio.create_task(listen())
    async with asyncio.timeout(10):
        await begun.wait()
    return stream


async def refused(engine: SharedClusterEngine, reason: Reason) -> None:
    """The engine is not ready, for this reason."""
    await engine.start()
    try:
        await eventually(lambda: reason.code in engine.failure, 10, reason.code)
        assert engine.state is not EngineState.READY
        with pytest.raises(MeshError) as refusal:
            await say(engine)
        assert refusal.value.reason is Reason.ENGINE_UNAVAILABLE
    finally:
        await engine.aclose()


async def test_is_ready_when_a_replica_is(cluster: FakeCluster, engine: SharedClusterEngine) -> None:
    assert (engine.state, engine.models, engine.capacity) == (EngineState.STARTING, (), 16)
    behind = scripted()
    await cluster.add(behind)
    await state(engine, EngineState.READY)
    assert (engine.models, engine.capacity) == (behind.models, 4)
    assert await say(engine)


async def test_a_lost_replica_fails_its_streams_and_its_successor_serves(
    cluster: FakeCluster, engine: SharedClusterEngine
) -> None:
    target = await cluster.add(scripted(SLOW))
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    await cluster.lose(target)
    with pytest.raises(MeshError) as failure:
        async with asyncio.timeout(10):
            await stream
    assert failure.value.reason is Reason.ENGINE_FAILED
    await state(engine, EngineState.FAILED)
    await cluster.add(scripted(), port=int(target.rpartition(":")[2]))  # in the same place
    await state(engine, EngineState.READY)
    assert await say(engine)


async def test_a_replica_that_hangs_up_is_dialled_at_the_pace_of_looking(cluster: FakeCluster) -> None:
    target = await cluster.add(scripted())
    cluster.replicas[target].hangs_up = True
    engine = cluster.engine(look_every_s=0.1)
    now = asyncio.get_running_loop().time
    began = now()
    await engine.start()
    try:
        await eventually(lambda: cluster.replicas[target].sessions >= 5, 10, "it was dialled five times")
        assert now() - began > 0.4, "with a pause after each"
        await eventually(lambda: engine.state is EngineState.FAILED, 10, "it is lost")
    finally:
        await engine.aclose()


async def test_leaving_frees_the_place(cluster: FakeCluster, engine: SharedClusterEngine) -> None:
    behind = scripted(SLOW)
    await cluster.add(behind)
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    stream.cancel()
    await eventually(lambda: (behind.active, behind.cancelled) == (0, 1), 0.5, "it is freed")


async def test_a_replica_that_is_no_longer_listed_ends_what_it_began(
    cluster: FakeCluster, engine: SharedClusterEngine
) -> None:
    old, new = scripted(SLOW), scripted()
    first = await cluster.add(old)
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    cluster.listed.clear()
    await asyncio.sleep(0)
    assert not stream.done()
    await cluster.add(new)
    await eventually(lambda: engine.capacity == 8, 10, "both are known")
    await eventually(lambda: engine._sessions[first].leaving, 10, "the first is on its way out")
    assert await say(engine), "the one that stays serves"
    stream.cancel()
    await eventually(lambda: engine.capacity == 4, 10, "the first is let go")
    assert engine.state is EngineState.READY


async def test_without_names_what_is_connected_goes_on(
    cluster: FakeCluster, engine: SharedClusterEngine
) -> None:
    await cluster.add(scripted())
    await state(engine, EngineState.READY)
    cluster.resolves = False
    assert await say(engine)
    cluster.resolves = True
    cluster.listed.clear()
    looked = len(cluster.looked)
    await eventually(lambda: len(cluster.looked) > looked + 2, 10, "it looked again")
    assert await say(engine), "an empty answer is no reason to leave"


async def test_replicas_outlive_a_gateway_and_serve_the_next(cluster: FakeCluster) -> None:
    await cluster.add(scripted())
    for _ in range(2):
        engine = cluster.engine()
        await engine.start()
        await state(engine, EngineState.READY)
        assert await say(engine)
        await engine.aclose()
        assert engine.state is EngineState.STOPPED


async def test_a_replica_of_another_authority_is_not_believed(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = ReplicaAuthority(tmp_path / "other")
    behind = scripted()
    await cluster.add(behind, files=other.files(REPLICA_NAME))
    await refused(cluster.engine(), Reason.IDENTITY_UNTRUSTED)


async def test_a_replica_of_another_name_is_not_believed(cluster: FakeCluster) -> None:
    """Not even one that holds a gateway's certificate: it cannot pass for a replica."""
    await cluster.add(scripted(), files=cluster.authority.files(GATEWAY_NAME, "stolen"))
    await refused(cluster.engine(), Reason.IDENTITY_UNTRUSTED)


async def test_an_expired_replica_is_not_believed(cluster: FakeCluster) -> None:
    await cluster.add(scripted(), files=cluster.authority.files(REPLICA_NAME, days=-1))
    await refused(cluster.engine(), Reason.IDENTITY_UNTRUSTED)


async def test_a_gateway_of_another_authority_is_not_let_in(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = ReplicaAuthority(tmp_path / "other").files(GATEWAY_NAME)
    own = cluster.authority.files(GATEWAY_NAME)
    await cluster.add(scripted())
    await refused(cluster.engine(TlsFiles(own.ca, stranger.certificate, stranger.key)), Reason.UNREACHABLE)


async def test_a_gateway_of_another_name_is_not_let_in(cluster: FakeCluster) -> None:
    await cluster.add(scripted())
    await refused(cluster.engine(cluster.authority.files(REPLICA_NAME)), Reason.IDENTITY_NOT_ALLOWED)


async def test_no_call_is_open_to_another_name(cluster: FakeCluster) -> None:
    behind = scripted()
    target = await cluster.add(behind)
    ca, certificate, key = cluster.authority.files(REPLICA_NAME, "another").read()
    options = [("grpc.ssl_target_name_override", REPLICA_NAME)]
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    async with grpc.aio.secure_channel(target, credentials, options) as channel:
        stub = engine_pb2_grpc.EngineStub(channel)
        for call in (
            stub.Describe(engine_pb2.DescribeRequest()),
            stub.Embed(engine_pb2.EmbedRequest(texts=["x"])),
            stub.Session().read(),  # a caller that still writes is told so by gRPC, and not why it ended
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert cluster.replicas[target].sessions == 0


@pytest.mark.parametrize("how", ["plain text", "no certificate"])
async def test_nobody_comes_in_without_a_certificate(cluster: FakeCluster, how: str) -> None:
    target = await cluster.add(scripted())
    options = [("grpc.ssl_target_name_override", REPLICA_NAME)]
    if how == "plain text":
        channel = grpc.aio.insecure_channel(target)
    else:
        ca, _, _ = cluster.authority.files(GATEWAY_NAME).read()
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca), options)
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await engine_pb2_grpc.EngineStub(channel).Describe(engine_pb2.DescribeRequest(), timeout=10)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_nothing_below_tls_1_3_is_spoken(cluster: FakeCluster) -> None:
    target = await cluster.add(scripted())
    files = cluster.authority.files(GATEWAY_NAME)
    port = int(target.rpartition(":")[2])

    async def version(most: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.certificate, files.key)
        context.set_alpn_protocols(["h2"])
        context.maximum_version = most
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=REPLICA_NAME
        )
        spoken: str | None = writer.get_extra_info("ssl_object").version()
        writer.close()
        return spoken

    assert await version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await version(ssl.TLSVersion.TLSv1_2)


async def test_another_model_is_not_used(cluster: FakeCluster) -> None:
    await cluster.add(scripted(name="another"))
    await refused(cluster.engine(), Reason.MODEL_UNKNOWN)


async def test_another_digest_is_not_used(cluster: FakeCluster) -> None:
    behind = scripted()
    await cluster.add(behind)
    await refused(cluster.engine(model_digest=f"sha256:{'0' * 64}"), Reason.MODEL_DIGEST_MISMATCH)
    pinned = cluster.engine(model_digest=behind.models[0].digest)
    await pinned.start()
    await state(pinned, EngineState.READY)
    await pinned.aclose()


async def test_a_renewed_certificate_is_shown_to_the_next(
    cluster: FakeCluster, engine: SharedClusterEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that cannot be read does not take away the one before."""
    files = cluster.authority.files(REPLICA_NAME)
    target = await cluster.add(scripted(), files=files)
    await state(engine, EngineState.READY)
    cluster.authority.files(REPLICA_NAME, days=7300)
    renewed = await end_of_certificate(cluster, target)
    assert renewed - datetime.now(UTC) > timedelta(days=7000)
    spoil(files.key, b"no key")
    with caplog.at_level(logging.WARNING):
        assert await end_of_certificate(cluster, target) == renewed
    assert "the certificate of before is kept" in caplog.text
    assert "no key" not in caplog.text
    assert await say(engine)


def spoil(path: str, content: bytes | None) -> None:
    if content is None:
        Path(path).unlink()
    else:
        Path(path).write_bytes(content)


async def end_of_certificate(cluster: FakeCluster, target: str) -> datetime:
    """When what the replica shows now ends."""
    files = cluster.authority.files(GATEWAY_NAME, "looking")
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = target.removeprefix("ipv4:").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=REPLICA_NAME)
    shown = writer.get_extra_info("peercert")
    writer.close()
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)


async def test_several_replicas_of_one_machine_take_the_next_ports(cluster: FakeCluster) -> None:
    port = free_port()
    await cluster.add(scripted(), port=port, ports=1)
    with pytest.raises(MeshError) as refusal:
        await cluster.add(scripted(), port=port, ports=1)
    assert refusal.value.reason is Reason.CONFIG_INVALID
    assert "no port is free" in refusal.value.message


async def test_names_are_looked_up() -> None:
    assert "ipv4:127.0.0.1:7450" in await look_up("localhost:7450")
    assert await look_up("[::1]:7450") == {"ipv6:[::1]:7450"}
    with pytest.raises(socket.gaierror):
        await look_up("nobody.invalid:1")


def test_a_network_is_what_it_says_or_refused() -> None:
    values = {"ca": "ca.crt", "certificate": "tls.crt", "key": "tls.key"}
    network = ReplicaNetwork.of(values)
    assert (network.host, network.port, network.ports) == ("0.0.0.0", 7450, 1)
    assert ReplicaNetwork.of(json.loads(network.to_json())) == network
    for wrong in (
        None,
        {},
        {name: value for name, value in values.items() if name != "key"},
        values | {"key": ""},
        values | {"port": 0},
        values | {"port": "7450"},
        values | {"port": 65535, "ports": 2},
        values | {"plaintext": True},
    ):
        with pytest.raises(MeshError) as refusal:
            ReplicaNetwork.of(wrong)
        assert refusal.value.reason is Reason.CONFIG_INVALID


def rsa_key() -> bytes:
    plain = serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


WRONG_KEYS = {
    "missing": lambda: None,
    "not PEM": lambda: b"secret words",
    "RSA": rsa_key,
    "too long": lambda: b"-----BEGIN " + b"x" * (1 << 19),
}


@pytest.mark.parametrize("wrong", WRONG_KEYS)
async def test_files_that_do_not_hold_stop_the_start(cluster: FakeCluster, wrong: str) -> None:
    files = cluster.authority.files(GATEWAY_NAME)
    spoil(files.key, WRONG_KEYS[wrong]())
    with pytest.raises(MeshError) as refusal:
        await cluster.engine(files).start()
    assert refusal.value.reason is Reason.CONFIG_INVALID
    assert files.key in refusal.value.message
    assert "secret" not in refusal.value.message
