"""What it costs that documents stay: federated search against one node and one index; ingest; restart.

    python -m bench.bench_retrieval [--quick] [--json FILE]
    python -m bench.retrieval_ingest [--full]        (the ingest rows alone; --full: 10,000 chunks)

Three node processes of 33,000 chunks each (bench/retrieval_mesh.py) and one index of 100,000 in this
process, with the same embedder and the same store. Every question is asked five times, one after the other:
of all three nodes, of each node alone by a client of its own, and of the central index, so that all five
see the same machine. "Alone" is the whole way of a client, too: placement, permit, TLS, policy, evidence;
the central index has none of that and is called directly. Hybrid, k = 10, references.

Three nodes share this machine's cores with each other, with etcd and with the client. What part of a figure
that is: rows in CPU seconds, which the kernel counts by process.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import corpus, retrieval_data, traffic
from bench.report import Row, command, percentile
from bench.retrieval_central import Central
from bench.retrieval_ingest import ingest_rows
from bench.retrieval_mesh import Holder, three_holders
from bench.retrieval_restart import restart_rows

ASKERS = 8


async def latency_rows(holders: list[Holder], central: Central, asked: list[str]) -> list[Row]:
    """One search at a time."""
    all_three: list[float] = []
    alone: dict[str, list[float]] = {holder.country: [] for holder in holders}
    whole: list[float] = []
    for query in asked:
        all_three.append(await holders[0].timed(query, "manuals", holders=len(holders)))
        for holder in holders:
            alone[holder.country].append(await holder.timed(query, "manuals", alone=True))
        whole.append(await asyncio.to_thread(central.timed, query))
    rows = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        three = percentile(all_three, share)
        slowest = max(percentile(each, share) for each in alone.values())
        middle = percentile(whole, share)
        aims = (1.3, 2.0) if name == "p50" else (None, None)
        rows += [
            Row(f"federated search of 3 x 33,000, {name}", 1e3 * three, "ms"),
            Row(f"... over the slowest node alone, {name}", three / slowest, "x", aims[0], 1e3 * slowest),
            Row(f"... over one central index of 100,000, {name}", three / middle, "x", aims[1], 1e3 * middle),
        ]
    return rows


async def cpu_rows(holders: list[Holder], central: Central, asked: list[str]) -> list[Row]:
    """CPU per search, by process, and what that means where all of them share the cores."""

    async def spent(alone: bool) -> tuple[list[float], float]:
        before, own = [holder.cpu_s for holder in holders], time.process_time()
        for query in asked:
            await holders[0].timed(query, "manuals", alone=alone, holders=1 if alone else len(holders))
        used = [(holder.cpu_s - b) / len(asked) for holder, b in zip(holders, before, strict=True)]
        return used, (time.process_time() - own) / len(asked)

    cores = os.cpu_count() or 1
    three, client = await spent(False)
    one, _ = await spent(True)
    before = time.process_time()
    for query in asked:
        await asyncio.to_thread(central.timed, query)
    whole = (time.process_time() - before) / len(asked)
    return [
        Row("CPU per federated search: the asker's node", 1e3 * three[0], "ms", None, 1e3 * one[0]),
        Row("CPU per federated search: each other node", 1e3 * statistics.mean(three[1:]), "ms"),
        Row("CPU per federated search: client", 1e3 * client, "ms"),
        Row("CPU per search of the central index", 1e3 * whole, "ms"),
        Row("CPU per federated search, all nodes, over one node alone", sum(three) / one[0], "x"),
        Row(
            f"the least that a federated search can take on {cores} cores, from CPU",
            1e3 * (sum(three) + client) / cores,
            "ms",
        ),
    ]


async def rate_rows(holders: list[Holder], central: Central, asked: list[str], rounds: int) -> list[Row]:
    """8 at a time, as fast as they go; rounds of both alternate."""
    mesh: list[float] = []
    store: list[float] = []
    cores = os.cpu_count() or 1
    busiest: list[float] = []
    for _ in range(rounds):
        with ThreadPoolExecutor(ASKERS) as threads:
            began = time.perf_counter()
            list(threads.map(central.timed, asked))
            store.append(len(asked) / (time.perf_counter() - began))
        used, began = [holder.cpu_s for holder in holders], time.perf_counter()
        waiting = iter(asked)

        async def ask(waiting: object = waiting) -> None:
            for query in waiting:  # type: ignore[attr-defined]
                await holders[0].timed(query, "manuals", holders=len(holders))

        await asyncio.gather(*(ask() for _ in range(ASKERS)))
        mesh.append(len(asked) / (time.perf_counter() - began))
        busiest.append(max(h.cpu_s - b for h, b in zip(holders, used, strict=True)) / len(asked))
    rate, own = statistics.median(mesh), statistics.median(store)
    return [
        Row(
            f"searches/s, {ASKERS} askers, over one store's own rate",
            rate / own,
            "x",
            0.7,
            own,
            at_least=True,
        ),
        Row(f"searches/s, {ASKERS} askers", rate, "1/s"),
        Row(
            f"... if each node had {cores} cores to itself, from CPU (over one store's own rate)",
            cores / statistics.median(busiest) / own,
            "x",
        ),
    ]


async def traffic_rows(holders: list[Holder], asked: list[str]) -> list[Row]:
    """Bytes between the asker's node and each other one, by the kernel's count."""
    if not traffic.available():
        return []
    ports = [int(holder.process.endpoint.rpartition(":")[2]) for holder in holders[1:]]
    before = [traffic.carried(port) for port in ports]
    for query in asked:
        await holders[0].timed(query, "manuals", holders=len(holders))
    carried = [(traffic.carried(port) - b) / len(asked) / 1024 for port, b in zip(ports, before, strict=True)]
    return [
        Row("network per search and node asked, k = 10, references, TLS included", max(carried), "KB", 8.0)
    ]


async def measure(quick: bool) -> list[Row]:
    """Every row; some four minutes, and several more the first time, when the indexes are made."""
    texts, indexes = await asyncio.to_thread(retrieval_data.ensure)
    if texts.repeated:
        print(f"{texts.repeated} chunks are shuffled sentences: this machine has too little text")
    asked = corpus.questions(texts.texts, 20 if quick else 150)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=corpus.FOLDER) as folder:
        with (
            Central(indexes["shard-0"], Path(folder) / "single", "manuals") as single,
            Central(indexes["whole"], Path(folder) / "central", "whole") as central,
        ):
            async with three_holders(Path(folder) / "three", indexes) as holders:
                for query in asked[:10]:  # everything is loaded and connected
                    for holder in holders:
                        await holder.timed(query, "manuals", holders=len(holders))
                    central.timed(query)
                    single.timed(query)
                rows += await latency_rows(holders, central, asked)
                rows += await cpu_rows(holders, central, asked[:60])
                rows += await rate_rows(holders, single, asked[:100], 1 if quick else 3)
                rows += await traffic_rows(holders, asked[:60])
        rows += await restart_rows(Path(folder) / "restart", indexes["whole"], texts.texts, 1 if quick else 3)
    rows += await ingest_rows(texts.texts, 200 if quick else 1_500)
    return rows


if __name__ == "__main__":
    sys.exit(command(__doc__, lambda quick: asyncio.run(measure(quick))))
