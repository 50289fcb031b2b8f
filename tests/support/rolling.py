"""A site of nodes that are restarted one after the other while a caller keeps streams going.

    async with site_of(folder, 3) as site:
        async with site.load(streams=16) as load:
            for node in site.nodes:
                await site.restart(node)
                await load.until_served_by(node)
        assert load.failed == []

The nodes are mesh-node processes of one authority on a real etcd, with an engine of a given pace; the caller
is the SDK. Tests and the benchmark use the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from mesh.client import (
    FailedOver,
    Finished,
    MeshClient,
    MeshError,
    Mode,
    RequestContext,
    Sampling,
    Token,
)
from tests.support.control import client_of
from tests.support.mesh import Mesh
from tests.support.node_process import NodeProcess, end, mesh_on_etcd, plan
from tests.support.waiting import until

PUBLIC = RequestContext.of(["public"], "press/leaflet")
PER_TOKEN_S = 0.02
SHORTEST, LONGEST = 10, 60  # tokens
DEADLINE_S = 60.0


@dataclass
class Load:
    """What became of the calls. `failed` holds a line for each that failed or said something else than it
    would have undisturbed; `longest_wait_s` is the longest that a caller waited for the next token."""

    finished: int = 0
    longest_wait_s: float = 0.0
    failed: list[str] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)

    async def until_served_by(self, node: NodeProcess) -> None:
        """Waits until it has served one more."""
        before = self.served[node.id.name]
        await until(lambda: self.served[node.id.name] > before, DEADLINE_S)


class Site:
    """Nodes of one authority, as processes."""

    def __init__(self, mesh: Mesh, nodes: list[NodeProcess]) -> None:
        self.mesh = mesh
        self.nodes = nodes

    def start(self, node: NodeProcess) -> None:
        node.start(
            sys.executable, "-m", "bench.gateway_node", "--config", str(node.config),
            "--per-token-s", str(PER_TOKEN_S),
        )  # fmt: skip

    async def restart(self, node: NodeProcess, *, kill: bool = False) -> None:
        """SIGTERM, or a kill; when it has ended, starts it again; returns when it takes requests."""
        node.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            assert await node.ended() == (-signal.SIGKILL if kill else 0)
            board = node.mesh["DE"].board
            await board.wait_for(lambda _: node.id not in board.statuses, DEADLINE_S)
            self.start(node)
            await node.ready()

    @contextlib.asynccontextmanager
    async def load(self, *, streams: int, longest: int = LONGEST) -> AsyncIterator[Load]:
        """Keeps that many streams going, of 10 to `longest` tokens each, until the block has ended; the ones
        under way then come to their end."""
        load, done, lengths = Load(), asyncio.Event(), random.Random(1)
        async with client_of(self.mesh, "DE/firm/desk") as client:
            whole = await _words(client, longest, Load())

            async def keep_asking() -> None:
                while not done.is_set():
                    tokens = lengths.randint(SHORTEST, longest)
                    try:
                        said = await _words(client, tokens, load)
                    except MeshError as error:
                        load.failed.append(str(error))
                    else:
                        load.finished += 1
                        if said != whole[:tokens]:
                            load.failed.append(f"{len(said)} tokens of {tokens}, or others than undisturbed")

            asking = [asyncio.create_task(keep_asking()) for _ in range(streams)]
            try:
                await until(lambda: load.finished >= streams, DEADLINE_S)
                yield load
                done.set()
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(*asking)
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)


async def _words(client: MeshClient, tokens: int, load: Load) -> list[str]:
    """The tokens of one answer, as the caller has them in the end."""
    said: list[str] = []
    sampling, since = Sampling(max_tokens=tokens, ignore_eos=True), time.monotonic()
    async for event in client.chat("scripted", "hello", context=PUBLIC, sampling=sampling):
        if isinstance(event, Token):
            said.append(event.text)
            since, before = time.monotonic(), since
            load.longest_wait_s = max(load.longest_wait_s, since - before)
        elif isinstance(event, FailedOver):
            load.moved[f"{event.reason.code} {event.mode}"] += 1
            if event.mode is Mode.RESTARTED:
                said.clear()
        elif isinstance(event, Finished):
            load.served[event.node.name] += 1
    return said


@contextlib.asynccontextmanager
async def site_of(folder: Path, count: int, *, grace_s: float = 30.0) -> AsyncIterator[Site]:
    """So many nodes, ready, on an etcd of their own; all are ended and awaited afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        mesh, etcd = await stack.enter_async_context(mesh_on_etcd(folder, "DE"))
        settings = {"serving": {"drain_grace_s": grace_s}, "retrieval": {"enabled": False}}
        site = Site(mesh, [])
        for number in range(1, count + 1):
            node = await plan(mesh, etcd, folder, "DE", f"fra-{number}", settings)
            site.nodes.append(node)
            site.start(node)
            stack.callback(end, node)
        for node in site.nodes:
            await node.ready()
        yield site
