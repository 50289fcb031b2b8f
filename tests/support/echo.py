"""A small real gRPC server over TLS: says who called, and streams as long as asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from mesh.core.errors import MeshError
from mesh.identity.keys import PrivateKey, key_to_pem
from mesh.identity.leaf import chain_to_pem
from mesh.identity.peer import Peer, peer_of
from mesh.identity.source import SvidSource
from mesh.identity.tls import SERVER_OPTIONS, channel_options, dial, server_credentials

WHO = "/test.Echo/Who"
STREAM = "/test.Echo/Stream"


class EchoServer:
    """`address` is where it listens; `seen` gets each caller of Who, or why it was refused."""

    def __init__(self, source: SvidSource) -> None:
        self.source = source
        self.address = ""
        self.now = time.time
        self.seen: asyncio.Queue[Peer | MeshError] = asyncio.Queue()
        self.steps: asyncio.Queue[bytes] = asyncio.Queue()

    async def _who(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            peer = peer_of(context, self.source.bundles, self.now())
        except MeshError as error:
            self.seen.put_nowait(error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise
        self.seen.put_nowait(peer)
        return str(peer.id).encode()

    async def _stream(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        while (step := await self.steps.get()) != b"end":
            yield step

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == WHO:
            return grpc.unary_unary_rpc_method_handler(self._who)
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return None


@asynccontextmanager
async def echo_server(
    source: SvidSource, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[EchoServer]:
    """Runs an echo server on a loopback port for as long as the context lasts."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    echo = EchoServer(source)
    server.add_generic_rpc_handlers((echo,))
    port = server.add_secure_port("127.0.0.1:0", credentials or server_credentials(source))
    echo.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield echo
    finally:
        await server.stop(None)


async def who_am_i(channel: grpc.aio.Channel, timeout: float = 5.0) -> str:
    """The SPIFFE id under which the server sees this channel; raises grpc.aio.AioRpcError."""
    return (await channel.unary_unary(WHO)(b"", timeout=timeout)).decode()


async def ask(source: SvidSource, address: str, trust_domain: str, dns_name: str) -> str:
    """who_am_i over a connection of its own."""
    async with dial(source, address, trust_domain, dns_name) as channel:
        return await who_am_i(channel)


async def ask_as(
    chain: tuple[bytes, ...], key: PrivateKey, server_root: bytes, address: str, dns_name: str
) -> str:
    """Like ask, with whatever certificate (DER): nothing of ours looks at it before it is sent."""
    credentials = grpc.ssl_channel_credentials(
        chain_to_pem((server_root,)), key_to_pem(key), chain_to_pem(chain)
    )
    async with grpc.aio.secure_channel(address, credentials, channel_options(dns_name)) as channel:
        return await who_am_i(channel)
