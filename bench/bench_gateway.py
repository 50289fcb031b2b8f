"""What the gateway adds and costs: time to first token, CPU per request, requests/s, rest.

    python -m bench.bench_gateway [--quick] [--json FILE]

One mesh-node process with etcd, mutual TLS, policies, permits and a decision log on disk, in front of the
scripted engine; the load comes from this process. Rounds through the gateway alternate with rounds that
call the same engine directly, in this process, so that both see the same machine. CPU is what the kernel
charges the node's process (utime + stime of all threads).
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bench.report import Row, command, percentile
from mesh.identity.source import SvidSource
from node.engine.base import Message, Prompt, Sampling
from node.engine.scripted import Script, ScriptedEngine
from sovereign.mesh.v1 import inference_pb2
from tests.support.mesh import Caller, context
from tests.support.node_process import NodeProcess, node_process

STREAMS = 16
PER_TOKEN_S = 0.02
ASKED = context(["special-category"])
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> tuple[float, float]:
    """(RSS, PSS) in MB: PSS shares what libraries are mapped by several processes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return sizes["Rss"] * 1024 / 1e6, sizes["Pss"] * 1024 / 1e6


class Load:
    """Requests of one caller to one node, with permits signed beforehand."""

    def __init__(self, node: NodeProcess) -> None:
        authority = node.mesh["DE"]
        self.node: Any = node
        self.caller: Caller = authority.caller("clinic")
        self._placer: SvidSource = authority.identity.source("/control/bench")
        self._stub = self.caller.inference(self.node)

    def requests(
        self, count: int, max_tokens: int, model: str = "scripted"
    ) -> list[inference_pb2.ChatRequest]:
        """That many, each with a permit of its own; they hold for a minute."""
        return [
            self.caller.chat_request(
                ASKED,
                self.caller.permit(self.node, ASKED, by=self._placer, model=model),
                model=model,
                max_tokens=max_tokens,
                ignore_eos=True,
            )
            for _ in range(count)
        ]

    async def first_token_s(self, request: inference_pb2.ChatRequest) -> float:
        """Sends one and reads it to the end; seconds until the first text."""
        began, first = time.perf_counter(), 0.0
        async for event in self._stub.Chat(request):
            if not first and event.WhichOneof("event") == "delta":
                first = time.perf_counter() - began
        return first

    async def place(self) -> float:
        began = time.perf_counter()
        await self.caller.place(ASKED, at=self.node)
        return time.perf_counter() - began


async def direct_first_token_s(engine: ScriptedEngine, max_tokens: int) -> float:
    """The same, without anything in between."""
    began, first = time.perf_counter(), 0.0
    prompt = Prompt(messages=(Message("user", "hello"),))
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    async with aclosing(engine.generate("scripted", prompt, sampling)) as pieces:
        async for _ in pieces:
            first = first or time.perf_counter() - began
    return first


async def at_once(work: list[Callable[[], Awaitable[float]]], streams: int = STREAMS) -> list[float]:
    """Does the work, `streams` at a time; what each piece of it returned."""
    queue, found = iter(work), []

    async def worker() -> None:
        for each in queue:
            found.append(await each())

    await asyncio.gather(*(worker() for _ in range(streams)))
    return found


