"""TLS peers that are not gRPC: Python's own (OpenSSL), and a tap between two ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.identity.svid import Svid

X25519MLKEM768 = 0x11EC
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
# Room for no byte of any stream: SETTINGS_INITIAL_WINDOW_SIZE (4) is 0.
NO_ROOM_SETTINGS = b"\0\0\6\4\0\0\0\0\0" + struct.pack(">HI", 4, 0)


def context_of(directory: Path, svid: Svid | None, *, server: bool = False) -> ssl.SSLContext:
    """An OpenSSL context that presents the SVID and believes anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if svid is not None:
        pair = directory / f"{svid.serial}.pem"
        pair.write_bytes(svid.key_pem + svid.chain_pem)
        context.load_cert_chain(pair)
    return context


def connect(
    address: str,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    settings: bytes = EMPTY_SETTINGS,
) -> ssl.SSLSocket:
    """Handshakes and waits for the server's first HTTP/2 frame; raises ssl.SSLError or OSError.

    With TLS 1.3 only that frame shows that the server accepted the client's certificate.
    """
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=5)
    try:
        tls = context.wrap_socket(plain, session=session)
    except BaseException:
        plain.close()
        raise
    try:
        tls.sendall(PREFACE + settings)
        if not tls.recv(9):
            raise ssl.SSLEOFError("closed before the first frame")
    except BaseException:
        tls.close()
        raise
    return tls


def unary_request(path: str, message: bytes = b"", stream: int = 1) -> bytes:
    """HTTP/2 frames of a gRPC call with a message of at most 16 KiB, its headers uncompressed.

    Streams that a client opens on one connection have odd, rising numbers.
    """
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in fields.items()
    )
    body = b"\0" + struct.pack(">I", len(message)) + message
    return _frame(1, 0x4, block, stream) + _frame(0, 0x1, body, stream)


def _frame(kind: int, flags: int, payload: bytes, stream: int) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Tap:
    """What the two ends said first, in plaintext: ClientHello and ServerHello."""

    def __init__(self) -> None:
        self.address = ""
        self.from_client = b""
        self.from_server = b""

    @property
    def chosen_group(self) -> int:
        """The key exchange group that the ServerHello chose."""
        return next(
            int.from_bytes(body[:2], "big") for kind, body in _extensions(self.from_server) if kind == 51
        )

    @property
    def offered_groups(self) -> list[int]:
        """The groups that the ClientHello brought key shares for, in order."""
        (body,) = (body for kind, body in _extensions(self.from_client) if kind == 51)
        groups, rest = [], body[2:]
        while rest:
            group, length = struct.unpack(">HH", rest[:4])
            groups.append(group)
            rest = rest[4 + length :]
        return groups


def _extensions(stream: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each extension in the hello that a TLS stream begins with (RFC 8446, section 4)."""
    hello = b""
    while stream and stream[0] == 22:  # handshake records
        length = int.from_bytes(stream[3:5], "big")
        hello += stream[5 : 5 + length]
        stream = stream[5 + length :]
    is_client = hello[0] == 1
    at = 4 + 2 + 32
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big") if is_client else 2  # cipher suites
    at += 1 + hello[at] if is_client else 1  # compression
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = []
    while at < end:
        kind, length = struct.unpack(">HH", hello[at : at + 4])
        found.append((kind, hello[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


@asynccontextmanager
async def tap(upstream: str) -> AsyncIterator[Tap]:
    """Forwards loopback connections to `upstream`, and keeps what passes."""
    seen = Tap()
    tasks: set[asyncio.Task[None]] = set()
    host, _, port = upstream.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if to_server:
                    seen.from_client += data
                else:
                    seen.from_server += data
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        tasks.add(asyncio.create_task(forward(reader, up_writer, to_server=True)))
        tasks.add(asyncio.create_task(forward(up_reader, writer, to_server=False)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    seen.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
