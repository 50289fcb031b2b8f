"""What telling about itself costs a node: metrics and traces on, against off, in the same run.

    python -m bench.bench_telemetry [--quick] [--scripted] [--json FILE]

Node processes that differ in nothing but `telemetry`: off; on, as a configuration has it by default (metrics,
scraped every second, and one request in ten traced); and on with every request traced. Spans go to a
collector in this process, which counts their bytes and throws them away. Rounds alternate, in another order
each time, 16 callers at once: requests of one token, where the price of a request shows, and answers of 64
tokens. A figure is the median over the rounds of that round's ratio to off, so that what else the machine
does falls on both.

Then the same with vLLM and the tiny model, one engine behind all of the gateways: what a user has. The
scripted engine costs nothing, so with it the price is compared with the gateway alone. `--scripted`: only
that.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio

from bench.bench_gateway import STREAMS, Load, at_once
from bench.charged import cpu_s
from bench.report import Row, command, percentile
from mesh.ports import free_ports
from sovereign.mesh.v1 import inference_pb2
from tests.support.node_process import NodeProcess, end, mesh_on_etcd, plan
from tests.support.scraping import fetch

TOKENS = 64
SCRAPE_EVERY_S = 1.0
OFF, ON, TRACED = "off", "on", "every request traced"
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Collector:
    """An OpenTelemetry collector that keeps nothing."""

    def __init__(self) -> None:
        self.batches = 0
        self.bytes = 0
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))  # type: ignore[arg-type]
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Takes exports of spans, and nothing else."""
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == _EXPORT else None

    async def _export(self, request: bytes, context: Any) -> bytes:
        self.batches += 1
        self.bytes += len(request)
        return b""  # an ExportTraceServiceResponse without a complaint

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Collector]:
        await self._server.start()
        try:
            yield self
        finally:
            await self._server.stop(None)


@dataclass
class Variant:
    """One configuration, the node that has it, and what its rounds found."""

    name: str
    port: int  # of its metrics, 0 without
    node: NodeProcess
    load: Load
    rates: dict[int, list[float]] = field(default_factory=dict)  # by tokens a request
    cpu_s: dict[int, list[float]] = field(default_factory=dict)  # of a request
    took_s: dict[int, list[float]] = field(default_factory=dict)
    scrapes_s: list[float] = field(default_factory=list)

    async def round(self, count: int, tokens: int, model: str, counted: bool) -> None:
        requests = self.load.requests(count, tokens, model)
        used, began = cpu_s(self.node.process.pid), time.perf_counter()
        took = await at_once([partial(_timed, self.load, each) for each in requests])
        seconds = time.perf_counter() - began
        used = cpu_s(self.node.process.pid) - used
        if counted:
            self.rates.setdefault(tokens, []).append(count / seconds)
            self.cpu_s.setdefault(tokens, []).append(used / count)
            self.took_s.setdefault(tokens, []).extend(took)

    async def scraped(self) -> None:
        """Until cancelled, as Prometheus would, more often than most let it."""
        while True:
            began = time.perf_counter()
            await asyncio.to_thread(fetch, self.port, "/metrics", {"Accept-Encoding": "gzip"})
            self.scrapes_s.append(time.perf_counter() - began)
            await asyncio.sleep(SCRAPE_EVERY_S)


@dataclass(frozen=True)
class Work:
    """So many rounds of so many requests of so many tokens."""

    rounds: int
    requests: int
    tokens: int


async def _timed(load: Load, request: inference_pb2.ChatRequest) -> float:
    began = time.perf_counter()
    await load.first_token_s(request)
    return time.perf_counter() - began


def settings_of(name: str, port: int, collector: str) -> dict[str, Any]:
    """The `telemetry` group of a variant."""
    if name == OFF:
        return {}
    traces = {"endpoint": collector, **({"sample_ratio": 1.0} if name == TRACED else {})}
    return {"telemetry": {"listen": f"127.0.0.1:{port}", "traces": traces}}


@contextlib.asynccontextmanager
async def variants(folder: Path, collector: Collector) -> AsyncIterator[list[Variant]]:
    """A node for each, planned and not started, in one authority."""
    async with mesh_on_etcd(folder, "DE") as (mesh, etcd):
        found = []
        for number, name in enumerate((OFF, ON, TRACED)):
            (port,) = free_ports(1)
            own = settings_of(name, port, collector.endpoint)
            node = await plan(mesh, etcd, folder, "DE", f"fra-{number + 1}", own)
            found.append(Variant(name, 0 if name == OFF else port, node, Load(node)))
        try:
            yield found
        finally:
            for each in found:
                with contextlib.suppress(AttributeError):  # it was never started
                    end(each.node)


@contextlib.asynccontextmanager
async def scraping(found: list[Variant]) -> AsyncIterator[None]:
    """Every variant that has metrics is scraped meanwhile."""
    tasks = [asyncio.create_task(each.scraped()) for each in found if each.port]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for failed in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(failed, asyncio.CancelledError):
                raise RuntimeError("a scrape failed") from failed


