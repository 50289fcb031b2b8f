"""An OpenTelemetry collector that remembers what it was sent: OTLP's TraceService over gRPC, on loopback.

    async with collector() as there:
        tracing = there.tracing(SpiffeId("de.mesh.example", "/node/fra-1"))
        ...
        await there.flushed()
        assert [span.name for span in there.spans] == [...]

`received` are the bytes of every request as they came over the wire, so that a test can say what was not
in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from mesh.core.types import SpiffeId
from mesh.settings import TraceSettings
from mesh.telemetry.tracing import Tracing, open_tracing

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
# A busy machine may take its time for what is a matter of milliseconds.
_FLUSH_S = 30.0


@dataclass(frozen=True)
class Seen:
    """One span as it arrived. Ids are hexadecimal; `instance` is the process that sent it."""

    name: str
    trace: str
    id: str
    parent: str
    instance: str
    kind: int
    status: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    began: int
    ended: int


@dataclass
class Collector:
    """A running one. `refuses` makes it answer UNAVAILABLE."""

    endpoint: str = ""
    ca: Path | None = None
    received: list[bytes] = field(default_factory=list)
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    refuses: bool = False
    _tracings: list[Tracing] = field(default_factory=list)

    def tracing(self, identity: SpiffeId, *, ratio: float = 1.0) -> Tracing:
        """Spans of this process to here."""
        service = f"mesh-{identity.kind}"
        settings = TraceSettings(endpoint=self.endpoint, ca=self.ca, sample_ratio=ratio)
        tracing = open_tracing(settings, identity, service, "1.2.3")
        self._tracings.append(tracing)
        return tracing

    async def sent(self) -> None:
        """What has been recorded so far has arrived."""
        for tracing in self._tracings:
            sending: Any = getattr(tracing, "_sending", None)
            await asyncio.to_thread(sending.processor.force_flush)

    async def flushed(self) -> None:
        """Ends every tracing made here; what they held has arrived."""
        for tracing in self._tracings:
            await tracing.aclose(_FLUSH_S)
        self._tracings.clear()

    @property
    def spans(self) -> list[Seen]:
        """All spans, in the order of their beginning."""
        found = []
        for data in self.received:
            for process in ExportTraceServiceRequest.FromString(data).resource_spans:
                instance = _values(process.resource.attributes).get("service.instance.id", "")
                for scope in process.scope_spans:
                    found += [_seen(span, instance) for span in scope.spans]
        return sorted(found, key=lambda span: span.began)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def path(self, span: Seen) -> list[str]:
        """The names from the root of its trace down to it, as far as they arrived."""
        by_id = {each.id: each for each in self.spans if each.trace == span.trace}
        names = [span.name]
        while (parent := by_id.get(span.parent)) is not None:
            span = parent
            names.insert(0, span.name)
        return names

    async def _export(self, data: bytes, context: Any) -> bytes:
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.received.append(data)
        self.metadata += list(context.invocation_metadata() or ())
        return ExportTraceServiceResponse().SerializeToString()


@contextlib.asynccontextmanager
async def collector(
    credentials: grpc.ServerCredentials | None = None, ca: Path | None = None
) -> AsyncIterator[Collector]:
    """Listens on loopback; with TLS if there are credentials, whose authority is in the file `ca`."""
    there = Collector(ca=ca)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(there._export)  # bytes, as they are
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    there.endpoint = f"localhost:{port}" if credentials is not None else f"127.0.0.1:{port}"
    await server.start()
    try:
        yield there
    finally:
        await there.flushed()
        await server.stop(0)


def tls_identity(folder: Path) -> tuple[Path, grpc.ServerCredentials]:
    """A CA in a file, and a certificate under it for localhost."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "collector")]
    made = []
    for index in (0, 1):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(index + 1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=index == 0, path_length=None), critical=True)
        )
        if index:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
            )
        made.append(builder.sign(keys[0], hashes.SHA256()))
    pem = [each.public_bytes(serialization.Encoding.PEM) for each in made]
    (folder / "ca.pem").write_bytes(pem[0])
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return folder / "ca.pem", grpc.ssl_server_credentials([(key, pem[1])])


def _seen(span: Any, instance: str) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        instance,
        span.kind,
        span.status.code,
        _values(span.attributes),
        tuple((event.name, _values(event.attributes)) for event in span.events),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
