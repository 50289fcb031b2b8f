"""How a replica of a shared Ray cluster is reached: over TCP, with mutual TLS 1.3 and nothing less.

Prompts and answers cross a network that others use, so both ends show a certificate of one authority
that exists for this alone, and each lets in only the other's name: whoever has the authority's
certificate for a replica cannot pass for a gateway. Files are read anew for every connection, so a
renewed certificate needs no restart. Keys are ECDSA: with an RSA key gRPC would still speak TLS 1.2
(mesh/identity/tls13.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import MeshError, Reason
from mesh.identity.keys import key_from_pem
from mesh.identity.tls import SERVER_OPTIONS, channel_options, require_tls13
from node.engine.replica_session import MAX_MESSAGE_BYTES
from node.engine.replica_state import to_message
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc

REPLICA_NAME = "replica.engine.sovereign-mesh.internal"
GATEWAY_NAME = "gateway.engine.sovereign-mesh.internal"

_LOG = logging.getLogger("node.engine.replica_network")
_MOST_PEM_BYTES = 256 * 1024
_MOST_CONNECTIONS = 64  # gateways are few: this bounds what strangers can hold open
_SIZES = {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The authority that both ends trust, and one end's certificate and key: PEM files."""

    ca: str
    certificate: str
    key: str

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Authority, certificate, key. Raises CONFIG_INVALID, which names the file."""
        ca, certificate, key = (_read(path) for path in (self.ca, self.certificate, self.key))
        try:
            key_from_pem(key)
        except MeshError as error:
            raise MeshError(Reason.CONFIG_INVALID, f"{self.key}: {error.message}") from None
        return ca, certificate, key


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            found = file.read(_MOST_PEM_BYTES + 1)
    except OSError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: {error.strerror}") from None
    if len(found) > _MOST_PEM_BYTES or b"-----BEGIN " not in found:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: expected PEM")
    return found


@dataclass(frozen=True, slots=True)
class ReplicaNetwork:
    """Where a replica listens, as what, and for whom.

    Several replicas of one machine (or pod) take `port`, `port` + 1 and so on: `ports` at most.
    """

    ca: str
    certificate: str
    key: str
    host: str = "0.0.0.0"  # noqa: S104 (who may come in is what the certificates are for)
    port: int = 7450
    ports: int = 1
    gateway_name: str = GATEWAY_NAME

    def __post_init__(self) -> None:
        texts = (self.ca, self.certificate, self.key, self.host, self.gateway_name)
        if not all(isinstance(text, str) and text for text in texts):
            raise MeshError(Reason.CONFIG_INVALID, "network: ca, certificate and key are needed")
        numbers = (self.port, self.ports)
        if not all(isinstance(number, int) and number >= 1 for number in numbers) or sum(numbers) > 65536:
            raise MeshError(Reason.CONFIG_INVALID, "network: expected ports from 1 to 65535")

    @property
    def files(self) -> TlsFiles:
        """Of this end."""
        return TlsFiles(self.ca, self.certificate, self.key)

    def to_json(self) -> str:
        """One line, sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, values: Any) -> ReplicaNetwork:
        """From parsed JSON or YAML. Raises CONFIG_INVALID for what is missing, unknown or of another type."""
        if not isinstance(values, Mapping):
            raise MeshError(Reason.CONFIG_INVALID, "network: expected a mapping")
        try:
            return cls(**values)
        except TypeError as error:
            raise MeshError(Reason.CONFIG_INVALID, f"network: {error}") from None


class GatewayOnly(engine_pb2_grpc.EngineServicer):
    """Stands before a replica's service: lets in who is named `gateway_name`, and says what is served."""

    def __init__(
        self, inner: engine_pb2_grpc.EngineServicer, gateway_name: str, described: dict[str, Any]
    ) -> None:
        self._inner, self._name = inner, gateway_name.encode()
        self._described = to_message(described)

    async def Session(self, request_iterator: Any, context: Any) -> None:
        """As the service."""
        await self._require_gateway(context)
        await self._inner.Session(request_iterator, context)

    async def Embed(self, request: engine_pb2.EmbedRequest, context: Any) -> engine_pb2.EmbedResponse:
        """As the service."""
        await self._require_gateway(context)
        return await self._inner.Embed(request, context)

    async def Describe(
        self, request: engine_pb2.DescribeRequest, context: Any
    ) -> engine_pb2.DescribeResponse:
        """What this replica serves."""
        await self._require_gateway(context)
        return self._described

    async def _require_gateway(self, context: Any) -> None:
        if self._name not in context.auth_context().get("x509_subject_alternative_name", ()):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, Reason.IDENTITY_NOT_ALLOWED.code)


async def serve(
    service: engine_pb2_grpc.EngineServicer, described: dict[str, Any], network: ReplicaNetwork
) -> tuple[grpc.aio.Server, int]:
    """Serves on the first free one of the network's ports, which is returned.

    Raises CONFIG_INVALID if the files do not hold or no port is free.
    """
    require_tls13()
    options = {
        **dict(SERVER_OPTIONS),
        **_SIZES,
        "grpc.max_allowed_incoming_connections": _MOST_CONNECTIONS,
    }
    server = grpc.aio.server(options=list(options.items()))
    engine_pb2_grpc.add_EngineServicer_to_server(
        GatewayOnly(service, network.gateway_name, described), server
    )
    files = _Files(network.files)
    fetcher: Any = files  # None, no change, may be answered; grpc's annotation leaves that out
    credentials = grpc.dynamic_ssl_server_credentials(files.first, fetcher, True)
    for port in range(network.port, network.port + network.ports):
        try:
            server.add_secure_port(f"{network.host}:{port}", credentials)
        except RuntimeError:
            continue
        await server.start()
        return server, port
    raise MeshError(Reason.CONFIG_INVALID, f"no port is free on {network.host} from {network.port} on")


class _Files:
    """Answers gRPC's question, before each handshake, whether the files changed since the last."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._held = files.read()

    @property
    def first(self) -> grpc.ServerCertificateConfiguration:
        ca, certificate, key = self._held
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            found = self._files.read()
        except MeshError as error:
            _LOG.warning("the certificate of before is kept: %s", error)
            return None
        if found == self._held:
            return None
        self._held = found
        return self.first


def dial(target: str, files: TlsFiles, replica_name: str) -> grpc.aio.Channel:
    """A channel to a replica that must prove to be `replica_name`. Raises CONFIG_INVALID."""
    require_tls13()
    ca, certificate, key = files.read()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    options = {**dict(channel_options(replica_name)), **_SIZES}
    return grpc.aio.secure_channel(target, credentials, list(options.items()))
