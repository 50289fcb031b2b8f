"""How soon a site is back after a partition: cut off from everybody else, then healed.

    python -m bench.bench_partition [--quick] [--json FILE]

Every daemon is a process on a host of its own (tests/support/hosts): etcd, a control plane and a node each
for DE and FR. All packets between the German site (node, control plane, client) and the rest (etcd, France)
vanish silently for 60 s (8 s with --quick), both ways; the German client keeps calling its own node
meanwhile. From the moment of healing it is measured

- until the board is connected again: the French authority, who reads it from etcd, has a fresh status of the
  German node, whose lease ran out long before;
- until the French node serves the client's confidential request again: for that either side must have fresh
  records of the other, and the client's dead connection must have been replaced;
- until a question is answered by both nodes again: the same for a connection between nodes.

All three are asked for in turn, with a pause of 50 ms: what is told is too much by that, and by how long a
failing attempt takes. It needs what a lab needs, root or user namespaces for everybody; where it has neither
it says so and measures nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report import Row, command
from tests.support.hosts.calls import Refused
from tests.support.hosts.federation import COLLECTION, Federation, Plan, federation_of
from tests.support.hosts.lab import why_not

PLAN = Plan(
    {"DE": ("fra-1",), "FR": ("par-1",)},
    heads_interval_s=1.0,
    heads_max_age_s=5.0,
    lease_s=5.0,
    documents=True,
)
PARTITION_S, QUICK_S = 60.0, 8.0
ROUNDS, QUICK_ROUNDS = 3, 1
PAUSE_S = 0.05
GIVE_UP_S = 120.0
SITE, REST = ["fra-1", "control-de", "clinic"], ["etcd", "control-fr", "par-1"]
CARE = {"classes": ["special-category"], "prompt": "Patient, 61, chest pain. What first?"}
ABROAD = {"classes": ["confidential"], "countries": ["FR"], "prompt": "A clause on liability, please."}
QUESTION = {"classes": ["internal"], "query": "where is the pump", "collection": COLLECTION}


def measure(quick: bool) -> list[Row]:
    """All rows."""
    if reason := why_not():
        print(f"not measured: {reason}", file=sys.stderr)
        return []
    lasting, rounds = (QUICK_S, QUICK_ROUNDS) if quick else (PARTITION_S, ROUNDS)
    calls = failed = 0
    back: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, federation_of(Path(folder), PLAN) as mesh:
        for _ in range(rounds):
            more_calls, more_failed = cut_off(mesh, lasting)
            calls, failed = calls + more_calls, failed + more_failed
            mesh.lab.heal()
            for what, seconds in sorted(together_again(mesh).items()):
                back.setdefault(what, []).append(seconds)
            mesh.until_ready()
    after = f"after a {lasting:.0f} s partition"
    return [
        *(Row(f"{after}: {what}, worst of {rounds}", max(all), "s", 5) for what, all in back.items()),
        Row(f"in the course of it: failed of {calls} local calls", failed, "", 0),
    ]


def cut_off(mesh: Federation, seconds: float) -> tuple[int, int]:
    """Cuts the site off for so long; local calls made meanwhile, and how many failed.

    RuntimeError unless it really was cut off.
    """
    until = time.monotonic() + seconds
    mesh.lab.partition(SITE, REST)
    calls = failed = 0
    while time.monotonic() < until:
        calls += 1
        failed += not served(mesh, CARE)
        time.sleep(PAUSE_S)
    if "fra-1" in mesh.statuses("FR") or served(mesh, ABROAD) or not mesh.lab.lost():
        raise RuntimeError("the partition was none")
    return calls, failed


def together_again(mesh: Federation) -> dict[str, float]:
    """Seconds until each of what is waited for is so, from now."""
    begun = time.monotonic()
    found: dict[str, float] = {}
    waiting: dict[str, Callable[[], bool]] = {
        "board connected": lambda: bool(mesh.statuses("FR").get("fra-1", {}).get("ready")),
        "served across the border": lambda: served(mesh, ABROAD),
        "a question answered by both nodes": lambda: answered_by_all(mesh),
    }
    while waiting:
        for what, condition in list(waiting.items()):
            if condition():
                found[what] = time.monotonic() - begun
                del waiting[what]
        if time.monotonic() - begun > GIVE_UP_S:
            raise TimeoutError(f"not so after {GIVE_UP_S:g} s: {', '.join(waiting)}")
        time.sleep(PAUSE_S)
    return found


def served(mesh: Federation, asked: dict[str, Any]) -> bool:
    """Whether a request of the German client is served."""
    try:
        mesh.clinic.ask("chat", profile=mesh.profile, tokens=1, silence_s=2.0, timeout_s=5.0, **asked)
    except Refused:
        return False
    return True


def answered_by_all(mesh: Federation) -> bool:
    """Whether every node answers a question of the German client."""
    try:
        found = mesh.clinic.ask("search", profile=mesh.profile, timeout_s=1.0, **QUESTION)
    except Refused:
        return False
    return {name for name, (outcome, _) in found["coverage"].items() if outcome == "answered"} == {
        "fra-1",
        "par-1",
    }


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
