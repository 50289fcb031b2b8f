"""A gRPC server as every daemon of the mesh runs it: mutual TLS, limits, health, reflection.

All that a stranger or a careless peer can exhaust is bounded here: connections, handshakes under way,
streams a connection, message size, idle time, age of a connection (so that an old certificate does not
live on in an open connection). What is served on it, and to whom, is the servicers' business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from mesh.core.errors import MeshError, Reason
from mesh.identity.tls import SERVER_OPTIONS
from mesh.rpc.boundary import ErrorBoundary
from mesh.rpc.observed import ObservedCalls
from mesh.telemetry.base import CallObserver

# The largest request of any service (inference.proto: 1 MiB as a whole).
MAX_REQUEST_BYTES = 1024 * 1024
# Above the limit that servicers check, so that what is a little too large is refused with a reason
# instead of by the transport.
_TRANSPORT_SLACK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one server. Times in seconds."""

    max_request_bytes: int = MAX_REQUEST_BYTES
    max_connections: int = 4096
    # A caller that opens more at once on a new connection, before it learns of this, has those refused.
    max_streams_per_connection: int = 1024
    handshake_timeout_s: float = 10.0
    idle_connection_s: float = 900.0
    # A connection's certificate is checked at its handshake; an hour bounds how old that may be. Calls
    # under way get the grace to finish.
    max_connection_age_s: float = 3600.0
    max_connection_age_grace_s: float = 1800.0

    def options(self) -> list[tuple[str, int | str]]:
        """As gRPC channel arguments, on top of those that mesh/identity/tls.py sets for every server."""
        own = {
            "grpc.max_receive_message_length": self.max_request_bytes + _TRANSPORT_SLACK_BYTES,
            # Answers are made here and not by strangers: Embed's may be 256 texts x 4,096 floats.
            "grpc.max_send_message_length": 16 * 1024 * 1024,
            "grpc.max_allowed_incoming_connections": self.max_connections,
            "grpc.max_concurrent_streams": self.max_streams_per_connection,
            "grpc.max_metadata_size": 8 * 1024,
            "grpc.server_handshake_timeout_ms": round(self.handshake_timeout_s * 1000),
            "grpc.max_connection_idle_ms": round(self.idle_connection_s * 1000),
            "grpc.max_connection_age_ms": round(self.max_connection_age_s * 1000),
            "grpc.max_connection_age_grace_ms": round(self.max_connection_age_grace_s * 1000),
        }
        return list({**dict(SERVER_OPTIONS), **own}.items())


class MeshServer:
    """One listening server. Add services, start, stop.

    `credentials` come from mesh/identity; without them nothing listens. `new_id` numbers incidents. The
    `observer` is told of every call.
    """

    def __init__(
        self,
        credentials: grpc.ServerCredentials,
        *,
        new_id: Callable[[], str],
        limits: ServerLimits | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        self._credentials = credentials
        self._health = HealthServicer()
        self._services: list[str] = []
        self.ports: list[int] = []
        bounds = limits or ServerLimits()
        self.grpc = grpc.aio.server(
            interceptors=_interceptors(new_id, bounds.max_request_bytes, observer), options=bounds.options()
        )

    def add(self, register: Callable[[Any, Any], None], servicer: object, name: str) -> None:
        """Adds a servicer under its full service name, such as "sovereign.mesh.v1.Placement"."""
        register(servicer, _GenericOnly(self.grpc))
        self._services.append(name)

    def listen(self, addresses: Sequence[str]) -> list[int]:
        """Binds host:port addresses (port 0: any) and returns the ports; CONFIG_INVALID if taken."""
        for address in addresses:
            try:
                port = self.grpc.add_secure_port(address, self._credentials)
            except RuntimeError:
                port = 0
            if not port:
                raise MeshError(
                    Reason.CONFIG_INVALID, f"cannot listen on {address}: in use, or not this machine's"
                )
            self.ports.append(port)
        return self.ports

    async def start(self) -> None:
        """Starts to serve; every service is NOT_SERVING until `set_serving`."""
        register: Callable[[Any, Any], None] = health_pb2_grpc.add_HealthServicer_to_server
        register(self._health, _GenericOnly(self.grpc))
        names = (*self._services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self.grpc)
        await self.set_serving(False)
        await self.grpc.start()

    async def set_serving(self, serving: bool, services: Sequence[str] | None = None) -> None:
        """Sets the health of the named services; of all and of the server as a whole, if None."""
        state = health_pb2.HealthCheckResponse.ServingStatus
        for name in services if services is not None else ("", *self._services):
            await self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, gives the others `grace_s`, then cancels them."""
        await self.grpc.stop(grace_s)


def _interceptors(
    new_id: Callable[[], str], max_message_bytes: int, observer: CallObserver | None
) -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
    """Outermost first."""
    if observer is None:
        return [ErrorBoundary(new_id, max_message_bytes)]
    boundary = ErrorBoundary(
        new_id, max_message_bytes, lambda method, reason: observer.serving(method).refused(reason)
    )
    return [ObservedCalls(observer, time.monotonic), boundary]


class _GenericOnly:
    """Registers generic handlers only.

    For each pre-registered method, grpc.aio keeps one more pending future and looks through all of them
    on every call; the generic path has one.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        pass
