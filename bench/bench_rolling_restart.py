"""What callers notice when the nodes of a site are restarted one after the other: calls that fail, and waits.

    python -m bench.bench_rolling_restart [--quick] [--json FILE]

Three mesh-node processes of one authority on a real etcd, with the scripted engine at 50 tokens/s; one SDK
client keeps 16 streams of 10 to 60 tokens going. Each node gets SIGTERM, drains, ends, is started again and
waited for. Then the same with SIGKILL instead, which is what the wait is held against. A call counts as
failed if it raises, or if its tokens are not exactly those that it has undisturbed.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from bench.report import Row, command
from tests.support.rolling import Load, Site, site_of

NODES = 3
STREAMS = 16


async def round_of(site: Site, rounds: int, *, kill: bool) -> Load:
    """So many rolling restarts under load."""
    async with site.load(streams=STREAMS) as load:
        for _ in range(rounds):
            for node in site.nodes:
                await site.restart(node, kill=kill)
                await load.until_served_by(node)
    return load


async def measure(quick: bool) -> list[Row]:
    """Every row; a minute, or 30 seconds if `quick`."""
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        async with site_of(Path(folder), NODES) as site:
            drained = await round_of(site, rounds, kill=False)
            killed = await round_of(site, rounds, kill=True)
    for load in (drained, killed):
        for line in load.failed[:5]:
            print(f"failed: {line}")
    what = f"rolling restart of {NODES} nodes under {STREAMS} streams"
    return [
        Row(f"{what}: failed calls", len(drained.failed), "", 0),
        Row("of calls", drained.finished, ""),
        Row("restarts", rounds * NODES, ""),
        Row("calls that went to another node than the first", drained.moved.total(), ""),
        Row(
            "longest wait for the next token (against: the nodes killed)",
            drained.longest_wait_s,
            "s",
            against=killed.longest_wait_s,
        ),
        Row("the nodes killed instead: failed calls", len(killed.failed), ""),
        Row("... of calls", killed.finished, ""),
        Row("... calls that went on at another node", killed.moved.total(), ""),
    ]


if __name__ == "__main__":
    sys.exit(command(__doc__, lambda quick: asyncio.run(measure(quick))))
