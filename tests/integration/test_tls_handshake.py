"""Who gets through a real handshake, and who does not, in both directions."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from mesh.core.errors import MeshError, Reason
from mesh.identity.keys import key_from_pem
from mesh.identity.leaf import chain_from_pem
from mesh.identity.peer import Peer
from mesh.identity.source import SvidSource
from mesh.identity.svid import Svid
from mesh.identity.tls import (
    channel_credentials,
    channel_options,
    enrolment_channel_credentials,
    enrolment_server_credentials,
)
from tests.support.echo import EchoServer, ask, ask_as, echo_server, who_am_i
from tests.support.identities import AuthorityForTests

DE, US, FR = "de.mesh.example", "us.mesh.example", "fr.mesh.example"
FRA_1 = f"fra-1.node.{DE}"
URI = x509.UniformResourceIdentifier
FRA_1_ID = f"spiffe://{DE}/node/fra-1"


class Mesh:
    """Three authorities; DE and US accept each other, FR is unknown to both."""

    def __init__(self, directory: Path) -> None:
        self.de, self.us, self.fr = (AuthorityForTests(directory, td) for td in (DE, US, FR))

    def source(self, authority: AuthorityForTests, path: str, svid: Svid | None = None) -> SvidSource:
        others = [a.bundle for a in (self.de, self.us) if a is not authority]
        return authority.source(path, others, svid=svid)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


async def refused(
    source: SvidSource, server: EchoServer, dns_name: str = FRA_1, trust_domain: str = DE
) -> str:
    """The handshake fails and no call reaches the server; returns what the caller is told."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(source, server.address, trust_domain, dns_name)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.seen.empty()
    return str(caught.value.details())


async def test_callers_of_both_domains_are_known_by_name(mesh: Mesh) -> None:
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        for authority, path in (
            (mesh.de, "/client/clinic-a"),
            (mesh.us, "/client/acme/app"),
            (mesh.us, "/node/iad-1"),
        ):
            source = mesh.source(authority, path)
            assert await ask(source, server.address, DE, FRA_1) == f"spiffe://{authority.trust_domain}{path}"
            peer = server.seen.get_nowait()
            assert peer == Peer(source.id, source.svid.serial, source.svid.not_after)


async def test_us_cannot_call_in_the_name_of_a_german_node(mesh: Mesh) -> None:
    """I5, story step 6: the US authority forges, with its own root key, a certificate for the DE node."""
    forged = mesh.us.forged_svid(FRA_1_ID, FRA_1)
    async with echo_server(mesh.source(mesh.de, "/node/ber-1")) as server:
        await refused(mesh.source(mesh.de, "/node/fra-1", forged), server, f"ber-1.node.{DE}")
        # nor with its own DNS name and only the SPIFFE id of another, or the other way round
        for spiffe_id, dns_name in ((FRA_1_ID, f"iad-1.node.{US}"), (f"spiffe://{US}/node/iad-1", FRA_1)):
            chain, key = mesh.us.forge([x509.DNSName(dns_name), x509.UniformResourceIdentifier(spiffe_id)])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask_as(chain, key, mesh.de.bundle.roots[0], server.address, f"ber-1.node.{DE}")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert server.seen.empty()


async def test_us_cannot_serve_in_the_name_of_a_german_node(mesh: Mesh) -> None:
    forged = mesh.us.forged_svid(FRA_1_ID, FRA_1)
    async with echo_server(mesh.source(mesh.de, "/node/fra-1", forged)) as server:
        caller = mesh.source(mesh.de, "/client/clinic-a")
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(caller, server)
        # even for a caller that would trust the US root for this
        assert "permitted subtree violation" in await refused(caller, server, FRA_1, US)


@pytest.mark.parametrize("shift_s", [-7200, 7200], ids=["expired", "not yet valid"])
async def test_out_of_time(mesh: Mesh, shift_s: float) -> None:
    svid = mesh.de.svid("/node/fra-1", now=time.time() + shift_s)
    async with echo_server(mesh.source(mesh.de, "/node/ber-1")) as server:
        await refused(mesh.source(mesh.de, "/node/fra-1", svid), server, f"ber-1.node.{DE}")
    async with echo_server(mesh.source(mesh.de, "/node/fra-1", svid)) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(mesh.source(mesh.de, "/client/clinic-a"), server)