def orders(found: list[Variant], rounds: int) -> Iterator[tuple[int, list[Variant]]]:
    """Each round, and in which order: everybody is first as often as the others."""
    for number in range(rounds):
        turn = number % len(found)
        yield number, [*found[turn:], *found[:turn]]


async def alternated(found: list[Variant], words: tuple[str, ...], model: str, works: list[Work]) -> None:
    """Starts the nodes, and has them work in turn; the first round of all is to get warm."""
    for each in found:
        each.node.start(*(word.format(config=each.node.config) for word in words))
        await each.node.ready()
    async with scraping(found):
        for work in works:
            for number, order in orders(found, work.rounds + 1):
                for each in order:
                    await each.round(work.requests, work.tokens, model, counted=number > 0)


async def scripted_rows(folder: Path, collector: Collector, quick: bool) -> list[Row]:
    """With the engine that costs nothing, so that all of it is the gateway."""
    words = (sys.executable, "-m", "bench.gateway_node", "--config", "{config}", "--per-token-s", "0")
    rounds, few = (3, 4) if quick else (30, 1)
    works = [Work(rounds, 400 // few, 1), Work(rounds, STREAMS * 8 // few, TOKENS)]
    async with variants(folder, collector) as found:
        await alternated(found, words, "scripted", works)
        _, _, page = await asyncio.to_thread(fetch, found[1].port, "/metrics")
        series = [line for line in page.splitlines() if line and not line.startswith(b"#")]
        return [
            *rows_of("scripted", found, aim=0.98),
            Row("a scrape, p50", 1e3 * percentile(found[1].scrapes_s, 0.5), "ms"),
            Row("series of a node that serves Chat", len(series), ""),
            Row("spans sent to the collector", collector.bytes / 1e6, "MB"),
        ]


async def real_rows(folder: Path, collector: Collector, quick: bool) -> list[Row]:
    """With vLLM: one engine, which all the gateways have."""
    from tests.support.engines import MODEL, running, tiny_spec  # imports vLLM

    spec = tiny_spec(folder, embeddings=False, bench=True)
    (folder / "spec.json").write_text(spec.to_json())
    adopted = ("--spec", str(folder / "spec.json"), "--engine-directory", str(folder / "engine"))
    words = (sys.executable, "-m", "bench.engine_node", "--config", "{config}", *adopted)
    works = [Work(2 if quick else 45, STREAMS * (1 if quick else 4), TOKENS)]
    async with running(spec, folder / "engine"), variants(folder, collector) as found:
        await alternated(found, words, MODEL, works)
        return rows_of("vLLM", found, aim=0.98)


def rows_of(engine: str, found: list[Variant], aim: float) -> list[Row]:
    """Ratios to off, by round; and times of all rounds together."""
    off, on, traced = found
    rows = []
    for tokens in off.rates:
        what = f"{engine}, answers of {tokens} token{'s' * (tokens > 1)}"
        rate = statistics.median(off.rates[tokens])
        rows += [
            Row(
                f"{what}: throughput, on over off",
                _ratio(on.rates, off.rates, tokens),
                "×",
                aim,
                at_least=True,
            ),
            Row(f"{what}: the same, {TRACED}", _ratio(traced.rates, off.rates, tokens), "×"),
            Row(f"{what}: node's CPU, on over off", _ratio(on.cpu_s, off.cpu_s, tokens), "×"),
            Row(f"{what}: the same, {TRACED}", _ratio(traced.cpu_s, off.cpu_s, tokens), "×"),
        ]
        for share in (0.5, 0.99):
            time_on, time_off = (percentile(each.took_s[tokens], share) for each in (on, off))
            rows.append(Row(f"{what}: time, p{100 * share:.0f}, on over off", time_on / time_off, "×"))
        rows.append(Row(f"{what}: requests/s, off", rate, "1/s"))
    return rows


def _ratio(ours: dict[int, list[float]], theirs: dict[int, list[float]], tokens: int) -> float:
    return statistics.median(a / b for a, b in zip(ours[tokens], theirs[tokens], strict=True))


async def measure(quick: bool, scripted: bool) -> list[Row]:
    """Every row; four minutes, one if `quick`; two, and some seconds, with the scripted engine alone."""
    collector = Collector()
    async with collector.listening():
        with tempfile.TemporaryDirectory() as folder:
            rows = await scripted_rows(Path(folder), collector, quick)
        if not scripted:
            with tempfile.TemporaryDirectory() as folder:
                rows += await real_rows(Path(folder), collector, quick)
    return rows


if __name__ == "__main__":
    sys.exit(
        command(
            __doc__,
            lambda quick, scripted: asyncio.run(measure(quick, scripted)),
            {"scripted": "without vLLM"},
        )
    )
