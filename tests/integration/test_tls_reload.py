"""Certificates and roots change under a running server: nobody notices, but for those who should."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.peer import Peer
from mesh.identity.source import SvidSource
from mesh.identity.tls import dial
from tests.support.echo import STREAM, WHO, ask, echo_server, who_am_i
from tests.support.identities import AuthorityForTests
from tests.support.raw_tls import connect, context_of, unary_request

DE, US = "de.mesh.example", "us.mesh.example"
FRA_1 = f"fra-1.node.{DE}"


@pytest.fixture
def de(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, DE)


@pytest.fixture
def us(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, US)


async def served_serial(address: str, directory: Path, source: SvidSource) -> str:
    """The serial number of the certificate that the server shows on a new connection."""
    connection = await asyncio.to_thread(connect, address, context_of(directory, source.svid))
    with connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return format(x509.load_der_x509_certificate(der).serial_number, "x")


async def test_a_renewed_server_drops_no_stream(de: AuthorityForTests, tmp_path: Path) -> None:
    source, caller = de.source("/node/fra-1"), de.source("/client/clinic-a")
    async with (
        asyncio.timeout(20),
        echo_server(source) as server,
        dial(caller, server.address, DE, FRA_1) as channel,
    ):
        stream = channel.unary_stream(STREAM)(b"")
        server.steps.put_nowait(b"before")
        assert await stream.read() == b"before"
        assert await served_serial(server.address, tmp_path, caller) == source.svid.serial
        for _ in range(3):
            source.rotate(de.svid("/node/fra-1"))
            assert await served_serial(server.address, tmp_path, caller) == source.svid.serial
            server.steps.put_nowait(b"after")
            assert await stream.read() == b"after"
        assert await who_am_i(channel) == str(caller.id)
        server.steps.put_nowait(b"end")
        assert await stream.read() is grpc.aio.EOF


async def test_a_renewed_caller_dials_as_its_new_self(de: AuthorityForTests) -> None:
    source, caller = de.source("/node/fra-1"), de.source("/client/clinic-a")
    async with echo_server(source) as server, dial(caller, server.address, DE, FRA_1) as old:
        await who_am_i(old)
        first = caller.svid.serial
        caller.rotate(de.svid("/client/clinic-a"))
        await who_am_i(old)
        async with dial(caller, server.address, DE, FRA_1) as new:
            await who_am_i(new)
        seen = [server.seen.get_nowait() for _ in range(3)]
        assert [p.serial for p in seen if isinstance(p, Peer)] == [first, first, caller.svid.serial]


async def test_a_new_root_is_accepted_and_a_dropped_one_cut_off(
    de: AuthorityForTests, us: AuthorityForTests
) -> None:
    source = de.source("/node/fra-1")
    caller = us.source("/client/acme", [de.bundle])
    async with echo_server(source) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ask(caller, server.address, DE, FRA_1)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

        source.set_bundles([de.bundle, us.bundle])
        async with dial(caller, server.address, DE, FRA_1) as channel:
            assert await who_am_i(channel) == str(caller.id)
            source.set_bundles([de.bundle])
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await who_am_i(channel)  # on the connection that was made before
            assert "IDENTITY_UNTRUSTED" in str(refusal.value.details())
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ask(caller, server.address, DE, FRA_1)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_successor_root_takes_over(de: AuthorityForTests, tmp_path: Path) -> None:
    successor = AuthorityForTests(tmp_path / "successor", DE)
    both = TrustBundle(DE, (*de.bundle.roots, *successor.bundle.roots), sequence=2)
    source, caller = de.source("/node/fra-1"), de.source("/client/clinic-a")
    async with echo_server(source) as server:
        for holder in (source, caller):
            holder.set_bundles([both])
        source.rotate(successor.svid("/node/fra-1"))
        assert await ask(caller, server.address, DE, FRA_1) == str(caller.id)
        caller.rotate(successor.svid("/client/clinic-a"))
        assert await ask(caller, server.address, DE, FRA_1) == str(caller.id)


async def test_a_certificate_that_ends_on_a_live_connection(de: AuthorityForTests) -> None:
    source, caller = de.source("/node/fra-1"), de.source("/client/clinic-a")
    async with echo_server(source) as server, dial(caller, server.address, DE, FRA_1) as channel:
        assert await who_am_i(channel) == str(caller.id)
        server.now = lambda: caller.svid.not_after + 1
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await who_am_i(channel)
        assert "IDENTITY_EXPIRED" in str(refusal.value.details())


@pytest.mark.slow
async def test_a_resumed_session_does_not_outlive_the_certificate(
    de: AuthorityForTests, tmp_path: Path
) -> None:
    """TLS 1.3 resumption skips the certificate, so its end must be looked at with each call."""
    source = de.source("/node/fra-1")
    svid = de.svid("/client/clinic-a", ttl_s=2)
    context = context_of(tmp_path, svid)
    async with echo_server(source) as server, asyncio.timeout(20):
        with await asyncio.to_thread(connect, server.address, context) as first:
            await asyncio.to_thread(first.sendall, unary_request(WHO))
            assert isinstance(await server.seen.get(), Peer)
            session = first.session
        # the stack has its own clock: the certificate has to end for real
        await asyncio.sleep(max(0.0, svid.not_after - time.time()) + 0.01)
        with await asyncio.to_thread(connect, server.address, context, session) as second:
            assert second.session_reused
            await asyncio.to_thread(second.sendall, unary_request(WHO))
            refusal = await server.seen.get()
        assert isinstance(refusal, MeshError)
        assert refusal.reason is Reason.IDENTITY_EXPIRED
