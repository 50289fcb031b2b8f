"""Three authorities with a node process each, which hold a third of the same documents; their clients.

Real throughout: `python -m node.daemon` with mutual TLS, etcd, policies of examples/policies, permits,
evidence on disk, the default embedder and store. Only the engine is scripted: searching needs none.
Budgets are out of the way. Every document is public, in four release groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import retrieval_data
from bench.bench_gateway import cpu_s
from mesh.client import MeshClient
from mesh.core.questions import SearchResult
from mesh.core.types import RequestContext
from mesh.sdk.placers import Server
from mesh.sdk.questions import collect_search
from mesh.store.etcd_server import EtcdServer
from node.engine.process_family import children_of
from tests.support.mesh import Mesh
from tests.support.node_process import NodeProcess, end, mesh_on_etcd, plan

COUNTRIES = ("DE", "FR", "US")
_HOUR_S = 3600.0
_DEADLINE_S = 60.0
_TENDED_S = 20.0  # by then a node has begun with it
_OPTIMIZES = b"optimize()"
ASKED = RequestContext.of(["public"], "benchmark")
_SETTINGS: Mapping[str, object] = {
    "retrieval": {
        "embedder_directory": str(retrieval_data.EMBEDDER),
        "budgets": {"searches_per_minute": 1_000_000},
    },
    "log": {"format": "json", "level": "warning"},
}


@dataclass
class Holder:
    """A node process with an index, and a client of the same authority that asks it."""

    country: str
    process: NodeProcess
    client: MeshClient

    def new_client(self) -> MeshClient:
        """A client that is not connected yet."""
        server = Server(self.process.id, self.process.endpoint)
        return MeshClient(self.process.mesh[self.country].caller("bench").source, [server])

    @property
    def cpu_s(self) -> float:
        """CPU that the process has used."""
        return cpu_s(self.process.process.pid)

    async def search(self, query: str, collection: str, *, alone: bool = False) -> SearchResult:
        """Hybrid, k = 10, references; `alone`: only this node is asked, since the client allows no other."""
        context = ASKED
        if alone:
            context = RequestContext.of(["public"], "benchmark", allowed_jurisdictions=[self.country])
        return await collect_search(self.client.search(query, collection, context=context))

    async def timed(self, query: str, collection: str, *, alone: bool = False, holders: int = 1) -> float:
        """Seconds; the result must be whole."""
        began = time.perf_counter()
        result = await self.search(query, collection, alone=alone)
        took = time.perf_counter() - began
        answered = sum(each.outcome.name == "ANSWERED" for each in result.coverage)
        if answered != holders or len(result.hits) != 10:
            raise RuntimeError(f"expected {holders} nodes and 10 hits, not {answered} and {len(result.hits)}")
        return took


async def plan_holder(mesh: Mesh, etcd: EtcdServer, folder: Path, country: str, name: str) -> NodeProcess:
    """A node with the settings of these benchmarks, not started yet."""
    return await plan(mesh, etcd, folder, country, name, _SETTINGS)


@contextlib.asynccontextmanager
async def started(
    mesh: Mesh, etcd: EtcdServer, folder: Path, country: str, name: str, index: Path
) -> AsyncIterator[Holder]:
    """A node with a copy of an index; ended afterwards."""
    node = await plan_holder(mesh, etcd, folder, country, name)
    await asyncio.to_thread(shutil.copytree, index, node.directory / "state" / "retrieval")
    node.start()
    try:
        await node.ready()
        server = Server(node.id, node.endpoint)
        async with MeshClient(mesh[country].caller("bench").source, [server]) as client:
            yield Holder(country, node, client)
    finally:
        end(node)


@contextlib.asynccontextmanager
async def three_holders(folder: Path, indexes: Mapping[str, Path]) -> AsyncIterator[list[Holder]]:
    """All three, and every one of them knows that all hold the collection."""
    async with contextlib.AsyncExitStack() as stack:
        mesh, etcd = await stack.enter_async_context(mesh_on_etcd(folder, *COUNTRIES))
        for authority in mesh.authorities.values():
            authority.max_age_s = _HOUR_S  # nobody signs anew while this runs
            for collection in ("manuals", "whole"):
                await authority.publish_collection(await retrieval_data.spec(collection))
        holders = [
            await stack.enter_async_context(
                started(mesh, etcd, folder, country, f"{country.lower()}-1", indexes[name])
            )
            for country, name in zip(COUNTRIES, retrieval_data.SHARDS, strict=True)
        ]
        for holder in holders:
            await until_whole(holder, "manuals", len(holders))
        await asyncio.gather(*(_until_settled(holder) for holder in holders))
        yield holders


async def _until_settled(holder: Holder) -> None:
    """A node looks once after its start whether its store can be optimized; that takes a copy and CPU."""
    began, seen = time.monotonic(), False
    while time.monotonic() - began < (_DEADLINE_S if seen else _TENDED_S):
        children = children_of(holder.process.process.pid)
        busy = any(_OPTIMIZES in _command_of(child) for child in children)
        if seen and not busy:
            return
        seen = seen or busy
        await asyncio.sleep(0.1)


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def until_whole(holder: Holder, collection: str, count: int) -> None:
    """Until so many nodes answer."""
    async with asyncio.timeout(_DEADLINE_S):
        while True:
            with contextlib.suppress(Exception):
                result = await holder.search("list open files", collection)
                if sum(each.outcome.name == "ANSWERED" for each in result.coverage) == count:
                    return
            await asyncio.sleep(0.05)
