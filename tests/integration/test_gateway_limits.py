"""What a careless or hostile caller can use up, and what it cannot."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from node.config import ServingSettings
from node.engine.scripted import Script
from tests.support.mesh import DEADLINE_S, Caller, Mesh, Node, context, mesh_of
from tests.support.waiting import until

PUBLIC = context(["public"])
# Large tokens, so that buffers between the two are soon full.
LARGE = ("x" * 4000 + " ",)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE") as made:
        yield made


@pytest.mark.slow
async def test_overload_is_told_at_once_with_a_hint(mesh: Mesh):
    serving = ServingSettings(queue=2)
    node = await mesh["DE"].node("fra-1", capacity=2, serving=serving, script=Script(per_token_s=0.01))
    clinic = mesh["DE"].caller("clinic")
    running = [clinic.stream(node, PUBLIC) for _ in range(2)]
    for stream in running:
        await stream.until_token()
    waiting = [asyncio.create_task(clinic.chat(node, PUBLIC)) for _ in range(2)]
    await until(lambda: node.runtime.admission.queued == 2)
    permit = clinic.permit(node, PUBLIC)
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC, permit=permit)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    for stream in running:
        stream.cancel()
    assert all(await asyncio.gather(*waiting))
    # the refusal did not spend the permit
    assert await clinic.chat(node, PUBLIC, permit=permit)


@pytest.mark.slow
async def test_waiting_for_a_place_has_an_end(mesh: Mesh):
    serving = ServingSettings(queue=2, queue_timeout_s=0.1)
    node = await mesh["DE"].node("fra-1", capacity=1, serving=serving, script=Script(per_token_s=0.01))
    clinic = mesh["DE"].caller("clinic")
    running = clinic.stream(node, PUBLIC)
    await running.until_token()
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, PUBLIC)
    assert caught.value.reason is Reason.OVERLOADED
    running.cancel()


@pytest.mark.slow
async def test_a_caller_that_leaves_frees_the_engine(mesh: Mesh):
    node = await mesh["DE"].node("fra-1", script=Script(per_token_s=0.01))
    clinic = mesh["DE"].caller("clinic")
    stream = clinic.stream(node, PUBLIC)
    await stream.until_token()
    assert node.engine.active == 1
    stream.cancel()
    await until(lambda: node.engine.active == 0)
    await node.idle()
    assert node.engine.cancelled == 1


@pytest.mark.slow
async def test_a_deadline_frees_the_engine(mesh: Mesh):
    node = await mesh["DE"].node("fra-1", script=Script(per_token_s=0.01))
    clinic = mesh["DE"].caller("clinic")
    request = clinic.chat_request(PUBLIC, clinic.permit(node, PUBLIC), max_tokens=8192, ignore_eos=True)
    call = clinic.inference(node).Chat(request, timeout=0.2)
    assert (await call.code()).name == "DEADLINE_EXCEEDED"
    await until(lambda: node.engine.active == 0)
    await node.idle()


@pytest.mark.slow
async def test_a_caller_that_stops_reading_loses_its_call(mesh: Mesh):
    serving = ServingSettings(write_timeout_s=0.3)
    node = await mesh["DE"].node("fra-1", serving=serving, script=Script(words=LARGE))
    clinic = mesh["DE"].caller("clinic")
    stalled = clinic.stream(node, PUBLIC)
    await stalled.until_token()
    await until(lambda: node.engine.cancelled == 1)  # it reads no more, and the engine is free
    await node.idle()
    # others were not held up, and it is told once it looks again
    assert await mesh["DE"].caller("firm").chat(node, PUBLIC, max_tokens=2)
    assert (await stalled.ends_with()).reason is Reason.PEER_TOO_SLOW


@pytest.mark.slow
async def test_a_caller_that_sends_for_ever_is_held_up_not_served(mesh: Mesh):
    """Requests of 3 MiB, over and over on several connections: none is kept, others go on."""
    node = await mesh["DE"].node("fra-1")
    before = _resident_bytes()
    floods = [mesh["DE"].caller(f"flood-{number}") for number in range(2)]

    async def flood(caller: Caller) -> None:
        request = caller.chat_request(PUBLIC, caller.permit(node, PUBLIC), "y" * (3 * 1024 * 1024))
        for _ in range(20):
            with pytest.raises(MeshError) as caught:
                await caller.send(node, request)
            assert caught.value.reason is Reason.REQUEST_TOO_LARGE

    flooding = [asyncio.create_task(flood(caller)) for caller in floods]
    clinic = mesh["DE"].caller("clinic")
    for _ in range(10):
        assert await clinic.chat(node, PUBLIC, max_tokens=2)
    await asyncio.gather(*flooding)
    assert node.engine.seen == 10
    assert _resident_bytes() - before < 100 * 1024 * 1024


@pytest.mark.slow
async def test_a_connection_has_so_many_streams_and_no_more(mesh: Mesh):
    serving = ServingSettings(max_streams_per_connection=4)
    node = await mesh["DE"].node("fra-1", serving=serving, script=Script(per_token_s=0.005))
    clinic = mesh["DE"].caller("clinic")
    most = 0

    async def chat() -> bool:
        nonlocal most
        try:
            await clinic.chat(node, PUBLIC)
        except MeshError as error:
            if error.reason is not Reason.UNREACHABLE:  # refused by the transport, unread
                raise
            return False
        finally:
            most = max(most, len(node.runtime.live))
        return True

    assert any(await asyncio.gather(*(chat() for _ in range(12))))
    assert most <= 4


@pytest.mark.slow
async def test_a_thousand_idle_connections_do_not_matter(mesh: Mesh, tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    node = await mesh["DE"].node("fra-1")
    connections: list[ssl.SSLSocket] = []
    try:
        before = _resident_bytes()
        async with asyncio.timeout(60):
            await asyncio.to_thread(_connect_idly, mesh, node, tmp_path, 1000, connections)
        assert len(connections) == 1000
        clinic = mesh["DE"].caller("clinic")
        assert await clinic.chat(node, PUBLIC)
        # both ends are in this process
        assert _resident_bytes() - before < 300 * 1024 * 1024
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
async def test_one_connection_too_many_is_turned_away(mesh: Mesh, tmp_path: Path):
    node = await mesh["DE"].node("fra-1", serving=ServingSettings(max_connections=3))
    connections: list[ssl.SSLSocket] = []
    try:
        with pytest.raises(OSError, match=r"(?i)eof|reset|closed|timed out"):
            await asyncio.to_thread(_connect_idly, mesh, node, tmp_path, 8, connections)
        assert len(connections) <= 3
    finally:
        for connection in connections:
            connection.close()
    clinic = mesh["DE"].caller("clinic")

    async with asyncio.timeout(DEADLINE_S):
        while True:  # the node notices by and by that places have become free
            try:
                assert await clinic.chat(node, PUBLIC)
                break
            except MeshError as error:
                if error.reason is not Reason.UNREACHABLE:
                    raise


def _connect_idly(mesh: Mesh, node: Node, folder: Path, count: int, connections: list[ssl.SSLSocket]) -> None:
    """Opens mutual TLS connections that say hello in HTTP/2 and then nothing."""
    source = mesh["DE"].caller("idler").source
    chain, key = folder / "idle.pem", folder / "idle.key"
    chain.write_bytes(source.svid.chain_pem)
    key.write_bytes(source.svid.key_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_cert_chain(chain, key)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols(["h2"])
    host, _, port = node.endpoint.rpartition(":")
    for _ in range(count):
        raw = socket.create_connection((host, int(port)), timeout=10)
        try:
            connection = tls.wrap_socket(raw, server_hostname="fra-1.node.de.mesh.example")
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            if not connection.recv(9):  # the server's settings: it has taken the connection
                raise ConnectionResetError("closed")
        except OSError:
            raw.close()
            raise
        connections.append(connection)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
