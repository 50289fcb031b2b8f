"""The same mesh as separate processes on a real etcd, so that nodes can be killed and crash.

    python -m tests.support.leaks.processes --record FILE --config FILE

is `mesh-node` with the tap around it (tap.py), which writes what it records as it goes, and with parrot and
scripted embedder in place of models. A fatal signal makes Python write its stacks to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

import mesh  # noqa: F401  (before grpc)
import node.daemon
from mesh.client import MeshClient
from mesh.core.types import SpiffeId
from mesh.ports import free_ports
from mesh.sdk.placers import Server
from mesh.store.etcd import EtcdStore
from node.engine.scripted import ScriptedEngine
from node.index.embedding import ScriptedEmbedder
from node.index.library import Library
from node.index.stores import StoreSettings
from tests.support.etcd import fast_server
from tests.support.leaks.arena import EMBEDDER, NAMES, collection_spec, files_outside_the_store, fill, tell
from tests.support.leaks.judge import Finding, Judge
from tests.support.leaks.parrot import parrot
from tests.support.leaks.rules import COUNTRIES, starting_rules
from tests.support.leaks.tap import Flow, tapped
from tests.support.leaks.world import COLLECTION, DIMENSIONS, TENANTS, Document, make_documents
from tests.support.mesh import Mesh, mesh_of
from tests.support.scraping import scrape

START_S = 40.0


def main() -> int:
    """One node."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    record = os.open(arguments.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sink(flow: Flow) -> None:
        line = {**dataclasses.asdict(flow), "data": base64.b64encode(flow.data).decode()}
        os.write(record, json.dumps(line).encode() + b"\n")

    def make_engine(*_: Any) -> ScriptedEngine:
        engine = ScriptedEngine()
        parrot(engine, 1)
        return engine

    parts: Any = node.daemon
    parts.LocalEmbedder = lambda *_: ScriptedEmbedder(DIMENSIONS)
    parts.make_engine = make_engine
    sys.argv = ["mesh-node", "--config", str(arguments.config)]
    with tapped(sink):
        return node.daemon.main()


@dataclasses.dataclass
class Process:
    """One node, and everything that it left behind."""

    id: SpiffeId
    endpoint: str
    folder: Path
    metrics_port: int
    pages: list[bytes] = dataclasses.field(default_factory=list)
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        record, config = (
            self.folder.parent / f"{self.folder.name}-{self.starts}.flows",
            self.folder / "node.yaml",
        )
        words = ["-m", "tests.support.leaks.processes", "--record", str(record), "--config", str(config)]
        (self.folder / "tmp").mkdir(exist_ok=True)
        with (self.folder / "stderr.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[3],
                env={**os.environ, "TMPDIR": str(self.folder / "tmp")},
            )

    async def end(self, number: int) -> int:
        """Looks at its metrics if it is still there, sends the signal and waits for the end."""
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(ConnectionError):  # a signal that it had before may end it meanwhile
                self.pages.append((await scrape(self.metrics_port)).text.encode())
        self.process.send_signal(number)
        async with asyncio.timeout(START_S):
            return await asyncio.to_thread(self.process.wait)

    def flows(self) -> list[list[Flow]]:
        """What each of its lives recorded."""
        return [_read(path) for path in sorted(self.folder.parent.glob(f"{self.folder.name}-*.flows"))]


def _read(path: Path) -> list[Flow]:
    # The last line of a process that was killed may be torn.
    lines = path.read_bytes().split(b"\n")[:-1]
    return [Flow(**{**(one := json.loads(line)), "data": base64.b64decode(one["data"])}) for line in lines]