async def first_token_rows(node: NodeProcess, rounds: int) -> list[Row]:
    """16 streams at 50 tokens/s each: of varied length, as life has them, and 16 at the same instant."""
    load = Load(node)
    engine = ScriptedEngine(capacity=64, script=Script(per_token_s=PER_TOKEN_S))
    await engine.start()
    through: list[float] = []
    direct: list[float] = []
    bursts: list[float] = []
    await at_once([lambda r=r: load.first_token_s(r) for r in load.requests(STREAMS, 2)])  # connect
    lengths = random.Random(1)
    for _ in range(rounds):
        sizes = [lengths.randint(8, 24) for _ in range(6 * STREAMS)]
        direct += await at_once([lambda n=n: direct_first_token_s(engine, n) for n in sizes])
        requests = [load.requests(1, size)[0] for size in sizes]
        through += (await at_once([lambda r=r: load.first_token_s(r) for r in requests]))[STREAMS:]
        bursts += await at_once([lambda r=r: load.first_token_s(r) for r in load.requests(STREAMS, 2)])
    own = percentile(direct, 0.5)
    return [
        Row("added time to first token, p50", 1e3 * (percentile(through, 0.5) - own), "ms", 3.0, 1e3 * own),
        Row("added time to first token, p99", 1e3 * (percentile(through, 0.99) - own), "ms"),
        Row("the same, 16 at the same instant, p50", 1e3 * (percentile(bursts, 0.5) - own), "ms"),
    ]


async def request_rows(node: NodeProcess, rounds: int) -> list[Row]:
    """Requests of one token, 16 at a time, as fast as they go."""
    load, engine, count = Load(node), ScriptedEngine(capacity=64), 400
    await engine.start()
    await at_once([lambda r=r: load.first_token_s(r) for r in load.requests(200, 1)])  # warm up
    cost, rate, direct = [], [], []
    for _ in range(rounds):
        before = time.process_time()
        await at_once([lambda: direct_first_token_s(engine, 1) for _ in range(count)])
        direct.append((time.process_time() - before) / count)
        requests = load.requests(count, 1)
        used, began = cpu_s(node.process.pid), time.perf_counter()
        await at_once([lambda r=r: load.first_token_s(r) for r in requests])
        rate.append(count / (time.perf_counter() - began))
        cost.append((cpu_s(node.process.pid) - used) / count)
    places, used = 100 * rounds, cpu_s(node.process.pid)
    latency = await at_once([load.place for _ in range(places)], 1)
    place_cost = (cpu_s(node.process.pid) - used) / places
    return [
        Row(
            "node's CPU per request of one token",
            1e3 * statistics.mean(cost),
            "ms",
            1.5,
            1e3 * statistics.mean(direct),
        ),
        Row("requests/s of one node process, one caller process", statistics.median(rate), "1/s"),
        Row("node's CPU per placement", 1e3 * place_cost, "ms"),
        Row("placement, one at a time, p50", 1e3 * percentile(latency, 0.5), "ms"),
    ]


async def rest_rows(node: NodeProcess, seconds: float) -> list[Row]:
    """The daemon with nothing to do but its heartbeat and the authority's heads, one a second."""
    authority = node.mesh["DE"]
    await asyncio.sleep(2)
    used, began = cpu_s(node.process.pid), time.perf_counter()
    while time.perf_counter() - began < seconds:
        await authority.sign_heads()
        await asyncio.sleep(1)
    share = (cpu_s(node.process.pid) - used) / (time.perf_counter() - began)
    rss, pss = resident_mb(node.process.pid)
    return [
        Row("memory at rest (RSS)", rss, "MB", 120),
        Row("memory at rest (PSS)", pss, "MB"),
        Row("CPU at rest", 100 * share, "% of a core", 2),
    ]


async def measure(quick: bool) -> list[Row]:
    """Every row; about a minute, or a few seconds if `quick`."""
    rounds = 2 if quick else 10
    paced = (
        sys.executable,
        "-m",
        "bench.gateway_node",
        "--config",
        "{config}",
        "--per-token-s",
        str(PER_TOKEN_S),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with node_process(Path(folder) / "rest") as node:
            rest = await rest_rows(node, 3 if quick else 15)
        async with node_process(Path(folder) / "load", *paced) as node:
            first = await first_token_rows(node, rounds)
            requests = await request_rows(node, rounds)
    return [*first, *requests, *rest]


if __name__ == "__main__":
    sys.exit(command(__doc__, lambda quick: asyncio.run(measure(quick))))
