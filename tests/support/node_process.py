"""`mesh-node` as a process of its own, on a real etcd, for tests and benchmarks.

    async with node_process(tmp_path) as node:
        caller = node.mesh["DE"].caller("clinic")
        node.process.send_signal(signal.SIGTERM)

The authority is that of tests/support/mesh.py, on the same etcd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from mesh.core.types import SpiffeId
from mesh.evidence.offline import read_entries
from mesh.ports import free_ports
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdServer
from tests.support.etcd import fast_server
from tests.support.mesh import Mesh, mesh_of

START_S = 30.0


@dataclass
class NodeProcess:
    """A running daemon. It has what Caller needs of a node: id, endpoint."""

    mesh: Mesh
    etcd: EtcdServer
    id: SpiffeId
    endpoint: str
    directory: Path
    config: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, *command: str) -> None:
        """Starts it, with another command than `python -m node.daemon --config FILE` if one is given."""
        words = command or (sys.executable, "-m", "node.daemon", "--config", str(self.config))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def ready(self) -> None:
        """Waits until the board knows it as ready."""
        board = self.mesh[self.id.trust_domain].board
        async with asyncio.timeout(START_S):
            await board.wait_for(
                lambda snapshot: (
                    self.id in snapshot.candidates
                    and self.id in board.statuses
                    and board.statuses[self.id].ready
                ),
                START_S,
            )

    async def ended(self) -> int:
        """Waits for its end; its exit code."""
        async with asyncio.timeout(START_S):
            return await asyncio.to_thread(self.process.wait)

    @property
    def log(self) -> Path:
        return self.directory / "mesh-node.log"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in read_entries(self.directory / "state/evidence/decisions")]


async def plan(
    mesh: Mesh,
    etcd: EtcdServer,
    folder: Path,
    country: str,
    name: str,
    settings: Mapping[str, Any] | None = None,
) -> NodeProcess:
    """A node of one of the mesh's authorities, with identity, facts and configuration, not started yet."""
    authority = mesh[country]
    directory = folder / name
    directory.mkdir()
    authority.identity.source(f"/node/{name}", directory=directory / "identity").save()
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    config = directory / "mesh-node.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "listen": [endpoint],
                "state_directory": "state",
                "identity": {"directory": "identity"},
                "board": {"endpoints": [etcd.endpoint]},
                "engine": {"kind": "scripted"},
                "log": {"format": "json"},
                **(settings or {}),
            }
        )
    )
    node = NodeProcess(mesh, etcd, authority.id(f"/node/{name}"), endpoint, directory, config)
    # enough for Caller.permit and Caller.place, which ask the first node at home
    placer: Any = SimpleNamespace(id=node.id, endpoint=endpoint, runtime=None)
    authority.nodes[name] = placer
    await authority.state_facts(name)
    return node


def end(node: NodeProcess) -> None:
    """Kills it, if it has not ended yet."""
    if node.process.poll() is None:
        node.process.kill()
    node.process.wait(START_S)


@contextlib.asynccontextmanager
async def mesh_on_etcd(folder: Path, *countries: str) -> AsyncIterator[tuple[Mesh, EtcdServer]]:
    """Authorities on an etcd of their own, without nodes yet."""
    async with contextlib.AsyncExitStack() as stack:
        etcd = fast_server(folder / "etcd")
        await stack.enter_async_context(etcd)
        stores: list[EtcdStore] = []

        def new_store() -> EtcdStore:
            stores.append(EtcdStore([etcd.endpoint]))
            return stores[-1]

        mesh = await stack.enter_async_context(mesh_of(folder / "authority", *countries, new_store=new_store))
        for store in stores:
            stack.push_async_callback(store.aclose)
        yield mesh, etcd


@contextlib.asynccontextmanager
async def node_process(
    folder: Path, *command: str, name: str = "fra-1", settings: Mapping[str, Any] | None = None
) -> AsyncIterator[NodeProcess]:
    """One node of one authority, ready; everything is ended and awaited afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        mesh, etcd = await stack.enter_async_context(mesh_on_etcd(folder, "DE"))
        node = await plan(mesh, etcd, folder, "DE", name, settings)
        node.start(*(word.format(config=node.config) for word in command))
        stack.callback(end, node)
        await node.ready()
        yield node