@dataclasses.dataclass
class Processes:
    """All of them, with clients."""

    mesh: Mesh
    judge: Judge
    documents: list[Document]
    nodes: dict[str, Process]
    clients: dict[str, MeshClient]

    async def ready(self) -> None:
        """Waits until the board has all as ready, with their collections."""
        board, ids = self.mesh["DE"].board, [each.id for each in self.nodes.values()]
        await board.wait_for(
            lambda snapshot: all(
                id in snapshot.candidates
                and snapshot.candidates[id].record.collections
                and id in board.statuses
                and board.statuses[id].ready
                for id in ids
            ),
            START_S,
        )

    async def restarted(self, country: str) -> None:
        """Waits until a node that was started again serves, and has opened its index."""
        id, board = self.nodes[country].id, self.mesh[country].board
        began = board.statuses[id].reported_at if id in board.statuses else 0.0
        await board.wait_for(
            lambda snapshot: (
                id in board.statuses
                and board.statuses[id].ready
                and board.statuses[id].reported_at > began
                and bool(snapshot.candidates[id].record.collections)
            ),
            START_S,
        )

    def findings(self) -> list[Finding]:
        """Everything that should not be there."""
        found: list[Finding] = []
        for each in self.nodes.values():
            for flows in each.flows():
                found += self.judge.flows(flows)
            for page in each.pages:
                found += self.judge.text("metrics", page)
            for path in files_outside_the_store(each.folder):
                found += self.judge.text(f"file {path.name}", path.read_bytes())
        return found


@contextlib.asynccontextmanager
async def processes(directory: Path, seed: int) -> AsyncIterator[Processes]:
    """Three nodes, ready."""
    rules, documents = starting_rules(), make_documents(seed)
    judge = Judge(documents, [{country: (each,) for country, each in rules.items()}], DIMENSIONS)
    async with contextlib.AsyncExitStack() as stack:
        etcd = fast_server(directory / "etcd")
        await stack.enter_async_context(etcd)
        stores: list[EtcdStore] = []

        def new_store() -> EtcdStore:
            stores.append(EtcdStore([etcd.endpoint]))
            return stores[-1]

        policies = {country: each.cedar() for country, each in rules.items()}
        made = mesh_of(directory / "authorities", *COUNTRIES, policies=policies, new_store=new_store)
        mesh = await stack.enter_async_context(made)
        for store in stores:
            stack.push_async_callback(store.aclose)
        it = Processes(mesh, judge, documents, {}, {})
        spec = await collection_spec()
        for country, name in NAMES.items():
            authority, folder = mesh[country], directory / name
            folder.mkdir()
            await authority.publish_collection(spec)
            await authority.state_facts(name)
            authority.identity.source(f"/node/{name}", directory=folder / "identity").save()
            own = [each for each in documents if each.holder == country]
            indexes = folder / "state" / "retrieval" / "indexes"
            memory = StoreSettings(kind="memory")
            library = Library(indexes, lambda: {COLLECTION: spec}, EMBEDDER, memory, time.time)
            try:
                await fill(await library.create(COLLECTION), own)
            finally:
                library.close()
            await tell(judge, own, (indexes / "secret").read_bytes())
            port, metrics_port = free_ports(2)
            endpoint = f"127.0.0.1:{port}"
            settings = {
                "listen": [endpoint],
                "state_directory": "state",
                "identity": {"directory": "identity"},
                "board": {"endpoints": [etcd.endpoint]},
                "engine": {"kind": "scripted"},
                "log": {"format": "json", "level": "debug"},
                "status": {"lease_s": 2.0, "heartbeat_s": 0.5},
                "retrieval": {"store": {"kind": "memory"}},
                "telemetry": {"listen": f"127.0.0.1:{metrics_port}"},
            }
            (folder / "node.yaml").write_text(yaml.safe_dump(settings))
            process = it.nodes[country] = Process(
                authority.id(f"/node/{name}"), endpoint, folder, metrics_port
            )
            stack.callback(_kill, process)
            process.start()
        await it.ready()
        for country, process in it.nodes.items():
            client = MeshClient(
                mesh[country].caller(f"{TENANTS[0]}/desk").source, [Server(process.id, process.endpoint)]
            )
            it.clients[country] = await stack.enter_async_context(client)
        yield it


def _kill(process: Process) -> None:
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait(START_S)


if __name__ == "__main__":
    sys.exit(main())