async def test_an_unknown_authority(mesh: Mesh) -> None:
    fr = mesh.fr.source("/client/firm", [mesh.de.bundle])
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        await refused(fr, server)
    async with echo_server(mesh.fr.source("/node/par-1", [mesh.de.bundle])) as server:
        caller = mesh.source(mesh.de, "/client/clinic-a")
        await refused(caller, server, f"par-1.node.{FR}", DE)
        with pytest.raises(MeshError, match=r"fr\.mesh\.example") as caught:
            channel_credentials(caller, FR)
        assert caught.value.reason is Reason.IDENTITY_UNTRUSTED


async def test_the_right_authority_and_the_wrong_name(mesh: Mesh) -> None:
    async with echo_server(mesh.source(mesh.de, "/node/fra-2")) as server:
        caller = mesh.source(mesh.de, "/client/clinic-a")
        await refused(caller, server, FRA_1)
        assert await ask(caller, server.address, DE, f"fra-2.node.{DE}") == str(caller.id)


async def test_an_authority_of_the_same_name_is_another_authority(mesh: Mesh, tmp_path: Path) -> None:
    impostor = AuthorityForTests(tmp_path / "impostor", DE)
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        await refused(impostor.source("/client/clinic-a", svid=None), server)
        caller = impostor.svid("/client/clinic-a")
        await refused(mesh.source(mesh.de, "/client/clinic-a", caller), server)


async def test_the_record_signing_certificate_is_no_tls_identity(mesh: Mesh) -> None:
    chain = chain_from_pem((mesh.de.directory / "authority.pem").read_bytes())
    key = key_from_pem((mesh.de.directory / "authority.key").read_bytes())
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask_as(chain, key, mesh.de.bundle.roots[0], server.address, FRA_1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.seen.empty()


@pytest.mark.parametrize(
    "names",
    [[], [x509.DNSName(f"x.{US}")], [URI(f"spiffe://{US}/node/a"), URI(f"spiffe://{US}/node/b")]],
    ids=len,
)
async def test_a_certificate_that_names_nobody_is_nobody(mesh: Mesh, names: list[x509.GeneralName]) -> None:
    """What has no name violates no constraint, and the handshake succeeds: peer_of must refuse it."""
    chain, key = mesh.us.forge(names)
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask_as(chain, key, mesh.de.bundle.roots[0], server.address, FRA_1)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        refusal = server.seen.get_nowait()
        assert isinstance(refusal, MeshError)
        assert refusal.reason is Reason.IDENTITY_MALFORMED


async def test_without_a_certificate_only_the_enrolment_port_answers(mesh: Mesh) -> None:
    source = mesh.source(mesh.de, "/control/main")
    name = f"main.control.{DE}"
    credentials = enrolment_channel_credentials(mesh.de.bundle)
    async with echo_server(source) as server:
        async with grpc.aio.secure_channel(server.address, credentials, channel_options(name)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who_am_i(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.seen.empty()
    async with echo_server(source, enrolment_server_credentials(source)) as server:
        async with grpc.aio.secure_channel(server.address, credentials, channel_options(name)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who_am_i(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # reached, and seen as nobody
        # a control plane of another authority is not taken for ours
        wrong = enrolment_channel_credentials(mesh.us.bundle)
        async with grpc.aio.secure_channel(server.address, wrong, channel_options(name)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who_am_i(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 70000,
    ],
    ids=["silence", "plaintext HTTP/2", "HTTP/1", "garbage"],
)
async def test_peers_that_speak_no_tls_harm_nobody(mesh: Mesh, words: bytes) -> None:
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(words)
            caller = mesh.source(mesh.de, "/client/clinic-a")
            assert await ask(caller, server.address, DE, FRA_1) == str(caller.id)
            if words:
                async with asyncio.timeout(5):
                    answer = await reader.read(64)
                assert answer == b"" or answer[:1] == b"\x15"  # closed, perhaps after a TLS alert
        except ConnectionResetError:
            pass
        finally:
            writer.close()


async def test_a_plaintext_gRPC_caller_is_not_served(mesh: Mesh) -> None:
    async with echo_server(mesh.source(mesh.de, "/node/fra-1")) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who_am_i(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.seen.empty()
