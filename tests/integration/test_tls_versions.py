"""TLS 1.3 and nothing below, on both sides; and a key exchange that a quantum computer does not open."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from mesh.identity import tls13
from mesh.identity.board_certificate import make_board_certificate
from mesh.identity.tls import channel_options
from tests.support.echo import ask, echo_server, who_am_i
from tests.support.identities import AuthorityForTests
from tests.support.raw_tls import X25519MLKEM768, connect, context_of, tap

DE = "de.mesh.example"
FRA_1 = f"fra-1.node.{DE}"


@pytest.fixture
def de(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, DE)


def capped(context: ssl.SSLContext, highest: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = highest
    return context


async def test_a_server_refuses_tls_1_2(de: AuthorityForTests, tmp_path: Path) -> None:
    async with echo_server(de.source("/node/fra-1")) as server:
        client = de.svid("/client/clinic-a")
        context = capped(context_of(tmp_path, client), ssl.TLSVersion.TLSv1_3)
        with await asyncio.to_thread(connect, server.address, context) as connection:
            assert connection.version() == "TLSv1.3"
        context = capped(context_of(tmp_path, client), ssl.TLSVersion.TLSv1_2)
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(connect, server.address, context)


@pytest.mark.parametrize(
    ("highest", "completes"), [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, False)]
)
async def test_a_client_refuses_tls_1_2(
    de: AuthorityForTests, tmp_path: Path, highest: ssl.TLSVersion, completes: bool
) -> None:
    shaken: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shaken.append(writer.get_extra_info("ssl_object").version())
        writer.close()

    context = capped(context_of(tmp_path, de.svid("/node/fra-1"), server=True), highest)
    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with listener:
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(de.source("/client/clinic-a"), address, DE, FRA_1)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (set(shaken) == {"TLSv1.3"}) if completes else (shaken == [])


@pytest.mark.slow
async def test_what_an_rsa_certificate_leaves_open(de: AuthorityForTests, tmp_path: Path) -> None:
    """TLS 1.2 reaches an old etcd, for who trusts its one certificate, and no member of the mesh."""
    certificate, key = make_board_certificate(FRA_1, time.time())
    (tmp_path / "board.pem").write_bytes(key + certificate)
    context = capped(context_of(tmp_path, None, server=True), ssl.TLSVersion.TLSv1_2)
    context.load_cert_chain(tmp_path / "board.pem")
    shaken: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shaken.append(writer.get_extra_info("ssl_object").version())
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with listener:
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(de.source("/client/clinic-a"), address, DE, FRA_1)
        assert shaken == []
        svid = de.svid("/node/fra-1")
        credentials = grpc.ssl_channel_credentials(certificate, svid.key_pem, svid.chain_pem)
        async with grpc.aio.secure_channel(address, credentials, channel_options(FRA_1)) as channel:
            with pytest.raises(grpc.aio.AioRpcError):  # it speaks TLS, and then no HTTP/2
                await who_am_i(channel)
        assert set(shaken) == {"TLSv1.2"}


async def test_the_key_exchange_is_post_quantum_hybrid(de: AuthorityForTests) -> None:
    async with echo_server(de.source("/node/fra-1")) as server, tap(server.address) as wire:
        await ask(de.source("/client/clinic-a"), wire.address, DE, FRA_1)
        assert X25519MLKEM768 in wire.offered_groups
        assert wire.chosen_group == X25519MLKEM768


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "environment", "outcome"),
    [
        ("mesh", {}, "in force"),
        ("node", {}, "in force"),
        ("control", {}, "in force"),
        ("mesh", {"GRPC_SSL_CIPHER_SUITES": "ECDHE-ECDSA-AES128-GCM-SHA256"}, "in force"),
        ("grpc", {}, "CONFIG_INVALID"),
        ("grpc", {"GRPC_SSL_CIPHER_SUITES": tls13.SUITES}, "in force"),
    ],
)
def test_grpc_imported_too_early_is_noticed(first: str, environment: dict[str, str], outcome: str) -> None:
    program = (
        f"import {first}\n"
        "from mesh.core.snapshot import TrustBundle\n"
        "from mesh.identity.tls import enrolment_channel_credentials\n"
        "try:\n"
        "    enrolment_channel_credentials(TrustBundle('de.mesh.example', ()))\n"
        "    print('in force')\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert outcome in run.stdout
