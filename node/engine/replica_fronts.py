"""Where a replica serves, and who is told: its own machine's gateway, or one across a network.

- LocalFront: a Unix socket, and a line to the host, which tells the gateway. It is wanted as long as the
  host is there.
- NetworkFront: a port with mutual TLS (replica_network). Gateways find it by asking; it is wanted as
  long as its Serve actor lives, which ends it by ending its parent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from node.engine.host_paths import HostPaths
from node.engine.replica_network import ReplicaNetwork, serve
from node.engine.spec import EngineSpec

if TYPE_CHECKING:
    from node.engine.ray_vllm_serving import EngineService

_LOG = logging.getLogger("node.engine.replica_fronts")


class LocalFront:
    """See the module. Make one with `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: Path) -> None:
        self._reader, self._writer, self._socket = reader, writer, socket

    @classmethod
    async def connect(cls, paths: HostPaths, name: str) -> LocalFront:
        """Opens the line to the host. Raises OSError if there is none."""
        reader, writer = await asyncio.open_unix_connection(str(paths.socket))
        return cls(reader, writer, paths.replica_socket(name))

    async def failed(self, what: str) -> None:
        """Tells why the engine does not start."""
        self._say({"failure": what})
        await self._writer.drain()

    async def open(
        self, service: EngineService, engine: Any, spec: EngineSpec, described: dict[str, Any]
    ) -> grpc.aio.Server:
        """Serves, and tells the host."""
        from node.engine.ray_vllm_engine import serve_locally

        server = await serve_locally(service, engine, spec, self._socket)
        self._say({"replica": {"socket": str(self._socket), **described}})
        return server

    async def unwanted(self) -> None:
        """Returns when the host is gone."""
        await self._reader.read()

    def close(self) -> None:
        """The gateway learns that this replica is no more."""
        self._writer.close()
        self._socket.unlink(missing_ok=True)

    def _say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


class NetworkFront:
    """See the module."""

    def __init__(self, network: ReplicaNetwork) -> None:
        self._network = network

    async def failed(self, what: str) -> None:
        """There is nobody to tell but the log, which Ray keeps."""
        _LOG.error("%s", what)

    async def open(
        self, service: EngineService, engine: Any, spec: EngineSpec, described: dict[str, Any]
    ) -> grpc.aio.Server:
        """Serves. Raises CONFIG_INVALID if the certificate's files do not hold or no port is free."""
        del described["pid"]
        described["name"] = f"{socket.gethostname()}-{described['name']}"[-128:]
        server, port = await serve(service, described, self._network)
        _LOG.info("serves on port %d", port)
        return server

    async def unwanted(self) -> None:
        """Never by itself."""
        await asyncio.Event().wait()

    def close(self) -> None:
        """Gateways notice by their sessions."""
